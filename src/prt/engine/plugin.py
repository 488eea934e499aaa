"""What vLLM calls in each of its processes (entry point ``vllm.general_plugins``)."""

from transformers import AutoConfig
from vllm import ModelRegistry
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.registry import TokenizerRegistry

from prt.engine.config import ARCHITECTURE, SumConfig

MODE = "prt"  # of tokenizers: vLLM's own, but prompts are checked


def register() -> None:
    """Tell vLLM of sums of models."""
    AutoConfig.register(SumConfig.model_type, SumConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, f"prt.engine.model:{ARCHITECTURE}")
    if MODE not in TokenizerRegistry.tokenizers:
        TokenizerRegistry.register(MODE, "vllm.tokenizers.hf", "CachedHfTokenizer")
        RENDERER_REGISTRY.register(MODE, "prt.engine.renderer", "Renderer")

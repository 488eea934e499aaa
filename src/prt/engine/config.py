"""What vLLM reads of a sum of models: where they lie, and how much each counts."""

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

ARCHITECTURE = "PrtForCausalLM"


class SumConfig(PreTrainedConfig):
    """The sum target + Σ weight · part.

    ``text_config`` is the target's, with the tokens of its tokenizer as ``vocab_size`` and the shortest context of all:
    vLLM asks it for what is one for all models. ``parts``, the target first: the ``folder`` of each, its ``weight``,
    ``adapter`` (its ``folder`` and ``scale``, or None) and ``head`` (the size that its attention heads get, or None).
    ``barred``: ids that do not mean the same token to all. ``unread``: [id, token] of those that have no row in one.
    """

    model_type = "prt-vllm"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    parts: list[dict[str, Any]] | None = None
    barred: list[int] | None = None
    unread: list[list[Any]] | None = None

    def __post_init__(self, **others: Any) -> None:
        """Make a configuration of what was read of the target's."""
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        super().__post_init__(**others)

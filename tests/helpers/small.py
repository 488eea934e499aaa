"""Networks that load in milliseconds, and what was tuned from them, as the commands take them."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.harness import PROBLEMS, TASK, lines
from helpers.letters import letters
from helpers.tuning import bytes_tokenizer
from prt import reward
from prt.atomic import file_hash
from prt.language.network import trainable
from prt.language.recipe import Lora
from prt.language.recipe import Recipe as LanguageRecipe
from prt.language.reward import save_tuned, weights_hash
from prt.vision.backbones import load_backbone, save_backbone
from prt.vision.clip import open_clip
from prt.vision.head import make_head
from prt.vision.predict import zero_shot_classifier

CLIP = {
    "embed_dim": 4,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}
LOOK = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": [16, 16]}
CLASSES = ["cat", "dog"]
TEMPLATE = (  # one that tuning can learn from
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}."
)


def clip(out: Path, seed: int, tokenizer: bool = False) -> Path:
    """A backbone; with a ``tokenizer`` of transformers in its own folder."""
    torch.manual_seed(seed)
    config = copy.deepcopy(CLIP)
    if tokenizer:
        config["text_cfg"] |= {"hf_tokenizer_name": "x", "vocab_size": 300}
        own = bytes_tokenizer()
        own.pad_token = own.eos_token  # open_clip fills up texts
        own.save_pretrained(out)
    save_backbone(out, open_clip.CLIP(**config).state_dict(), config, LOOK, {})
    return out


def tuned_clip(out: Path, base: Path, method: str = "prt") -> Path:
    """The folder of a run."""
    backbone = load_backbone(f"local-dir:{base}")
    facts: dict[str, Any] = {
        "kind": "vision",
        "method": method,
        "alpha": None if method == "ft" else 0.0,
        "shots": "4",
        "seed": 0,
        "recipe": {"steps": 1},
        "backbone": {
            "name": "small",
            "spec": backbone.spec,
            "weights": backbone.fingerprint,
            "model_cfg": backbone.model_cfg,
            "preprocess_cfg": backbone.preprocess_cfg,
        },
        "dataset": {"name": "pets", "fingerprint": "0"},
        "classes": CLASSES,
        "templates": ["a {}"],
    }
    network = zero_shot_classifier(backbone, facts)
    with torch.no_grad():
        for weight in network.tower.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    reward.save(out, network, facts)
    return out


def llama(out: Path, seed: int, tokenizer: Any = None) -> Path:
    """A language model."""
    torch.manual_seed(seed)
    tokenizer = tokenizer or letters()
    tokenizer.chat_template = TEMPLATE
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 2, max_position_embeddings=64, eos_token_id=0, bos_token_id=None, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def tuned_llama(out: Path, base: Path, method: str = "prt", lora: Lora | None = None) -> Path:
    """The folder of a run."""
    network = trainable(str(base), "small", lora, 0, LanguageRecipe(precision="fp32", gradient_checkpointing=False))
    facts = {
        "method": method,
        "alpha": None if method == "ft" else 0.0,
        "lora": lora and lora.model_dump(),
        "base": {"name": "small", "spec": str(base), "weights_sha256": weights_hash(str(base))},
        "dataset": {"name": "chats"},
        "template": "own",
        "recipe": {},
        "seed": 0,
    }
    tokenizer = letters()
    tokenizer.chat_template = TEMPLATE
    save_tuned(out, network, tokenizer, facts)
    return out


def sign(file: Path) -> None:
    """Put a file as it is now into the manifest of the run that it is part of: its damage is found no sooner."""
    path = file.parent / reward.MANIFEST
    manifest = json.loads(path.read_text())
    if "files" in manifest:
        manifest["files"][file.name] = file_hash(file)
    else:
        manifest["weights_sha256"] = file_hash(file)
    path.write_text(json.dumps(manifest))


def questions(top: Path) -> None:
    """A task file with its data, and a folder with those of a benchmark."""
    lines(top / "tasks", PROBLEMS, "sums.jsonl")
    (top / "tasks" / "sums.yaml").write_text(yaml.safe_dump(TASK))
    lines(top / "problems", PROBLEMS, "test.jsonl")


def small(top: Path) -> Path:
    """All of it in a folder: models, rewards, a head, a picture and a list of classes."""
    clip(top / "clip", 0)
    clip(top / "other-clip", 1)
    clip(top / "hf-clip", 2, tokenizer=True)
    tuned_clip(top / "clip-reward", top / "other-clip")
    tuned_clip(top / "clip-ft", top / "other-clip", "ft")
    make_head(load_backbone(f"local-dir:{top / 'clip'}"), CLASSES, ["a {}"], top / "head.safetensors")
    torch.save(load_backbone(f"local-dir:{top / 'clip'}").clip.state_dict(), top / "checkpoint.pt")
    Image.new("RGB", (20, 30), (200, 9, 9)).save(top / "red.png")
    (top / "classes.txt").write_text("\n".join(CLASSES))
    questions(top)
    llama(top / "llama", 0)
    llama(top / "other-llama", 1)
    llama(top / "bytes-llama", 2, bytes_tokenizer())
    tuned_llama(top / "llama-reward", top / "other-llama")
    tuned_llama(top / "llama-ft", top / "other-llama", "ft")
    tuned_llama(top / "llama-lora", top / "other-llama", lora=Lora(rank=1, alpha=1))
    return top

"""Pretraining of the miniature family: tiny CLIPs, written as folders that open_clip loads."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prt.atomic import remove
from prt.errors import known
from prt.miniature.glyphs import CORPORA, IMAGE_SIZE, batch, captions
from prt.recipe import Recipe
from prt.training import fit


def _architecture(**vision: Any) -> dict[str, Any]:
    """An open_clip model configuration with the family's common text tower."""
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    return {"embed_dim": 64, "vision_cfg": {"image_size": IMAGE_SIZE} | vision, "text_cfg": text}


ARCHITECTURES = {
    "vit-s": _architecture(patch_size=8, width=64, layers=3, head_width=32),
    "vit-b": _architecture(patch_size=8, width=96, layers=4, head_width=32),
    "rn12": _architecture(layers=[1, 1, 1, 1], width=12),
    "rn24": _architecture(layers=[1, 1, 1, 1], width=24),
}
PREPROCESS = {
    "size": IMAGE_SIZE,
    "mean": [0.25] * 3,
    "std": [0.35] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def pretrain(
    architecture: str, corpus: str, recipe: Recipe, seed: int, out: Path, checkpoint: Path, stop: int | None = None
) -> None:
    """Train a CLIP on a corpus of glyphs and write it to the folder ``out``, which ``local-dir:`` loads.

    Args:
        architecture: a key of ARCHITECTURES.
        corpus: a key of ``prt.miniature.glyphs.CORPORA``.
        seed: of the initial weights and of the batches.
        out: gets open_clip_model.safetensors, then open_clip_config.json: a folder with the latter is whole.
        checkpoint: a file to resume from, removed at the end.
        stop: the iteration to end after: the network is then a checkpoint of the pretraining.

    Raises:
        InputError: on unknown names, or where the files cannot be written.
    """
    known(architecture, ARCHITECTURES, "architecture")
    known(corpus, CORPORA, "corpus")
    # Seconds of imports: only for those who train.
    from prt.vision.backbones import save_backbone
    from prt.vision.clip import open_clip

    model_cfg, glyphs = ARCHITECTURES[architecture], CORPORA[corpus]
    torch.manual_seed(seed)
    network = open_clip.CLIP(**model_cfg)
    # The captions use some 60 of its 49,408 rows: left random, it costs the optimiser no time.
    network.token_embedding.requires_grad_(False)
    tokens = open_clip.SimpleTokenizer(context_length=network.context_length)(captions(glyphs))
    mean, std = (torch.tensor(PREPROCESS[key]).view(3, 1, 1) for key in ("mean", "std"))
    contrast = open_clip.ClipLoss()

    def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in count(start):
            images, caption = batch(glyphs, recipe.batch, seed, step)
            # channels_last: a fifth less time for the ResNets.
            yield ((images - mean) / std).contiguous(memory_format=torch.channels_last), tokens[caption]

    facts = {"model_cfg": model_cfg, "corpus": asdict(glyphs), "seed": seed, "preprocess_cfg": PREPROCESS}
    fit(
        network,
        lambda pair: contrast(*network(*pair)),
        batches,
        recipe,
        name=f"pretrain {architecture} {corpus}",
        checkpoint=checkpoint,
        identity=facts,
        stop=stop,
    )
    origin = {"architecture": architecture, "corpus": asdict(glyphs), "recipe": recipe.model_dump(), "seed": seed}
    origin |= {} if stop is None else {"stop": stop}
    save_backbone(out, network.state_dict(), model_cfg, PREPROCESS, origin)
    remove(checkpoint)

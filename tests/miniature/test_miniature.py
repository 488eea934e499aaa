"""The miniature family: pure batches, fixed splits, folders for open_clip, training that resumes bitwise."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prt.atomic import file_hash
from prt.errors import InputError
from prt.miniature import glyphs, pretrain
from prt.miniature.data import CLASS_NAMES, TEMPLATES, Splits, digits, mnist
from prt.recipe import Recipe

RECIPE = Recipe(optimizer="adamw", lr=1e-3, batch=8, steps=6, warmup=2, weight_decay=0.1, beta2=0.98)
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT pretrained for six iterations."""
    out = tmp_path_factory.mktemp("miniature") / "vit-s-poor"
    pretrain.pretrain("vit-s", "poor", RECIPE, 0, out, out.parent / "checkpoint.safetensors")
    return out


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    """The global generator plays no part; another seed or step gives another batch."""
    corpus = glyphs.CORPORA["poor"]
    images, captions = glyphs.batch(corpus, 16, seed=1, step=2)
    torch.rand(3)
    again, same = glyphs.batch(corpus, 16, seed=1, step=2)
    assert torch.equal(images, again) and torch.equal(captions, same)
    assert images.shape == (16, 3, 32, 32) and images.min() >= 0 and 0.5 < images.max() <= 1
    for seed, step in ((2, 1), (1, 3), (3, 2)):
        assert not torch.equal(images, glyphs.batch(corpus, 16, seed, step)[0])


def test_captions_name_the_glyph() -> None:
    """The zero-shot prompts of the data sets are among the captions."""
    corpus = glyphs.CORPORA["rich"]
    captions = glyphs.captions(corpus)
    assert len(captions) == len(set(captions)) + 36 * 3 * 20  # three templates name no font
    assert captions[:4] == [
        "digit zero",
        "the digit zero",
        "a picture of the digit zero",
        "digit zero in sans",
    ]
    assert captions[-1] == "a picture of the latin capital letter z in typewriter"
    assert {template.format(name) for template in TEMPLATES for name in CLASS_NAMES} <= set(captions)


@pytest.mark.parametrize("name", glyphs.FONTS)
def test_every_font_draws_every_character_differently(name: str) -> None:
    """No font draws blanks, boxes, or one glyph for two characters."""
    plain = glyphs._rendered((name,))[:, 1]
    assert len(plain.flatten(1).unique(dim=0)) == 36
    assert (plain.amax((1, 2)) == 1).all()


def test_the_corpora_differ() -> None:
    """The same seed and step give other images; the poor corpus's captions are some of the rich one's."""
    poor, rich = (glyphs.batch(glyphs.CORPORA[name], 16, 0, 0) for name in ("poor", "rich"))
    assert not torch.equal(poor[0], rich[0])
    assert set(glyphs.captions(glyphs.CORPORA["poor"])) < set(glyphs.captions(glyphs.CORPORA["rich"]))


@pytest.mark.parametrize(("load", "side", "sizes"), [(digits, 8, (1097, 200, 500)), (mnist, 28, (3500, 500, 1000))])
def test_splits_are_fixed_disjoint_and_stratified(
    load: Callable[[], Splits], side: int, sizes: tuple[int, ...]
) -> None:
    """No image occurs twice, and every class has its share."""
    splits, again = load(), load()
    assert list(splits) == ["train", "validation", "test"]
    for (name, (images, labels)), size in zip(splits.items(), sizes, strict=True):
        assert images.shape == (size, side, side) and images.dtype == np.uint8 and images.max() == 255
        assert labels.shape == (size,) and labels.dtype == np.int64
        assert np.ptp(np.bincount(labels, minlength=10)) <= 0.02 * size + 1
        assert np.array_equal(images, again[name][0]) and np.array_equal(labels, again[name][1])
    rows = np.concatenate([images.reshape(len(images), -1) for images, _ in splits.values()])
    assert len(np.unique(rows, axis=0)) == len(rows) == sum(sizes)


def test_open_clip_loads_the_folder_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, preprocessing, and a tokenizer of context 16 that cuts no caption short."""
    import open_clip

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    name = f"local-dir:{folder}"
    network, _, transform = open_clip.create_model_and_transforms(name, require_pretrained=True)
    tokenizer = open_clip.get_tokenizer(name)
    assert network.visual.preprocess_cfg == pretrain.PREPROCESS | {
        "mode": "RGB",
        "fill_color": 0,
        "size": (32, 32),
    }
    assert tokenizer.context_length == 16
    tokens = tokenizer(glyphs.captions(glyphs.CORPORA["rich"]))
    assert tokens.shape[1] == 16
    assert len(tokens.unique(dim=0)) == len(set(glyphs.captions(glyphs.CORPORA["rich"])))
    assert not list(folder.parent.glob("checkpoint*"))
    assert sorted(file.name for file in folder.iterdir()) == ["open_clip_config.json", WEIGHTS]

    from PIL import Image

    image = transform(Image.fromarray(digits()["train"][0][0]))
    assert image.shape == (3, 32, 32)
    assert network.encode_image(image.unsqueeze(0)).shape == network.encode_text(tokens[:1]).shape == (1, 64)


@pytest.mark.parametrize("architecture", pretrain.ARCHITECTURES)
def test_every_architecture_is_a_clip(architecture: str) -> None:
    """Each configuration encodes 32 × 32 images into 64 numbers."""
    from open_clip import CLIP

    network = CLIP(**pretrain.ARCHITECTURES[architecture]).eval()
    images, _ = glyphs.batch(glyphs.CORPORA["rich"], 2, 0, 0)
    assert network.encode_image(images).shape == (2, 64)


@pytest.mark.parametrize("architecture", ["vit-s", "rn12"])
def test_a_killed_run_goes_on_bit_for_bit(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the middle, then the same call: the weights of a run that was never stopped."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    pretrain.pretrain(architecture, "rich", RECIPE, 3, tmp_path / "whole", checkpoint)

    def terminating(*arguments: int) -> tuple[torch.Tensor, torch.Tensor]:
        if arguments[-1] == 3:
            signal.raise_signal(signal.SIGTERM)
        return glyphs.batch(*arguments)

    monkeypatch.setattr(pretrain, "batch", terminating)
    with pytest.raises(SystemExit):
        pretrain.pretrain(architecture, "rich", RECIPE, 3, tmp_path / "resumed", checkpoint)
    assert checkpoint.exists() and not (tmp_path / "resumed").exists()
    steps = []
    monkeypatch.setattr(pretrain, "batch", lambda *a: steps.append(a[-1]) or glyphs.batch(*a))
    pretrain.pretrain(architecture, "rich", RECIPE, 3, tmp_path / "resumed", checkpoint)
    assert 0 not in steps
    assert file_hash(tmp_path / "whole" / WEIGHTS) == file_hash(tmp_path / "resumed" / WEIGHTS)


def test_the_seed_matters(folder: Path, tmp_path: Path) -> None:
    """Another seed, other weights."""
    pretrain.pretrain("vit-s", "poor", RECIPE, 1, tmp_path / "other", tmp_path / "checkpoint")
    assert file_hash(folder / WEIGHTS) != file_hash(tmp_path / "other" / WEIGHTS)
    assert json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"] == 64


@pytest.mark.parametrize(("architecture", "corpus", "near"), [("vit_s", "poor", "vit-s"), ("rn12", "pour", "poor")])
def test_unknown_names_are_refused(architecture: str, corpus: str, near: str, tmp_path: Path) -> None:
    """With the nearest name."""
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        pretrain.pretrain(architecture, corpus, RECIPE, 0, tmp_path / "out", tmp_path / "checkpoint")

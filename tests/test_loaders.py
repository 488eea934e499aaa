"""What loads models, heads and what was tuned, fed with damaged files of each: it works with them, or says why not.

What is read is used, too: what it gives must be numbers. See test_readers for files without networks.
"""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.damage import accepted, damage_to, share, tensors_of
from helpers.small import CLASSES, sign, small
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prt.cell import Cell
from prt.errors import InputError
from prt.language import decode, harness
from prt.language.evaluate import question
from prt.language.imported import import_model
from prt.language.parts import Models
from prt.methods import PRETRAINED
from prt.vision.imported import import_clip
from prt.vision.predict import load_reward

MEMORY = 12 * 2**30  # bytes of addresses: what a file may have the process ask for


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """A description of a network with sizes beyond all bounds is to fail at once, not to fill the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("small"))


def predicted(
    top: Path, run: str = "clip-reward", method: str = "prt", target: str = "clip", head: bool = False
) -> None:
    on = load_reward(top / run, "cpu", method).on(
        f"local-dir:{top / target}", top / "head.safetensors" if head else None
    )
    for probabilities in on.both([top / "red.png"]):
        assert probabilities.isfinite().all()
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-3)


def generated(top: Path, run: str = "llama-reward", target: str = "llama", method: str = "prt") -> None:
    on = decode.load_reward(top / run, method=method).on(str(top / target))
    on.generate("the cat", max_new_tokens=2, chat=True)


def measured(top: Path) -> None:
    cell = Cell(dataset="x", source="s", target="t", method="prt", alpha=0.0, strength=1.0, seed=0)
    places = {PRETRAINED: str(top / "llama")}
    causal = Models(
        lambda _, network: places.get(network, str(top / "llama-reward")), torch.float32, torch.device("cpu")
    )
    logits = causal.of(cell).model(torch.tensor([[3, 4]])).logits
    assert not logits.isnan().any()


def imported_clip(top: Path) -> None:
    """The base is the checkpoint's own, but for a weight."""
    shutil.rmtree(top / "made", ignore_errors=True)
    import_clip(
        str(top / "checkpoint.pt"),
        f"local-dir:{top / 'other-clip'}",
        CLASSES,
        ["a {}"],
        top / "made",
        method="ft",
        downloads=top,
    )
    predicted(top, "made", "poe")


def imported_llama(top: Path) -> None:
    shutil.rmtree(top / "made", ignore_errors=True)
    import_model(str(top / "llama"), str(top / "other-llama"), top / "made", method="ft", downloads=top)
    generated(top, "made", "other-llama", "poe")


def asked(benchmark: str, **settings: str) -> None:
    harness.load.cache_clear()
    question(benchmark, settings, 0)


LLAMA = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
# What is damaged → what reads it. What a manifest names is signed again, so that its damage is not found by that.
USES: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "clip/open_clip_config.json": (predicted, False),
    "clip/open_clip_model.safetensors": (predicted, False),
    "hf-clip/open_clip_config.json": (lambda top: predicted(top, target="hf-clip"), False),
    "hf-clip/tokenizer.json": (lambda top: predicted(top, target="hf-clip"), False),
    "hf-clip/tokenizer_config.json": (lambda top: predicted(top, target="hf-clip"), False),
    "head.safetensors": (lambda top: predicted(top, head=True), False),
    "clip-reward/manifest.json": (predicted, False),
    "clip-reward/weights.safetensors": (predicted, True),
    "clip-ft/manifest.json": (lambda top: predicted(top, "clip-ft", "eft"), False),
    "checkpoint.pt": (imported_clip, False),
    **{f"llama/{file}": (generated, False) for file in LLAMA},
    **{f"bytes-llama/{file}": (lambda top: generated(top, target="bytes-llama"), False) for file in LLAMA[2:4]},
    "llama-reward/manifest.json": (generated, False),
    **{f"llama-reward/{file}": (generated, True) for file in (*LLAMA, "chat_template.jinja")},
    "tasks/sums.yaml": (lambda top: asked("sums", task=str(top / "tasks" / "sums.yaml")), False),
    "tasks/sums.jsonl": (lambda top: asked("sums", task=str(top / "tasks" / "sums.yaml")), False),
    "problems/test.jsonl": (lambda top: asked("gsm8k", data=str(top / "problems")), False),
    "llama-ft/manifest.json": (lambda top: generated(top, "llama-ft", "llama", "eft"), False),
    "llama-lora/manifest.json": (lambda top: generated(top, "llama-lora"), False),
    "llama-lora/adapter_config.json": (lambda top: generated(top, "llama-lora"), True),
    "llama-lora/adapter_model.safetensors": (lambda top: generated(top, "llama-lora"), True),
}
OTHER_USES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "composed parts": ("llama-reward/manifest.json", measured),
    "an imported model": ("llama/config.json", imported_llama),
}


@pytest.mark.parametrize("name", [*USES, *OTHER_USES])
@share(0.15)
@given(st.data())
def test_damaged_files(name: str, top: Path, data: st.DataObject) -> None:
    file, use, signed = (OTHER_USES[name] + (False,)) if name in OTHER_USES else (name, *USES[name])
    path = top / file
    whole = {path: path.read_bytes()} | {p: p.read_bytes() for p in [path.parent / "manifest.json"] if p.is_file()}
    try:
        damage = data.draw(damage_to(path, whole[path]))
        damage(path)
        if signed:
            sign(path)
        accepted(lambda: use(top))
    finally:
        for written, content in whole.items():
            written.write_bytes(content)


@pytest.mark.parametrize("name", [*USES])
def test_what_is_whole_is_used(name: str, top: Path) -> None:
    use = USES[name][0]
    assert accepted(lambda: use(top))


def told(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def other_json(**changes: Any) -> Callable[[Path], Any]:
    return lambda file: file.write_text(json.dumps(told(file) | changes))


def other_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], Any]:
    def damage(file: Path) -> None:
        tensors, metadata = tensors_of(file)
        save_file(change(tensors), file, metadata)

    return damage


# Cases that once ended otherwise: file, its damage, what is said.
ONCE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("hf-clip/tokenizer_config.json", Path.unlink, "hf-clip cannot read the class names' prompts"),
    ("head.safetensors", other_tensors(lambda t: {k: v.double() for k, v in t.items()}), "holds torch.float64"),
    ("llama/config.json", other_json(pretraining_tp=" "), "of .*llama cannot be loaded"),
    ("llama/generation_config.json", other_json(eos_token_id=0.5), "says eos_token_id 0.5, which is no token's id"),
    ("llama/generation_config.json", other_json(eos_token_id=[]), r"says eos_token_id \[\], which is no token's id"),
    ("llama/generation_config.json", other_json(eos_token_id=[2**40]), "says eos_token_id .*, which is no token's id"),
    ("llama/generation_config.json", lambda f: f.write_text("[]"), "the model of .*llama cannot be loaded"),
    ("llama/tokenizer_config.json", other_json(model_max_length="nan"), "the tokenizer of .*llama cannot be loaded"),
    ("llama-reward/chat_template.jinja", lambda f: f.write_text("{{ ''.__class__.__mro__ }}"),
     "the chat template of .* refuses the prompt .SecurityError"),
    ("llama-lora/adapter_model.safetensors", other_tensors(lambda t: dict(list(t.items())[1:])),
     "the adapter in .*llama-lora does not fit .* it lacks base_model"),
    ("llama-lora/adapter_model.safetensors", other_tensors(lambda t: t | {"x.lora_A.weight": torch.ones(1)}),
     "the adapter in .*llama-lora does not fit .* there is no place for x"),
    ("llama-lora/adapter_model.safetensors", other_tensors(lambda t: {k: v[:, :1] for k, v in t.items()}),
     "the adapter in .*llama-lora does not fit "),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "said"), ONCE)
def test_cases_that_once_ended_otherwise(name: str, damage: Callable[[Path], Any], said: str, top: Path) -> None:
    path, (use, signed) = top / name, USES[name]
    whole = {p: p.read_bytes() for p in (path, path.parent / "manifest.json") if p.is_file()}
    try:
        damage(path)
        if signed:
            sign(path)
        with pytest.raises(InputError, match=said):
            use(top)
    finally:
        for written, content in whole.items():
            written.write_bytes(content)


@pytest.mark.parametrize("name", USES)
def test_no_file(name: str, top: Path) -> None:
    """Nothing, or a folder in its place; there is use without some."""
    path, use = top / name, USES[name][0]
    aside = path.rename(path.with_name("aside"))
    try:
        accepted(lambda: use(top))
        path.mkdir()
        accepted(lambda: use(top))
        path.rmdir()
        os.mkfifo(path)
        assert not accepted(lambda: use(top))
        path.unlink()
    finally:
        aside.rename(path)

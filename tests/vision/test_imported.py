"""CLIPs that others tuned, imported: the sums of the equations, and one sentence for what is wrong."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hub import Server, hub, server
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from prt import combine
from prt.errors import InputError
from prt.miniature.pretrain import ARCHITECTURES
from prt.reward import read_manifest
from prt.vision.backbones import Backbone, load_backbone, preprocess, save_backbone
from prt.vision.clip import open_clip
from prt.vision.imported import _lasting, import_clip
from prt.vision.pictures import as_seen
from prt.vision.predict import load_reward

__all__ = ["hub", "server"]  # fixtures
Prt = Callable[..., tuple[int, str, str]]
CLASSES, TEMPLATES = ["red cat", "blue dog", "boat"], ["a {}.", "the {} here"]
LOOK = {"size": 32, "mode": "RGB", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "interpolation": "bilinear"}
LOOK |= {"resize_mode": "shortest", "fill_color": 0}


def folder(out: Path, seed: int, architecture: str = "vit-s", like: Path | None = None) -> Path:
    """A random CLIP of open_clip, in its own format; ``like``: near the one there, as one tuned from it."""
    torch.manual_seed(seed)
    config = copy.deepcopy(ARCHITECTURES[architecture])
    if like is None:
        open_clip.factory._MODEL_CONFIGS["own"] = config
        try:
            weights = open_clip.create_model("own").state_dict()
        finally:
            del open_clip.factory._MODEL_CONFIGS["own"]
    else:
        weights = load_backbone(f"local-dir:{like}").clip.state_dict()
    moved = {name: t + 0.1 * torch.randn_like(t) if t.dim() > 1 else t for name, t in weights.items()}
    save_backbone(out, moved, config, LOOK, {})
    return out


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A target, a base, the base fine-tuned (image and text tower), pictures and the names of classes."""
    top = tmp_path_factory.mktemp("clips")
    base = folder(top / "base", 0)
    made = {"target": folder(top / "target", 1, "rn12"), "base": base, "tuned": folder(top / "tuned", 2, like=base)}
    for i in range(3):
        pixels = torch.randint(0, 256, (40, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
        Image.fromarray(pixels.numpy()).save(top / f"{i}.png")
    (top / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")
    # As open_clip's own training leaves it.
    weights = load_backbone(f"local-dir:{made['tuned']}").clip.state_dict()
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, top / "epoch_3.pt")
    return made | {"top": top, "classes": top / "classes.txt", "checkpoint": top / "epoch_3.pt"}


@torch.no_grad()
def logits(places: dict[str, Path], name: str) -> Tensor:
    """Zero-shot logits of the pictures, by open_clip's own functions: the text towers' means, then cosines."""
    b: Backbone = load_backbone(f"local-dir:{places[name]}")
    clip = b.clip.eval()
    rows = []
    for label in CLASSES:
        texts = clip.encode_text(b.tokenizer([t.replace("{}", label) for t in TEMPLATES]), normalize=True)
        rows.append(torch.nn.functional.normalize(texts.mean(0), dim=-1))
    look = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**LOOK), False)
    images = torch.stack([look(Image.open(path)) for path in sorted(places["top"].glob("*.png"))])
    return clip.logit_scale.exp() * clip.encode_image(images, normalize=True) @ torch.stack(rows).T


@pytest.mark.parametrize("kind", ["checkpoint", "tuned"])
def test_an_imported_pair_gives_the_sum_of_the_equation(
    prt: Prt, places: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    out, base = tmp_path / "made", f"local-dir:{places['base']}"
    prompts = [word for template in TEMPLATES for word in ("--template", template)]
    given = ["--base", base, "--classes", places["classes"], *prompts, "--out", out]
    assert prt("import", "vision", places[kind], *given)[:2] == (0, f"ready: {out}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]
    manifest = read_manifest(out)
    unknown = {key for key, value in manifest.items() if value is None}
    assert unknown == {"alpha", "dataset", "recipe", "seed", "shots", "head_sha256", "initial_sha256"}
    assert (manifest["method"], manifest["classes"], manifest["templates"]) == ("ft", CLASSES, TEMPLATES)
    assert manifest["backbone"]["spec"] == base
    assert manifest["imported"] == {"from": str(places[kind]), "revision": None}

    target, tuned, source = (logits(places, name) for name in ("target", "tuned", "base"))
    images = sorted(places["top"].glob("*.png"))
    line = ["predict", "--reward", out, "--target", f"local-dir:{places['target']}", "--json", *images]
    for strength in (1.0, 0.5):
        for method, expected in (
            ("eft", combine.eft(target, tuned, source, strength)),
            ("poe", combine.poe(target, tuned, strength)),
        ):
            code, said, complaint = prt(*line, "--method", method, "--strength", strength)
            assert code == 0, complaint
            for entry, row in zip(json.loads(said), expected.exp(), strict=True):
                found = {x["label"]: x["probability"] for x in entry["with_reward"]}
                assert found == pytest.approx(dict(zip(CLASSES, row.tolist(), strict=True)), abs=1e-4)
    assert not torch.allclose(combine.eft(target, tuned, source), combine.poe(target, tuned), atol=0.01)
    code, _, complaint = prt(*line)
    assert code == 1
    assert complaint.endswith(
        "made holds a fine-tuned model (method ft), no reward: method prt does not take it; use it with method eft or "
        "poe.\n"
    )


def test_a_run_of_ours_needs_no_import(
    prt: Prt, tuned: Path, backbone: Path, places: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    """EFT of a fine-tuned run, whose base its manifest names; on its own base it is the fine-tuned model (eq. 3)."""
    images = sorted((pictures / "cross").iterdir())[:3]
    run = tuned / "ft" / "4" / "0"
    finetuned = load_reward(run, method="eft")
    model = finetuned.on(f"local-dir:{backbone}")
    look = preprocess(model.preprocess_cfg)
    pixels = torch.stack([look(as_seen(p.read_bytes(), "")) for p in images])
    with torch.no_grad():
        torch.testing.assert_close(model.predict(images), finetuned.classifier(pixels).softmax(-1))
    moved = Path(shutil.copytree(backbone, tmp_path / "moved"))
    assert load_reward(run, method="eft", base=f"local-dir:{moved}").pretrained
    with pytest.raises(InputError, match=r"was tuned from tiny, but the weights of local-dir:.*base are others"):
        load_reward(run, method="eft", base=f"local-dir:{places['base']}")
    with pytest.raises(InputError, match=r"was tuned from tiny, which is not to be had .*or name it as the base"):
        load_reward(run, method="eft", base=f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(InputError, match=r"holds a reward: method poe does not take it; use it with method prt\."):
        load_reward(tuned / "prt" / "4" / "0", method="poe")


def test_from_the_hub_and_a_real_reward(hub: Server, places: dict[str, Path], tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in places["tuned"].iterdir()}
    hub.repository("me/clip", files, "models")
    base = f"local-dir:{places['base']}"
    out = tmp_path / "made"
    import_clip("hf-hub:me/clip", base, CLASSES, TEMPLATES, out, method="prt", downloads=tmp_path / "downloads")
    assert len(read_manifest(out)["imported"]["revision"]) == 40
    images = sorted(places["top"].glob("*.png"))
    found = load_reward(out).on(f"local-dir:{places['target']}", strength=0.3).predict(images)
    expected = combine.prt(logits(places, "target"), logits(places, "tuned"), 0.3).exp()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    with pytest.raises(InputError, match="the Hugging Face hub has no model me/none"):
        import_clip("hf-hub:me/none", base, CLASSES, TEMPLATES, tmp_path / "no", method="ft", downloads=tmp_path)


def test_the_name_of_a_base_holds_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    for file in ("w.pt", "clip/open_clip_config.json"):
        (tmp_path / file).touch()
    assert _lasting("ViT-B-16/w.pt") == f"ViT-B-16/{tmp_path}/w.pt"
    assert _lasting("clip") == _lasting("local-dir:clip") == f"local-dir:{tmp_path}/clip"
    assert _lasting("ViT-B-16/openai") == "ViT-B-16/openai"


def test_what_is_wrong_ends_with_one_sentence(prt: Prt, places: dict[str, Path], tmp_path: Path) -> None:
    inputs, out, base = tmp_path / "inputs", tmp_path / "out", f"local-dir:{places['base']}"
    inputs.mkdir()
    out.mkdir()

    def refused(complaint: str, spec: Path | str = places["checkpoint"], **other: Any) -> None:
        given: dict[str, Any] = {"base": base, "classes": CLASSES, "templates": TEMPLATES, "method": "ft"} | other
        with pytest.raises(InputError, match=complaint) as caught:
            import_clip(str(spec), out=out / "made", downloads=tmp_path, **given)
        assert "\n" not in str(caught.value) and str(caught.value)[-1] in ".?"
        assert not list(out.iterdir())

    refused("there is no checkpoint /nowhere", "/nowhere")
    refused("there is no checkpoint .*inputs; name a file", inputs)
    refused("unknown open_clip model 'ViT-B-61'", base="ViT-B-61/openai")
    refused("unknown method of a model that is imported", method="poe")
    refused("1 classes were given", classes=["cat"])
    refused("has the class name 'cat' twice", classes=["cat", "cat"])
    refused("has the template 'a photo' without {}", templates=["a photo"])
    refused("has the weights of .* itself", places["base"])
    refused("do not fit local-dir:.*target", base=f"local-dir:{places['target']}")
    refused("was not tuned from .*target: '.*' has shape", places["tuned"], base=f"local-dir:{places['target']}")
    save_file({"fc.weight": torch.zeros(3, 64)}, inputs / "head.safetensors")
    refused("do not fit", inputs / "head.safetensors")
    (inputs / "cut.pt").write_bytes(places["checkpoint"].read_bytes()[:5000])
    refused("do not fit", inputs / "cut.pt")
    state = torch.load(places["checkpoint"], weights_only=True)
    state["state_dict"]["module.logit_scale"].fill_(torch.nan)
    torch.save(state, inputs / "nan.pt")
    refused(r"the weights of .*nan.pt hold NaN or infinity \('logit_scale'\)", inputs / "nan.pt")
    (inputs / "adapter_config.json").write_text("{}")
    refused("holds an adapter; merge it", inputs)
    (inputs / "classes.txt").write_bytes(b"\xff\xfe")
    line = ["import", "vision", places["checkpoint"], "--base", base, "--out", out / "made", "--classes"]
    for names in (inputs / "classes.txt", inputs / "none.txt"):
        code, _, complaint = prt(*line, names)
        assert code == 1
        assert "class names" in complaint.splitlines()[-1]
        assert not list(out.iterdir())
    # A head of other labels than the classes that were given.
    import_clip(str(places["checkpoint"]), base, CLASSES, TEMPLATES, out / "made", method="ft", downloads=tmp_path)
    other = zero_shot_head_file(places, tmp_path)
    with pytest.raises(InputError, match="different labels"):
        load_reward(out / "made", method="poe").on(f"local-dir:{places['target']}", head=other)


def zero_shot_head_file(places: dict[str, Path], folder: Path) -> Path:
    """The target's head for other classes."""
    from prt.vision.head import make_head

    make_head(load_backbone(f"local-dir:{places['target']}"), ["red cat", "cow", "boat"], TEMPLATES, folder / "head.st")
    return folder / "head.st"

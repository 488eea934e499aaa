"""Each stand-in lies where its download would, and is read by the same code; names, kinds and forms are real."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.pipeline import ROOT
from PIL import Image

from prt.errors import InputError
from prt.plan import Plan
from prt.plan.checks import read_config
from prt.vision.catalogue import NAMES, entry

CPU = torch.device("cpu")
FILES = [ROOT / "config" / "paper.yaml", ROOT / "config" / "rehearsal.yaml"]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.read(FILES)


@pytest.mark.parametrize("name", NAMES)
def test_data_sets(name: str, tmp_path: Path) -> None:
    """All classes by their real names, each in every split; the stand-in's own numbers of images, which are checked."""
    from prt.rehearsal.pictures import make
    from prt.vision.fetch import fetch
    from prt.vision.sources import find

    make(f"paper:{name}", tmp_path)
    fetch(f"paper:{name}", tmp_path, tmp_path / "receipt.json")
    classes, parts = find(f"paper:{name}", tmp_path)
    assert classes == list(entry(name).classes.values())
    for part in parts.values():
        assert set(part.labels) == set(range(len(classes)))
        content, _ = part.read(0)
        assert len(content) > 100
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["images"] == {split: len(part.labels) for split, part in parts.items()}
    assert receipt["stand_in"]["images"]["train"] < entry(name).images["train"]


def test_a_stand_in_lacks_a_file(tmp_path: Path) -> None:
    from prt.rehearsal.pictures import make
    from prt.vision.sources import find

    make("paper:cub", tmp_path)
    lists = tmp_path / "paper" / "cub" / "CUB_200_2011" / "train_test_split.txt"
    lists.write_text(lists.read_text().replace("1 1\n", "1 0\n", 1))
    with pytest.raises(InputError, match=r"has 599 images in split 'train' of .*, but 600 are published"):
        find("paper:cub", tmp_path)


@pytest.mark.parametrize(
    ("spec", "tower", "size", "mean", "quick"),
    [
        ("RN50-quickgelu/openai", "ModifiedResNet", 32, 0.48145466, True),
        ("ViT-L-14/laion2b_s32b_b82k", "VisionTransformer", 28, 0.5, False),
        ("convnext_base_w/laion2b_s13b_b82k", "TimmModel", 36, 0.48145466, False),
    ],
)
def test_clips(spec: str, tower: str, size: int, mean: float, quick: bool, tmp_path: Path) -> None:
    from prt.rehearsal.clips import make
    from prt.vision.backbones import load_backbone, preprocess

    make(spec, tmp_path / "stand-in")
    make(spec, tmp_path / "again")
    loaded, again = (load_backbone(f"local-dir:{tmp_path / name}") for name in ("stand-in", "again"))
    assert loaded.fingerprint == again.fingerprint
    assert type(loaded.clip.visual).__name__ == tower
    assert loaded.preprocess_cfg["mean"][0] == mean
    assert loaded.model_cfg.get("quick_gelu", False) == quick
    pixels = preprocess(loaded.preprocess_cfg)(Image.new("RGB", (40, 30)))
    assert pixels.shape == (3, size, size)
    loaded.clip.eval()
    with torch.no_grad():
        texts = loaded.clip.encode_text(loaded.tokenizer(["a photo of a cat."]))
        assert loaded.clip.encode_image(pixels[None] / 255).shape == texts.shape


def test_language_models(plan: Plan, tmp_path: Path) -> None:
    """All of the paper's, with what makes the families differ; a source and its targets share a tokenizer."""
    from prt.language.models import Causal, Vocabulary, fetch, load, shared_ids, vocabulary
    from prt.rehearsal.models import make

    assert plan.language is not None
    language, words = plan.language, dict[str, Vocabulary]()
    used: dict[str, Causal] = {}
    for name in language.used:
        spec = str(language.config.models[name].spec)
        make(spec, tmp_path / name)
        fetch(spec, tmp_path / name)
        used[name] = load(str(tmp_path / name), torch.float32, CPU)
        words[name] = vocabulary(used[name].tokenizer)
    for source, target in language.pairs():
        shared_ids(words[target], words[source], (target, source))
    rows = {name: len(causal.model.get_output_embeddings().weight) for name, causal in used.items()}
    assert rows["qwen2.5-7b"] > rows["qwen2.5-0.5b"] > words["qwen2.5-7b"].size == words["qwen2.5-0.5b"].size
    assert words["qwen2-0.5b"].added.keys() < words["qwen2.5-0.5b"].added.keys()
    assert words["llama-3-8b"].added.keys() != words["llama-3.1-8b"].added.keys()
    assert {name for name, causal in used.items() if causal.model.config.tie_word_embeddings} == {
        *("llama-3.2-1b", "llama-3.2-3b", "qwen2-0.5b", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b")
    }
    shared = {
        name for name, causal in used.items()
        if causal.model.config.num_key_value_heads < causal.model.config.num_attention_heads
    }  # fmt: skip
    assert used.keys() - shared == {"llama-2-7b", "llama-2-13b"}
    assert len({causal.tokenizer("A b\n12").input_ids[0] for causal in used.values()}) > 2
    text = " Ann's 12 cakes,\n\tö 漢"
    for causal in used.values():
        ids = causal.tokenizer(text, add_special_tokens=False).input_ids
        assert causal.tokenizer.decode(ids).strip() == text.strip()
        assert ids and max(ids) < vocabulary(causal.tokenizer).size


@pytest.mark.parametrize("spec", ["meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-3.1-8B-Instruct",
                                  "Qwen/Qwen2.5-7B-Instruct", "tiiuae/Falcon3-7B-Instruct"])  # fmt: skip
def test_instruct_twins(spec: str, tmp_path: Path) -> None:
    """Weights of their own, the same each time, in half precision and in several files, and a chat template."""
    from prt.language.models import load
    from prt.rehearsal.models import make

    base = spec.replace("-chat", "").replace("-Instruct", "-Base" if "Falcon" in spec else "")
    for name in (spec, base):
        make(name, tmp_path / name)
    twin, other = (load(str(tmp_path / name), torch.float32, CPU) for name in (spec, base))
    assert twin.model.config.to_dict().keys() == other.model.config.to_dict().keys()
    ours, theirs = twin.model.get_output_embeddings().weight, other.model.get_output_embeddings().weight
    assert ours.shape == theirs.shape and not torch.equal(ours, theirs)
    make(spec, tmp_path / "again")
    files = sorted((tmp_path / spec).glob("*.safetensors"))
    assert len(files) > 1
    assert all(file.read_bytes() == (tmp_path / "again" / file.name).read_bytes() for file in files)
    saved = json.loads((tmp_path / spec / "config.json").read_text())
    assert saved["dtype"] == ("float16" if "Llama-2" in spec else "bfloat16")
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    said = str(twin.tokenizer.apply_chat_template(turns, tokenize=False))
    assert said.index("Why?") < said.index("So.") and twin.tokenizer.eos_token in said


def test_chats(tmp_path: Path) -> None:
    from prt.language.chats import fetch, prepare
    from prt.rehearsal.texts import TULU, conversations, make_chats

    source = f"huggingface:{TULU}"
    make_chats(source, tmp_path)
    fetch(source, tmp_path, tmp_path / "receipt.json")
    prepare(source, tmp_path / "data", downloads=tmp_path, validation=0.1)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["left_out"] == {} and manifest["empty_system_turns"] > 5
    assert manifest["train"]["conversations"] + manifest["validation"]["conversations"] == len(conversations())
    with pytest.raises(InputError, match="there is no stand-in for huggingface:me/chats: take 'stand_ins' out, or"):
        make_chats("huggingface:me/chats", tmp_path)


def test_benchmarks(plan: Plan, tmp_path: Path) -> None:
    """lm-eval's own tasks read all eleven, from repositories as the hub has them."""
    from prt.language import harness, tasks
    from prt.rehearsal.texts import make_benchmark

    assert plan.language is not None
    counts = {}
    for name in plan.language.config.benchmarks:
        make_benchmark(name, tmp_path)
        tasks.fetch(name, {}, tmp_path, tmp_path / f"{name}.json")
        own = {"data": str(tasks.folder(name, {}, tmp_path))}
        facts = tasks.settings(name, own)
        with harness.quiet(name, facts):
            loaded = harness.load(name, json.dumps(facts, sort_keys=True))
        counts[name] = sum(len(list(task.eval_docs)) for task in loaded["tasks"].values())
    assert counts.pop("mmlu") == 57 and counts.pop("mmlu_pro") == 14
    assert len(counts) == 9 and set(counts.values()) == {12}


def test_a_stand_in_that_cannot_be_written(tmp_path: Path) -> None:
    from prt.rehearsal.pictures import make

    (tmp_path / "paper").write_text("a file where a folder is needed")
    with pytest.raises(InputError, match=r"cannot write .*paper/cub: .*; a file stands where a folder is needed"):
        make("paper:cub", tmp_path)


def test_only_fetching_knows(
    prt: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that fetches makes the stand-in, in a folder of its own; the next job reads it as it reads any download."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(FILES[0].read_text()) | {"stand_ins": True}
    Path("config.yaml").write_text(yaml.safe_dump(config))
    assert prt("run", "fetch_dataset", "paper--cifar100", "--config", "config.yaml")[0] == 0
    assert [path.name for path in Path("downloads").iterdir()] == ["stand-ins"]
    assert prt("run", "prepare", "cifar100", "--config", "config.yaml")[0] == 0
    made = json.loads(Path("results/paper/vision/data/cifar100/manifest.json").read_text())
    assert made["train"]["images"] + made["validation"]["images"] == 300 and made["test"]["images"] == 200
    with pytest.raises(InputError, match="there is no stand-in for folder:"):
        from prt.rehearsal.pictures import make

        make("folder:pictures", tmp_path)
    assert read_config(FILES).vision.downloads == "downloads/stand-ins"  # type: ignore[union-attr]

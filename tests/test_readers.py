"""Every reader of a file, fed with a valid one that was damaged: it reads it, or refuses it in one sentence.

Options are fed with what stands at the ends of their ranges. HYPOTHESIS_PROFILE=long tries a hundred times as much.
"""

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.chats import chat, prepared, write
from helpers.damage import EDGES, OTHERS, accepted, damaged, damaged_bytes, damaged_tensors
from helpers.letters import letters
from helpers.made_up import summary
from helpers.scores import scores
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from prt import reward
from prt.atomic import write_tensors
from prt.errors import InputError
from prt.language import chats, conversations
from prt.language.recipe import Lora
from prt.language.recipe import Recipe as LanguageRecipe
from prt.language.results import Evaluated
from prt.language.tasks import TYPES
from prt.language.tasks import settings as benchmark
from prt.language.together import read_losses, write_losses
from prt.plan import Plan
from prt.plan.budget import measured
from prt.published import ledger
from prt.recipe import Recipe, Settings
from prt.scores import Scores
from prt.tables import SUMMARY, read_table, write_table
from prt.training import fit
from prt.vision import inputs
from prt.vision import prepared as prepared_images
from prt.vision.names import check_spec
from prt.vision.pictures import as_seen
from prt.vision.prepare import prepare

Read = Callable[[Path], Any]

FACTS = {"kind": "vision", "method": "prt", "alpha": 0.0, "shots": "4", "seed": 0, "recipe": {"steps": 1}}
LOOK = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 32}
TOWER = {"name": "vit", "model_cfg": {"embed_dim": 4}, "preprocess_cfg": LOOK}
DATA = {"dataset": {"name": "digits", "fingerprint": "0"}, "classes": ["a", "b"], "templates": ["a {}"]}
SPOKEN = {
    "kind": "language", "method": "prt", "alpha": 0.0, "lora": None, "seed": 0, "recipe": {}, "template": "tulu",
    "base": {"name": "s", "spec": "models/s", "weights_sha256": "0"}, "dataset": {"name": "chats"},
    "vocabulary": {"sha256": "0"}, "files": {"config.json": "0"}, "versions": {"torch": "2.14.1"},
}  # fmt: skip
COMPOSED = {
    "kind": "composed", "method": "prt", "versions": {"torch": "2.14.1"}, "files": {"target/config.json": "0"},
    "models": [{"folder": "target", "name": "m", "weight": 1.0}, {"folder": "added-1", "name": "s", "weight": 0.5}],
}  # fmt: skip
CELL = {"target": "m", "method": "pretrained", "source": None, "seed": None}
RESULT = {
    "benchmark": "gsm8k", "cell": CELL, "headline": "acc", "metrics": {"acc": 0.5}, "examples": {"acc": [0.0, 1.0]},
    "documents": "0", "protocol": {"shots": 0},
}  # fmt: skip
PUBLISHED = "backbone,dataset,metric,value,protocol,source\nvit,digits,top1,0.5,,a\n"


CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config" / "demo.yaml").read_text())


PLAN = Plan.of(CONFIG)


def of_folder(read: Read) -> Read:
    return lambda path: read(path.parent)


def resumed(path: Path) -> None:
    """A checkpoint of any other kind starts a run over."""
    network = nn.Linear(1, 1)
    recipe = Recipe(steps=1, warmup=0)
    fit(
        network,
        lambda x: network(x).sum(),
        lambda start: [torch.ones(1)],
        recipe,
        name="x",
        checkpoint=path,
        identity=0,
    )


def all_chats(path: Path) -> None:
    list(conversations.read_file(path, Counter())[1])


def all_pictures(path: Path) -> None:
    """Of a prepared data set."""
    manifest = prepared_images.read_manifest(path.parent)
    for split in prepared_images.SPLITS:
        images = prepared_images.Images(manifest, split)
        assert all(images.picture(i).mode == "RGB" for i in range(len(images)))


def pets(folder: Path) -> None:
    """A folder of pictures, prepared as ``folder``."""
    top = folder.parent / f"{folder.name}-pictures"
    for number, name in enumerate(("cat", "dog")):
        (top / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (9, 9), (99 * number, 60 * i, 0)).save(top / name / f"{i}.png")
    prepare(f"folder:{top}", folder, root=top, validation=0.3, test=0.3)


def tokens(path: Path) -> None:
    data = chats.read_manifest(path.parent)
    tokenizer = letters()
    chats.tokenise(data, "train", path.with_name("t"), tokenizer, "{% for m in messages %}{% generation %}"
                   "{{ m.content }}{% endgeneration %}{% endfor %}", 64)  # fmt: skip


def took(path: Path) -> None:
    """What Snakemake said of a job's time."""
    here = Path.cwd()
    os.chdir(path.parents[4])
    try:
        measured(PLAN, PLAN.jobs.get("prepare", "digits"))
    finally:
        os.chdir(here)


def listed_pictures(path: Path) -> None:
    """The files of a list; those that are no pictures fail by themselves."""
    failed: dict[str, str] = {}
    list(inputs.pictures(inputs.files_of(inputs.named([], [path]), failed), failed))


def png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(content, "PNG")
    return content.getvalue()


def judged(path: Path) -> None:
    scores(method="pretrained", kind="log_probs", alpha=None, seed=None, shots="full").save(
        path.parent / "s.safetensors"
    )
    ledger([path.parent / "s.safetensors"], path, 0.1)


# The name of a file → what writes a valid one there, and what reads it.
FILES: dict[str, tuple[Callable[[Path], Any], Read]] = {
    "reward/manifest.json": (lambda p: reward.save(p.parent, nn.Linear(1, 1), FACTS | DATA | {"backbone": TOWER}),
                             of_folder(reward.read_manifest)),
    "spoken/manifest.json": (lambda p: p.write_text(json.dumps(SPOKEN)),
                             of_folder(lambda p: reward.read_manifest(p, "language"))),
    "composed/manifest.json": (lambda p: p.write_text(json.dumps(COMPOSED)),
                               of_folder(lambda p: reward.read_manifest(p, "composed"))),
    "result.json": (lambda p: p.write_text(json.dumps(RESULT)), lambda p: Evaluated([p])),
    "held_out.json": (lambda p: write_losses(p, {"a": 1.5, "b": float("nan")}), read_losses),
    "scores.safetensors": (lambda p: scores().save(p), Scores.load),
    "checkpoint.safetensors": (resumed, resumed),
    "chats.jsonl": (lambda p: write(p, chat("hi", "there", system="s"), chat("a", "b")), all_chats),
    "array.json": (lambda p: p.write_text(json.dumps([chat("hi", "there")])), all_chats),
    "data/manifest.json": (lambda p: prepared(p.parents[1], *(chat("hi", str(i)) for i in range(9))),
                           of_folder(chats.read_manifest)),
    "chats/train.arrow": (lambda p: prepared(p.parents[1], *(chat("hi", str(i)) for i in range(9)))
                          .folder.rename(p.parent), tokens),
    "pets/manifest.json": (lambda p: pets(p.parent), all_pictures),
    "pets/train.arrow": (lambda p: pets(p.parent), all_pictures),
    "results/demo/benchmarks/prepare/digits.tsv": (lambda p: p.write_text("s\th:m:s\n1.5\t0:00:01\n"), took),
    "list.txt": (lambda p: p.write_text("first.png\nsecond.png\n"), listed_pictures),
    "costs.csv": (lambda p: p.write_text("device,network,seconds\ncpu,vit,0.5\n"),
                  lambda p: read_table(p, ["device", "network", "seconds"])),
    "config.yaml": (lambda p: p.write_text(yaml.safe_dump(CONFIG)), lambda p: Plan.read([p])),
    "summary.csv": (lambda p: write_table(p, summary().head(3)), lambda p: read_table(p, SUMMARY)),
    "published.csv": (lambda p: p.write_text(PUBLISHED), judged),
    "picture.png": (lambda p: p.write_bytes(png()), lambda p: as_seen(p.read_bytes(), p.name)),
}  # fmt: skip
# A picture is looked for before; a run starts over, and is planned, without its checkpoint and its benchmark.
NONE = [name for name in FILES if not name.startswith(("picture", "checkpoint", "results"))]


class Cases(dict[str, tuple[Path, bytes, Callable[[], Any]]]):
    """Name → file, its valid content, and what reads it."""

    def __repr__(self) -> str:
        return "cases"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """Valid files, each in a folder of its own."""
    found = Cases()
    for name, (make, read) in FILES.items():
        path = tmp_path_factory.mktemp("file") / name
        if not name.startswith(("chats/", "pets/")):  # which make it
            path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        assert accepted(partial(read, path))
        found[name] = (path, path.read_bytes(), partial(read, path))
    return found


@pytest.mark.parametrize("name", FILES)
@given(st.data())
def test_damaged_bytes(name: str, cases: Cases, data: st.DataObject) -> None:
    path, whole, read = cases[name]
    path.unlink(missing_ok=True)  # a reader may still have what was there mapped into memory
    path.write_bytes(data.draw(damaged_bytes(whole)))
    accepted(read)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
@given(st.data())
def test_damaged_trees(name: str, cases: Cases, data: st.DataObject) -> None:
    path, whole, read = cases[name]
    path.write_text(json.dumps(data.draw(damaged(json.loads(whole)))))
    accepted(read)


@given(st.data())
def test_damaged_configurations(data: st.DataObject) -> None:
    """As YAML gives them, with NaN and numbers for keys."""
    tree = data.draw(damaged(CONFIG))
    accepted(lambda: Plan.of(tree))


@given(st.data())
def test_damaged_headers(cases: Cases, data: st.DataObject) -> None:
    path, _, read = cases["scores.safetensors"]
    one = scores()
    facts = {key: value for key, value in vars(one).items() if key not in ("values", "labels")}
    tensors = {"scores": one.values, "labels": one.labels}
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(list(tensors)))
        tensors[name] = data.draw(
            st.sampled_from([torch.zeros(0), torch.zeros(4, 3, dtype=torch.int8), torch.tensor(1)])
        )
    write_tensors(path, tensors, data.draw(damaged(facts)))
    accepted(read)


@pytest.mark.parametrize("name", NONE)
def test_no_file(name: str, tmp_path: Path) -> None:
    """Nothing, or a folder in its place."""
    path, read = tmp_path / name, FILES[name][1]
    assert not accepted(lambda: read(path))
    path.mkdir(parents=True)
    assert not accepted(lambda: read(path))


@given(st.data())
def test_damaged_checkpoints(cases: Cases, data: st.DataObject) -> None:
    """Whatever it holds, the training ends with numbers, or says why not."""
    path, whole, read = cases["checkpoint.safetensors"]
    path.write_bytes(whole)
    data.draw(damaged_tensors(path))(path)
    accepted(read)


@given(st.data())
def test_odd_folders_of_images(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Something in it is not what it was, or has another name."""
    top = tmp_path_factory.mktemp("odd")
    pets(top / "data")
    pictures = top / "data-pictures"
    places = [pictures, *(p for p in sorted(pictures.rglob("*")))]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places))
        if not place.exists():
            continue
        aside = place.with_name("x")
        if data.draw(st.booleans()):
            name = data.draw(
                st.sampled_from(["", ".hidden", "train", "TEST", "a\nb", "\udcff.png", "a" * 250, "c.txt"])
            )
            aside = place.parent / name if name and place != pictures else place
            if not aside.exists():
                place.rename(aside)
            continue
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        make: Callable[[Path], Any] = data.draw(st.sampled_from(ODD))
        make(place)
    accepted(lambda: prepare(f"folder:{pictures}", top / "out", root=top, validation=0.3, test=0.3))
    accepted(lambda: listed_pictures(write_list(top / "list.txt", pictures)))
    shutil.rmtree(top)


ODD: list[Callable[[Path], Any]] = [
    lambda p: None,
    os.mkfifo,
    Path.mkdir,
    lambda p: p.symlink_to("none"),
    lambda p: p.symlink_to(p.name),
    lambda p: p.symlink_to(".."),
    lambda p: p.symlink_to("/dev/zero"),
    *(partial(lambda content, p: p.write_bytes(content), content) for content in OTHERS),
]


def write_list(path: Path, folder: Path) -> Path:
    path.write_bytes(os.fsencode(folder) + b"\n")
    return path


@given(st.sampled_from([Recipe, LanguageRecipe, Lora]), st.data())
def test_settings(kind: type[Settings], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*kind.model_fields, "", "stepps"]))
    accepted(lambda: kind(**{key: data.draw(st.sampled_from(EDGES))}))


@given(st.sampled_from([*TYPES, "x"]), st.sampled_from(EDGES))
def test_settings_of_a_benchmark(key: str, value: Any) -> None:
    accepted(lambda: benchmark("gsm8k", {key: value}))


@given(st.sampled_from(["", "RN50", "local-dir:", "hf-hub:", "ViT-B-16/", "/"]), st.sampled_from(EDGES))
def test_names_of_backbones(start: str, end: Any) -> None:
    accepted(lambda: check_spec(f"{start}{end}"))


def test_a_name_may_be_what_others_write_for_nothing(tmp_path: Path) -> None:
    table = summary().head(2).assign(dataset="NA", variant=["null", None])
    write_table(tmp_path / "summary.csv", table)
    read = read_table(tmp_path / "summary.csv", SUMMARY)
    assert list(read["dataset"]) == ["NA", "NA"] and list(read["variant"].fillna("")) == ["null", ""]


@pytest.mark.parametrize(
    ("column", "value"), [("value", "high"), ("alpha", "inf"), ("headline", "perhaps"), ("lora", "")]
)
def test_a_table_with_a_wrong_value(column: str, value: str, tmp_path: Path) -> None:
    table = summary().head(3).astype({column: object})
    table.loc[table.index[1], column] = value
    write_table(tmp_path / "summary.csv", table)
    with pytest.raises(InputError, match=f"summary.csv has a wrong value in its column '{column}'; mend it"):
        read_table(tmp_path / "summary.csv", SUMMARY)

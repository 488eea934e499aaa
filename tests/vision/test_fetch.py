"""Downloads, from a real server on this machine: whole or not at all, and mended where a run was killed."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, draw
from helpers.hub import COMMIT, Server, hub, server, shapes
from torchvision import datasets as torchvision_datasets

from prt.errors import InputError
from prt.vision.catalogue import Archive, Entry, Hub, entry
from prt.vision.fetch import fetch, fetch_entry
from prt.vision.prepare import prepare
from prt.vision.prepared import Images, read_manifest
from prt.vision.sources import load_paper

__all__ = ["hub", "server"]  # fixtures


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    draw(CLASSES[seed % 3], seed).save(buffer, format="PNG")
    return buffer.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def birds(images: int = 9) -> dict[str, bytes]:
    """CUB's layout with three classes; every third image is for testing."""
    names = list(entry("cub").classes)[:3]
    files = {f"images/{names[i % 3]}/{i}.jpg": png(i) for i in range(images)}
    files["images.txt"] = "".join(f"{i + 1} {names[i % 3]}/{i}.jpg\n" for i in range(images)).encode()
    files["image_class_labels.txt"] = "".join(f"{i + 1} {i % 3 + 1}\n" for i in range(images)).encode()
    files["train_test_split.txt"] = "".join(f"{i + 1} {int(i % 4 < 3)}\n" for i in range(images)).encode()
    files["classes.txt"] = "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)).encode()
    return {f"CUB_200_2011/{name}": content for name, content in files.items()}


def served(server: Server, files: dict[str, bytes]) -> Entry:
    """CUB's facts, for the small archive that the server now has."""
    whole, content = entry("cub"), packed(files)
    server.files["/CUB_200_2011.tgz"] = content
    images = sum(name.endswith(".jpg") for name in files)
    return replace(
        whole,
        classes=dict(list(whole.classes.items())[:3]),
        images={"train": images - images // 4, "test": images // 4},
        archives=(Archive(f"{server.url}/CUB_200_2011.tgz", hashlib.md5(content).hexdigest()),),
    )


def left(root: Path) -> list[str]:
    """All files under a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_an_archive_is_fetched_once(server: Server, tmp_path: Path) -> None:
    facts = served(server, birds())
    known = fetch_entry(facts, tmp_path)
    assert known == {"md5": {"CUB_200_2011.tgz": facts.archives[0].md5}}
    _, parts = load_paper(facts, tmp_path)
    assert {split: len(part.labels) for split, part in parts.items()} == {"train": 7, "test": 2}
    assert left(tmp_path) == sorted(
        ["archives/cub/CUB_200_2011.tgz", "paper/cub/.fetched.json", *(f"paper/cub/{name}" for name in birds())]
    )
    asked = list(server.asked)
    assert fetch_entry(facts, tmp_path) == known
    assert server.asked == asked


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    """Another file, or a part of the right one, is refused, and nothing of it stays."""
    facts = served(server, birds())
    path = "/CUB_200_2011.tgz"
    for spoil in ("changed", "cut"):
        if spoil == "changed":
            right, server.files[path] = server.files[path], b"another file"
        else:
            server.files[path], server.cut[path] = right, 500
        with pytest.raises(InputError, match=r"Birds-200-2011: http.* has not the published MD5 .*; fetch again"):
            fetch_entry(facts, tmp_path)
        assert left(tmp_path) == []
    del server.cut[path]
    fetch_entry(facts, tmp_path)
    load_paper(facts, tmp_path)


def test_no_network_and_nothing_there(server: Server, tmp_path: Path) -> None:
    facts = served(server, birds())
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match=r"could not be downloaded \(URLError.*put the file there by hand, as .*tgz"):
        fetch_entry(facts, tmp_path)
    assert left(tmp_path) == []
    # The archive that a user has put there by hand is taken without a network.
    by_hand = facts.archive_folder(tmp_path) / "CUB_200_2011.tgz"
    by_hand.write_bytes(server.files["/CUB_200_2011.tgz"])
    fetch_entry(facts, tmp_path)
    load_paper(facts, tmp_path)


def test_what_a_killed_download_left(server: Server, tmp_path: Path) -> None:
    facts = served(server, birds())
    folder = facts.archive_folder(tmp_path)
    folder.mkdir(parents=True)
    whole = server.files["/CUB_200_2011.tgz"]
    (folder / ".CUB_200_2011.tgz.part").write_bytes(whole[:700])
    (folder / "CUB_200_2011.tgz").write_bytes(whole[:900])  # as by a copy that was broken off
    fetch_entry(facts, tmp_path)
    load_paper(facts, tmp_path)
    assert left(folder) == ["CUB_200_2011.tgz"]


KILLED = """
import os, signal, sys, threading, time
from dataclasses import replace
from pathlib import Path
from prt.vision.catalogue import Archive, entry
from prt.vision.fetch import fetch_entry
facts = replace(entry("cub"), archives=(Archive(sys.argv[1], sys.argv[2]),))

def kill():  # in this process, so that it is in time however busy the machine is
    while not (Path(sys.argv[3]) / "paper" / ".cub.part" / "CUB_200_2011" / "parts").is_dir():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
fetch_entry(facts, Path(sys.argv[3]))
"""


def test_killed_while_unpacking(server: Server, tmp_path: Path) -> None:
    files = birds() | {f"CUB_200_2011/parts/{i}.txt": bytes(20) for i in range(20_000)}
    facts = served(server, files)
    archive = facts.archives[0]
    command = [sys.executable, "-c", KILLED, archive.url, archive.md5, str(tmp_path)]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    aside = tmp_path / "paper" / ".cub.part"
    unpacked = left(aside)
    assert 0 < len(unpacked) < len(files)
    assert not facts.folder(tmp_path).exists()
    with pytest.raises(InputError, match="is not in"):
        load_paper(facts, tmp_path)
    (aside / "stray").write_bytes(b"of an older archive")
    fetch_entry(facts, tmp_path)
    load_paper(facts, tmp_path)
    assert left(facts.folder(tmp_path)) == sorted([".fetched.json", *files])
    assert not aside.exists()


def test_an_archive_in_an_archive_and_bare_files(server: Server, tmp_path: Path) -> None:
    """Caltech-101's archive holds another; two of Flowers' files are not packed at all."""
    import zipfile

    inner = packed({"101_ObjectCategories/Faces/image_0001.jpg": png(1)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
        archive.writestr("__MACOSX/other", b"")
    server.files |= {"/caltech-101.zip": buffer.getvalue(), "/setid.mat": b"numbers"}

    def local(name: str, file: str) -> Entry:
        facts = entry(name)
        archive = next(a for a in facts.archives if a.file == file)
        sums = hashlib.md5(server.files[f"/{file}"]).hexdigest()
        return replace(facts, archives=(replace(archive, url=f"{server.url}/{file}", md5=sums),))

    fetch_entry(local("caltech101", "caltech-101.zip"), tmp_path)
    assert left(tmp_path / "paper" / "caltech101") == [
        ".fetched.json",
        "caltech101/101_ObjectCategories/Faces/image_0001.jpg",
    ]
    fetch_entry(local("flowers", "setid.mat"), tmp_path)
    assert left(tmp_path / "paper" / "flowers") == [".fetched.json", "flowers-102/setid.mat"]


def test_torchvision(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 by torchvision's own download, after a killed run that left a folder without all its files."""
    import pickle

    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": ["airplane", "bird"]})}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [0, 1] * 10})
    kind = torchvision_datasets.CIFAR10
    content = packed({f"cifar-10-batches-py/{name}": body for name, body in files.items()})
    server.files["/cifar-10-python.tar.gz"] = content
    monkeypatch.setattr(kind, "url", f"{server.url}/cifar-10-python.tar.gz")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(content).hexdigest())
    sums = {name: hashlib.md5(body).hexdigest() for name, body in files.items()}
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, sums[name]] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums["batches.meta"]})

    with pytest.raises(InputError, match=r"finds no whole CIFAR10 in .*run `snakemake fetch`, or put"):
        prepare("torchvision:CIFAR10", tmp_path / "out", root=tmp_path)
    (tmp_path / ".CIFAR10.part" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / ".CIFAR10.part" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    fetch("torchvision:CIFAR10", tmp_path, tmp_path / "receipt.json")
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt == {"source": "torchvision:CIFAR10", "classes": 2, "images": {"test": 20, "train": 100}}
    asked = list(server.asked)
    fetch("torchvision:CIFAR10", tmp_path, tmp_path / "receipt.json")
    prepare("torchvision:CIFAR10", tmp_path / "out", root=tmp_path)
    assert server.asked == asked
    assert read_manifest(tmp_path / "out").classes == ["airplane", "bird"]


CONFIG = """
experiment: own
vision:
  backbones: {tiny: {architecture: rn12, corpus: poor, recipe: {steps: 5}}}
  datasets: {shapes: {source: "huggingface:me/shapes", shots: {full: {}}}}
  recipe: {}
  seeds: [0]
  panels: [{source: tiny, targets: [tiny]}]
  strengths: [0, 1]
  figure6: {dataset: shapes, shots: full, source: tiny, targets: [tiny], alphas: [0, 0.1], every: 1}
  table7: {dataset: shapes, shots: full, source: tiny, targets: [tiny]}
"""


def run(server: Server, folder: Path, rule: str, job: str) -> subprocess.CompletedProcess[str]:
    """A job in a process of its own that knows this server as the hub, but is told to be offline."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    environment = os.environ | offline | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}
    (folder / "config.yaml").write_text(CONFIG)
    command = [sys.executable, "-c", "from prt.cli import main; main()", "run", rule, job, "--config", "config.yaml"]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


def test_the_hub(server: Server, tmp_path: Path, pictures: Path) -> None:
    """Fetching uses the network though the environment forbids it; preparing never does."""
    place = server.repository("me/shapes", files := shapes(tmp_path, pictures))
    fetched = ("fetch_dataset", "huggingface--me--shapes")
    root, out = tmp_path / "downloads", tmp_path / "downloads" / "huggingface--me--shapes.json"
    prepared = run(server, tmp_path, "prepare", "shapes")
    assert prepared.returncode == 1
    assert "'me/shapes' is not in" in prepared.stderr and "run `snakemake fetch`" in prepared.stderr
    assert not server.asked

    path = f"{place}data/train-00000-of-00001.parquet"
    missing = server.files.pop(path)
    done = run(server, tmp_path, *fetched)
    assert done.returncode == 1
    assert "the data set me/shapes could not be downloaded (" in done.stderr.splitlines()[-1]
    assert not out.exists() and not (root / "hub" / "me" / "shapes").exists()

    server.files[path] = missing
    done = run(server, tmp_path, *fetched)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text()) == {
        "source": "huggingface:me/shapes",
        "repository": "me/shapes",
        "revision": COMMIT,
        "classes": 3,
        "images": {"train": 60},
    }
    assert left(root / "hub" / "me" / "shapes") == sorted([".fetched.json", *files])

    first = out.read_bytes()
    server.asked.clear()
    assert run(server, tmp_path, *fetched).returncode == 0
    prepared = run(server, tmp_path, "prepare", "shapes")
    assert prepared.returncode == 0, prepared.stderr
    assert not list(root.rglob("*.arrow"))  # the working copy is gone
    assert out.read_bytes() == first
    assert not server.asked
    manifest = read_manifest(tmp_path / "results" / "own" / "vision" / "data" / "shapes")
    assert manifest.classes == sorted(CLASSES)
    assert Images(manifest, "train")[0][0] in {file.read_bytes() for file in pictures.rglob("*.png")}


def test_files_of_a_repository(hub: Server, tmp_path: Path, pictures: Path) -> None:
    """Of a repository in the catalogue only the files that are needed come, at the revision of the facts."""
    files = shapes(tmp_path, pictures)
    hub.repository("timm/resisc45", files | {"other/large.bin": b"not needed"})
    facts = replace(
        entry("resisc45"),
        hub=Hub("timm/resisc45", COMMIT, "parquet", {"train": "data/train-*.parquet"}),
        classes={name: name for name in sorted(CLASSES)},
        images={"train": 60},
    )
    assert fetch_entry(facts, tmp_path) == {"repository": "timm/resisc45", "revision": COMMIT}
    names, parts = load_paper(facts, tmp_path, streaming=True)
    assert not list((tmp_path / "huggingface").rglob("*.arrow"))  # no second copy of it all
    assert (names, parts["train"].labels) == (sorted(CLASSES), load_paper(facts, tmp_path)[1]["train"].labels)
    assert left(facts.folder(tmp_path)) == [".fetched.json", "data/train-00000-of-00001.parquet"]
    other = replace(facts, name="other", hub=replace(facts.hub, files={"test": "data/test-*.parquet"}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"timm/resisc45 of the hub has no file data/test-.*parquet at {COMMIT}"):
        fetch_entry(other, tmp_path)


def test_receipts_of_what_needs_no_download(tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    fetch("miniature:digits", tmp_path, out)
    assert json.loads(out.read_text()) == {"source": "miniature:digits"}
    with pytest.raises(InputError, match="unknown kind of data set source 'papers': did you mean 'paper'"):
        fetch("papers:cub", tmp_path, out)

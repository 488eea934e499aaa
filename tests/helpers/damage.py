"""Files that were damaged, and what stands at the ends of ranges: all may be refused, in one sentence, or read."""

import copy
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from prt.atomic import file_hash
from prt.errors import InputError

SECONDS = 120  # in which every case must be over: nothing waits for ever
OTHERS = [b"", b"\0", b"\xff\xfe", b"{}", b"[]", b"[" * 10**5, b"9" * 5000, b"a,b\n1\n"]  # contents

# What stands in files by mistake, and numbers at the ends of what computers count with.
EDGES: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, 1e-320, 1e308, -0.0, float("nan"), float("inf")),
    *("", " ", "\n", "nan", "1e5", "x" * 300, "ÿ\u2028", "../..", "/dev/null"),
    *([], [[]], [None], {}, {"a": {}}, {"": 1}),
]


class Hang(BaseException):
    """What no ``except Exception`` catches."""


@contextmanager
def in_time() -> Iterator[None]:
    """Fail after :data:`SECONDS`."""

    def over(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    except Hang as error:
        raise AssertionError(f"it takes more than {SECONDS} seconds") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def accepted(read: Callable[[], Any]) -> bool:
    """Whether something is read; a refusal must be one sentence."""
    try:
        with in_time():
            read()
    except InputError as error:
        is_sentence(str(error))
        return False
    return True


def is_sentence(said: str) -> None:
    assert said.strip()
    assert len(said.splitlines()) == 1
    assert " object at 0x" not in said


def share(of: float) -> settings:
    """So many times as many cases as the profile says, of what is slow to read."""
    return settings(max_examples=max(1, round(of * settings.default.max_examples)))


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes cut, changed, put in, taken out, or others altogether."""
    kind = draw(st.sampled_from(["cut", "flip", "insert", "remove", "other"]))
    at = draw(st.integers(0, max(0, len(whole) - 1)))
    if kind == "other":
        return draw(st.sampled_from([*OTHERS, whole * 2]))
    if kind == "cut":
        return whole[:at]
    piece = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b",", b'"', b"\n", b"-", b"e9", b"\xe4", b"NaN"]))
    after = {"flip": at + len(piece), "insert": at, "remove": at + draw(st.integers(1, 40))}[kind]
    return whole[:at] + (b"" if kind == "remove" else piece) + whole[after:]


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """A tree of mappings and lists with a branch that is another value, gone, or there twice."""
    tree = copy.deepcopy(whole)
    here: Any = tree
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return tree
        key = draw(st.sampled_from(keys))
        deeper = isinstance(here[key], dict | list) and bool(here[key])
        if deeper and draw(st.integers(0, 3)):
            here = here[key]
            continue
        kind = draw(st.sampled_from(["edge", "edge", "edge", "remove", "add"]))
        if kind == "edge":
            here[key] = draw(st.sampled_from(EDGES))
        elif kind == "remove":
            del here[key]
        elif isinstance(here, dict):
            here[draw(st.sampled_from(["", "x", "kind", "a\nb"]))] = draw(st.sampled_from(EDGES))
        else:
            here.append(here[key])
        return tree


def tensors_of(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str] | None]:
    """What a file of safetensors holds: tensors, and metadata."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@st.composite
def damaged_tensors(draw: st.DrawFn, path: Path) -> Callable[[Path], None]:
    """What writes the tensors of a file with one that is gone, new, of another shape or kind, or no number."""
    tensors, metadata = tensors_of(path)
    name = draw(st.sampled_from(sorted(tensors)))
    one = tensors[name]
    changed = {
        "gone": None,
        "flat": one.reshape(-1).clone(),
        "larger": torch.cat([one[None], one[None]]),
        "empty": one.reshape(-1)[:0].clone(),
        **{str(kind): one.to(kind) for kind in (torch.int8, torch.int64, torch.bool, torch.float64, torch.bfloat16)},
        **{str(x): one.double().fill_(x).to(one.dtype if one.is_floating_point() else torch.float32)
           for x in (float("nan"), float("inf"), -float("inf"), 1e38, 1e-45, 0.0)},
        "integer edges": torch.full_like(one, 2**31 - 1, dtype=torch.int32).to(torch.int64) * -1,
    }  # fmt: skip
    kind = draw(st.sampled_from([*changed, "renamed", "header"]))
    if kind == "renamed":
        tensors[draw(st.sampled_from(["", "x", "network.x", "optimizer.x", "optimizer.0.x.y"]))] = tensors.pop(name)
    elif kind == "header":
        if metadata and "prt" in metadata:
            metadata = {"prt": json.dumps(draw(damaged(json.loads(metadata["prt"]))))}
        else:
            metadata = draw(st.sampled_from([None, {}, {"format": "tf"}, {"format": ""}, {"prt": "["}]))
    elif changed[kind] is None:
        del tensors[name]
    else:
        tensors[name] = changed[kind].contiguous()
    return lambda out: save_file(tensors, out, metadata=metadata)


def damage_to(path: Path, whole: bytes) -> st.SearchStrategy[Callable[[Path], Any]]:
    """What damages a file, which holds ``whole``, in the ways of its format, or byte by byte."""
    ways: st.SearchStrategy[Callable[[Path], Any]] = damaged_bytes(whole).map(
        lambda content: lambda out: out.write_bytes(content)
    )
    if path.suffix in (".json", ".yaml"):
        written = json.dumps if path.suffix == ".json" else yaml.safe_dump
        trees = damaged(yaml.safe_load(whole)).map(lambda tree: lambda out: out.write_text(written(tree)))
        return st.one_of(ways, trees, trees)
    if path.suffix == ".safetensors":
        return st.one_of(ways, damaged_tensors(path), damaged_tensors(path))
    return ways


def redone(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file, and the manifest's hash of it."""
    described = json.loads((folder / name).read_text())
    change(described)
    (folder / name).write_text(json.dumps(described))
    if name != "manifest.json":
        redone(folder, "manifest.json", lambda m: m["files"].update({name: file_hash(folder / name)}))

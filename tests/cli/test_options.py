"""Every option and argument of every command, with values at the ends of what a command line can hold.

A command gives a result, or one sentence, or what its parser says; nothing half-written stays.
"""

import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from helpers.damage import accepted, share
from helpers.hub import serving, taken_for_the_hub
from helpers.pipeline import ROOT
from helpers.small import CLASSES, small
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prt.cli import app, main
from prt.errors import InputError
from prt.sharing import push

NUMBERS = [
    *("0", "-0", "-1", "1", "2.5", "nan", "-nan", "inf", "-inf", "1e308", "-1e308", "3.5e38", "1e-320", "1e400"),
    *(
        "2147483648",
        "4294967296",
        "9223372036854775808",
        "1" + "0" * 30,
        "9" * 5000,
        "0x10",
        "1_000",
        "１",
        "1,5",
        "1e5",
    ),
]
TEXTS = [
    *("", " ", "\t", "\n", "\x01", "\x1b[31m", "\x7f", "\ufeff", "\u2028", "\u202e", "ÿ", "😀", "\udcff", "a\udce4b"),
    *("x" * 256, "x" * 5000, "ab/" * 2000, "-", "--", "--x", "=", "a=b", ":", "{}", "{", "%s", "$HOME", "~", "*", "\\"),
    *("null", "true", "[]", "[" * 2000, "auto", "cpu", "cuda", "cuda:99", "cuda:-1", "meta", "prt", "eft", "adapted"),
    *(
        "local-dir:",
        "hf-hub:",
        "hf-hub:x",
        "RN50/",
        "/RN50",
        "RN50/openai",
        "ViT-B-16/x",
        "owner/name",
        "a/b/c",
        "../..",
    ),
]
# In the folder that a command runs in: folders, a pipe, links to nowhere and in a circle, files of other kinds.
PLACES = [
    *("folder", "empty-folder", "pipe", "nowhere", "circle", "empty", "latin", "zeros", "nested", "list", "number"),
    *(
        "missing",
        "missing/missing",
        "empty/below",
        "/dev/null",
        "/proc/none",
        "/proc/self/mem",
        "red.png",
        "classes.txt",
    ),
    *("clip", "llama", "clip-reward", "clip-ft", "llama-reward", "llama-lora", "head.safetensors", "demo.yaml"),
    *("me/pushed", "me/else", "me/none"),
]
VALUES = [*NUMBERS, *TEXTS, *PLACES]
VISION = ["--reward", "clip-reward", "--target", "local-dir:clip"]
LANGUAGE = ["--reward", "llama-reward", "--target", "llama", "--device", "cpu"]
# A command, and after a comma of which kind, → what it says where nothing is wrong.
LINES: dict[str, list[str]] = {
    "predict": ["predict", "red.png", *VISION],
    "generate": ["generate", "the cat", *LANGUAGE, "--max-new-tokens", "2"],
    "evaluate": ["evaluate", "gsm8k", *LANGUAGE, "--out", "made", "--set", "limit=1", "--set", "data=problems",
                 "--set", "generation={max_gen_toks: 2}"],
    "import language": ["import", "language", "llama", "--base", "other-llama", "--out", "made"],
    "import vision": ["import", "vision", "local-dir:clip", "--base", "local-dir:other-clip",
                      "--classes", "classes.txt", "--out", "made"],
    "plan": ["plan", "--configfile", "demo.yaml"],
    "budget": ["budget", "--configfile", "demo.yaml"],
    "doctor": ["doctor", "--configfile", "missing"],
    "pretrainings": ["pretrainings", "experiment", "--out", "made"],
    "compose": ["compose", *LANGUAGE, "--out", "made"],
    "serve": ["serve", *LANGUAGE[:4]],
    "advise, images": ["advise", *VISION, "--data", "pets"],
    "advise, chats": ["advise", *LANGUAGE, "--data", "chats.jsonl"],
    "push": ["push", "clip-reward", "me/reward"],
    "pull": ["pull", "me/pushed", "made"],
}  # fmt: skip
RULES = {  # of which each kind that reads its job otherwise, and a job of it
    "fetch_dataset": "digits", "fetch_model": "s-poor", "pretrain": "vit-s-poor", "prepare": "digits",
    "zero_shot": "digits", "tune": "digits/vit-s-poor", "score_rewards": "digits/vit-s-poor",
    "tune_language": "s-poor", "evaluate": "problems/s-poor", "tables": "vision-digits", "collect": "vision",
    "draw": "figure2", "check_zero_shot": "digits",
}  # fmt: skip


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything, in which the commands run."""
    folder = small(tmp_path_factory.mktemp("commands"))
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(ROOT / "config" / "demo.yaml", folder)
    for name in ("folder/a", "empty-folder", "experiment"):
        (folder / name).mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to("none")
    (folder / "circle").symlink_to("circle")
    for name, content in {
        "empty": b"", "latin": b"caf\xe9: \xff", "zeros": b"\0" * 99, "nested": b"[" * 10**5, "list": b"- 1\n- 2\n",
        "number": b"9" * 5000,
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "the dog"}]
    (folder / "chats.jsonl").write_text(10 * (json.dumps({"messages": turns}) + "\n"))
    for i in range(10):
        (folder / "pets" / CLASSES[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (25 * i, 99, 0)).save(folder / "pets" / CLASSES[i % 2] / f"{i}.png")
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ["HF_TOKEN"] = "hf_" + "aB3" * 12
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        taken_for_the_hub(server, patch)
        push(Path("clip-reward"), "me/pushed")
        server.repository("me/else", {"README.md": b"# Mine"}, "models")
        yield folder
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)


def words(name: str) -> list[str]:
    """A command of :data:`LINES`, without its kind."""
    return name.partition(",")[0].split()


def commands() -> dict[str, Any]:
    """What click knows of the commands in :data:`LINES`."""
    group: Any = typer.main.get_command(app)
    found = {}
    for name in LINES:
        command = group
        for part in words(name):
            command = command.commands[part]
        found[name] = command
    return found


COMMANDS = commands()


def answered(arguments: list[str], top: Path) -> str:
    """Run a command in this process, as one does whose standard output is strict UTF-8; why it refuses, or nothing."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", mode) for mode in ("strict", "backslashreplace"))
    entry = io.TextIOWrapper(io.BytesIO(b"red.png\n"), "utf-8")
    threads, code = torch.get_num_threads(), 0
    before = set(top.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("argv", ["prt", *arguments]), ("stdin", entry), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, value)
        patch.setattr(constants, "HF_HUB_OFFLINE", arguments[0] not in ("push", "pull"))
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            gc.unfreeze()
            gc.enable()
            torch.set_num_threads(threads)
        for stream in (out, err):
            stream.flush()
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    shown = out.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert code in (0, 1, 2), said
    last = said.splitlines()[-1] if code else ""
    assert last.startswith(("", "prt: error: ", "Error: ")[code]), said  # the last is the parser's
    assert "Traceback" not in said
    assert code or " nan" not in shown.replace("ready: ", "").lower()  # but a folder may be called so
    made = sorted(set(top.rglob("*")) - before, reverse=True)
    assert not made or not code, f"{said}, and left {made}"
    for path in made:
        path.rmdir() if path.is_dir() else path.unlink()
    return last


@pytest.mark.parametrize("name", [name for name in LINES if name not in ("doctor", "pretrainings", "serve")])
def test_what_is_right_is_done(name: str, top: Path) -> None:
    assert answered(LINES[name], top) == ""


NONE = "1" + "0" * 400
# Cases that once ended otherwise → what is said.
ONCE: list[tuple[str, list[str], str]] = [
    ("predict", ["--strength", "1e308"], "the strength is 1e+308, but must be a finite number; the paper's is 1."),
    ("predict", ["--strength", "nan"], "the strength is nan, but must be a finite number; the paper's is 1."),
    ("predict", ["--method", "adapted"], "holds a reward: method adapted does not take it; use it with method prt."),
    ("predict", ["--head", "x" * 5000], "does not exist; correct the path"),
    ("predict", ["--head", "pipe"], "pipe is a pipe or a device, and not the zero-shot head"),
    ("predict", ["--list", "pipe"], "pipe is a pipe or a device, and not the list of images"),
    ("generate", ["--strength", "1e308"], "the strength is 1e+308, but must be a finite number; the paper's is 1."),
    ("generate", ["--method", "adapted"], "holds a reward: method adapted does not take it; use it with method prt."),
    ("generate", ["--temperature", "1e308"], "the temperature is 1e+308, but must be 0"),
    ("generate", ["--temperature", "nan"], "'--temperature': Input should be greater than or equal to 0"),
    ("generate", ["--seed", NONE], "'--seed': Input should be less than or equal to 4294967295"),
    ("generate", ["--stop", "\x01"], "llama has no tokens that the texts to stop at ('\\x01') could end in"),
    ("generate", ["--stop", ""], "a text to stop at is empty"),
    ("generate", ["--target", "bytes-llama", "--stop", "\udcff"], "a text to stop at is no text in UTF-8"),
    ("import vision", ["--classes", "latin"], "the class names in latin cannot be read"),
    ("import vision", ["--classes", "pipe"], "pipe is a pipe or a device, and not the file with class names"),
    ("import language", ["--out", "\udcff"], "its name is not in UTF-8; choose another"),
    ("import language", ["--out", "."], ". is there already; choose another folder, or remove it."),
    ("import language", ["--out", "/"], "/ is there already; choose another folder, or remove it."),
    ("import language", ["--out", "circle"], "circle is there already; choose another folder, or remove it."),
    ("import vision", ["--out", "classes.txt/made"], "a file stands where a folder is needed"),
    ("evaluate", ["--out", "nowhere"], "nowhere is a link to nothing; remove it or choose another folder."),
    ("push", ["--measured", "/proc/self/mem"], "the table /proc/self/mem cannot be read ("),
    ("plan", ["--configfile", "latin"], "the configuration latin cannot be read"),
    ("plan", ["--configfile", "folder"], "folder is a folder, and not the configuration"),
    ("plan", ["--configfile", "pipe"], "pipe is a pipe or a device, and not the configuration"),
    ("plan", ["--configfile", "nested"], "the configuration nested cannot be read"),
    ("plan", ["--configfile", "list"], "the configuration list must be a mapping"),
]


@pytest.mark.parametrize(("name", "options", "said"), ONCE)
def test_cases_that_once_ended_otherwise(name: str, options: list[str], said: str, top: Path) -> None:
    line = list(LINES[name])
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option in line:
            line[line.index(option) + 1] = value
        else:
            line += [option, value]
    assert said in answered(line, top)


@pytest.mark.parametrize("name", LINES)
@share(0.25)
@given(st.data())
def test_edges_of_options(name: str, top: Path, data: st.DataObject) -> None:
    """One of the values that are given is another, or an option is given, too."""
    if name == "serve" and find_spec("vllm") is not None:
        pytest.skip("it would serve")
    line = list(LINES[name])
    options = [p.opts[0] for p in COMMANDS[name].params if p.param_type_name == "option" and not p.is_flag]
    flags = [p.opts[0] for p in COMMANDS[name].params if p.param_type_name == "option" and p.is_flag]
    value = data.draw(st.sampled_from(VALUES) | st.text(max_size=8).filter(lambda s: "\0" not in s))
    at = data.draw(st.sampled_from([i for i in range(len(words(name)), len(line)) if not line[i].startswith("--")]))
    option = data.draw(st.sampled_from([*options, ""]))
    if name == "doctor" or not option:
        line[at] = value
    elif option in line:
        line[line.index(option) + 1] = value
    else:
        line += [option, value]
    line += data.draw(st.sampled_from([[], [], *([flag] for flag in flags if flag != "--unsafe-code")]))
    if name == "doctor" and answers_doctor(line):
        return
    tried(line, top)


def answers_doctor(line: list[str]) -> bool:
    """Whether it would look at the whole machine, which takes minutes."""
    return line[2] in ("demo.yaml", "--help") or "--configfile" not in line


@pytest.mark.parametrize("rule", RULES)
@share(0.05)
@given(st.data())
def test_edges_of_rules(rule: str, top: Path, data: st.DataObject) -> None:
    """Of a job's name and its configuration, one at least is another."""
    value, job, other = (data.draw(st.sampled_from(VALUES)) for _ in range(3))
    line = ["run", rule, RULES[rule], "--config", "demo.yaml"]
    if data.draw(st.booleans()):
        line[2] = job if job != RULES[rule] else value
    else:
        line[4] = other if other != "demo.yaml" else "missing"
    tried(line, top)


def tried(line: list[str], top: Path) -> None:
    """What a command line comes to must be an answer."""

    def answer() -> None:
        if said := answered(line, top):
            raise InputError(said)

    accepted(answer)

"""Stand-ins for Tulu v2 and the benchmarks: few rows of made-up text, in their repositories' files and columns."""

from pathlib import Path

import numpy as np
import yaml

from prt import hub
from prt.atomic import write_json, write_text
from prt.errors import InputError, known
from prt.hub import ORIGIN
from prt.language.tasks import settings
from prt.rehearsal import remaking
from prt.rehearsal.questions import QUESTIONS, Configurations

WORDS = [
    "the",
    "a",
    "rain",
    "sun",
    "river",
    "stone",
    "bird",
    "horse",
    "green",
    "quick",
    "old",
    "new",
    "light",
    "house",
    "garden",
    "seven",
    "three",
    "begins",
    "falls",
    "keeps",
    "makes",
    "under",
    "over",
    "and",
    "or",
    "not",
    "because",
    "where",
    "people",
    "often",
    "never",
    "write",
    "read",
    "count",
    "answer",
    "question",
    "number",
    "letter",
    "city",
    "winter",
]
CONVERSATIONS = 60
TULU = "allenai/tulu-v2-sft-mixture"
# Where a repository keeps the rows of a configuration and split, where that is not the usual place.
FILES = {"google/IFEval": "ifeval_input_data.jsonl", "Idavidrein/gpqa": "{configuration}.csv"}
USUAL = "{configuration}/{split}-00000-of-00001.parquet"


def make_chats(source: str, downloads: Path) -> None:
    """Write a stand-in for Tulu v2 where its download lies.

    Raises:
        InputError: for another source.
    """
    if source != f"huggingface:{TULU}":
        raise InputError(f"there is no stand-in for {source}: take 'stand_ins' out, or huggingface:{TULU}.")
    rows = [{"dataset": f"part{i % 3}", "id": f"part{i % 3}_{i}", "messages": c} for i, c in enumerate(conversations())]
    _write(hub.place(TULU, downloads), {"default": {"train": rows}}, USUAL)


def make_benchmark(task: str, downloads: Path) -> None:
    """Write a stand-in for the repository that has the data of a benchmark, where its download lies.

    Raises:
        InputError: for a benchmark that is none of the paper's.
    """
    repository = settings(task, {})["hub"]["repository"]
    known(repository, QUESTIONS, "repository that there is a stand-in for")
    folder = downloads / "benchmarks" / hub.folder_name(repository)
    _write(folder, QUESTIONS[repository](), FILES.get(repository, USUAL))


def said(rng: np.random.Generator, sentences: int) -> str:
    """Sentences of words at random."""
    return " ".join(" ".join(rng.choice(WORDS, rng.integers(3, 9))).capitalize() + "." for _ in range(sentences))


def conversations() -> list[list[dict[str, str]]]:
    """Conversations as Tulu v2 has them: some with a system turn or an empty one, of several turns, or very long."""
    rng, found = np.random.default_rng(0), []
    for i in range(CONVERSATIONS):
        first = {0: "Answer in one word.", 1: ""}.get(i % 5)
        turns = [] if first is None else [{"role": "system", "content": first}]
        for _ in range(1 + i % 3):
            turns.append({"role": "user", "content": said(rng, 2) + f"\n\nWhat is {i} + 1?"})
            turns.append({"role": "assistant", "content": f"{i + 1}\n" + said(rng, 120 if i % 20 == 7 else 2)})
        found.append(turns)
    return found


def _write(folder: Path, configurations: Configurations, files: str) -> None:
    """A repository of the hub: a file for each configuration and split, and a README that names them."""
    import datasets

    datasets.disable_progress_bars()
    told = []
    with remaking(folder) as top:
        for name, splits in configurations.items():
            listed = []
            for split, rows in splits.items():
                place = files.format(configuration="data" if name == "default" else name, split=split)
                (top / place).parent.mkdir(exist_ok=True)
                table = datasets.Dataset.from_list(rows)
                write = {".parquet": table.to_parquet, ".jsonl": table.to_json, ".csv": table.to_csv}
                write[Path(place).suffix](str(top / place))
                listed.append({"split": split, "path": place})
            told.append({"config_name": name, "data_files": listed})
        write_text(top / "README.md", f"---\n{yaml.safe_dump({'configs': told})}---\nA stand-in.\n")
        write_json(top / ORIGIN, {"stand_in": True})

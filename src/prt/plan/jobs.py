"""Jobs: what each reads and makes, so that what an item needs can be followed without Snakemake."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prt.errors import known
from prt.recipe import Referring

RULES = (
    *("fetch_backbone", "fetch_dataset", "fetch_model", "fetch_chats", "fetch_benchmark"),
    *("pretrain", "prepare", "zero_shot", "tune", "score_rewards", "merge", "measure_training", "measure_inference"),
    *("write_text", "pretrain_language", "prepare_chats", "tune_language", "evaluate", "next_tokens"),
    *("measure_decoding", "check_zero_shot", "approve_zero_shot", "tables", "collect", "draw"),
)


@dataclass(frozen=True, eq=False)
class Job:
    """One call of the command line.

    ``name`` is the value of the rule's wildcard. ``needs`` and ``makes`` are files, or folders that a job makes whole.
    ``about`` is what of the configuration its outcome hangs on: where it changes, the job is run again. ``gpus`` and
    ``billions`` (of parameters held at once) say how large it is, ``minutes`` how long it may take.
    """

    rule: str
    name: str
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    about: Any = None
    gpus: int = 0
    billions: float = 0.0
    minutes: int = 0
    group: str = "tables"  # small jobs of one group are one submission; ``collected``: those that need all data sets

    @property
    def cores(self) -> int:
        """CPU cores: more than one only with GPUs to keep busy (slurm/config.yaml counts on it)."""
        return 8 * self.gpus or 1

    @property
    def device(self) -> str:
        """What it computes on. It never falls back from a GPU to a CPU by itself."""
        return "cuda" if self.gpus else "cpu"

    @property
    def fingerprint(self) -> str:
        """``about`` as text; equal values, equal text, so that only a real change reruns a job."""
        return json.dumps(self.about, sort_keys=True)


@dataclass
class Jobs:
    """All jobs of an experiment, found by rule and name, and by what they make."""

    by_name: dict[tuple[str, str], Job] = field(default_factory=dict)
    makers: dict[str, Job] = field(default_factory=dict)

    def add(self, jobs: Iterable[Job]) -> None:
        """Take jobs in."""
        for job in jobs:
            self.by_name[job.rule, job.name] = job
            self.makers |= dict.fromkeys(job.makes, job)

    def get(self, rule: str, name: str) -> Job:
        """The job of a rule.

        Raises:
            InputError: if there is none of that name.
        """
        known(name, self.names(rule), f"job of {rule}")
        return self.by_name[rule, name]

    def names(self, rule: str) -> list[str]:
        """The names of a rule's jobs."""
        return [name for of, name in self.by_name if of == rule]

    def of(self, rule: str) -> list[Job]:
        """All jobs of a rule."""
        return [job for job in self.by_name.values() if job.rule == rule]

    def needed(self, files: Iterable[str]) -> list[Job]:
        """All jobs that must have run before ``files`` are there, in the order in which they can run."""
        found: dict[Job, None] = {}

        def follow(file: str) -> None:
            job = self.makers.get(file)
            if job is None or job in found:
                return
            for need in job.needs:
                follow(need)
            found[job] = None

        for file in files:
            follow(file)
        return list(found)


def unique(values: Iterable[Any]) -> list[Any]:
    """The values without repetitions, in order."""
    return list(dict.fromkeys(values))


def beside_others(given: dict[str, Any], model: str, method: str) -> dict[str, Any]:
    """A recipe of a run: what is fine-tuned is tuned beside nothing, and no model is a further one to itself."""
    if method == "ft":
        return {key: value for key, value in given.items() if key not in Referring.model_fields}
    others = [name for name in given.get("references", []) if name != model]
    return given | ({"references": others} if "references" in given else {})


def slug(text: str) -> str:
    """A source's or a tag's name as a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", text)


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder's, or is the folder: of a job's name, whether the job makes it."""
    return f"{path}/".startswith(f"{folder}/")


def shared(paths: Iterable[str], depth: int | None) -> Iterator[tuple[str, list[str]]]:
    """Paths by what they have in common: their first ``depth`` parts, or all of them (None)."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault("/".join(path.split("/")[:depth]), []).append(path)
    yield from groups.items()

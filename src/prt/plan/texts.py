"""The chats and benchmarks of a language experiment: what each is, and where it lies."""

from collections.abc import Iterator
from os.path import isdir
from pathlib import Path
from typing import Any

from prt.config import Language
from prt.errors import InputError, known
from prt.language.task_files import files
from prt.language.tasks import folder as data_folder
from prt.language.tasks import is_file
from prt.plan.jobs import Job, slug

# The miniature family's chats → their file.
MINIATURE = {"chats": "train", "problems": "problems", "instructions": "instructions"}


def check_chats(source: str, place: str) -> None:
    """Refuse a source of chats that does not exist; ``place`` is where the configuration has it.

    Raises:
        InputError: naming the place.
    """
    kind, _, name = source.partition(":")
    if kind == "embedded":
        raise InputError(f"'embedded:' in {place} is now called 'miniature:'.")
    known(kind, ("huggingface", "jsonl", "miniature"), f"kind of source in {place} of the configuration")
    if kind == "miniature":
        known(name, MINIATURE, "miniature chats")


class Texts:
    """What a configuration's chats and benchmarks stand for.

    ``sources``: where chats come from: the experiment's own (None), and those that one reward alone is tuned on, by the
    name that is the reward's variant.
    """

    def __init__(self, config: Language, experiment: str, few: bool, pretraining_seed: int) -> None:
        self.config, self.few, self.pretraining_seed = config, few, pretraining_seed
        self.top = f"results/{experiment}/language"
        self.sources: dict[str | None, str] = {None: config.data.source}
        self.sources |= config.together.chats.items() if config.together else {}

    def benchmark_folder(self, benchmark: str) -> str | None:
        """Where the data of a benchmark lies; None where its task file says."""
        own = self.config.benchmarks[benchmark]
        if own.get("data") == "miniature":
            return f"{self.top}/benchmarks/{benchmark}"
        place = data_folder(benchmark, own, Path(self.config.downloads))
        return None if place is None else str(place)

    def benchmark_settings(self, benchmark: str) -> dict[str, Any]:
        """The settings of a benchmark, with the folder of its data."""
        place = self.benchmark_folder(benchmark)
        return self.config.benchmarks[benchmark] | ({"data": place} if place else {})

    def _hub_benchmarks(self) -> dict[str, str]:
        """The benchmarks whose data are fetched → their tasks."""
        own = self.config.benchmarks.items()
        return {
            name: given.get("task", name)
            for name, given in own
            if "data" not in given and not is_file(given.get("task", name))
        }

    def benchmark_files(self, benchmark: str) -> list[str]:
        """What must be there before a benchmark can be run."""
        place, own = self.benchmark_folder(benchmark), self.config.benchmarks[benchmark]
        if benchmark in self._hub_benchmarks():
            return [f"{place}.json"]
        if own.get("data") == "miniature":
            return [f"{place}/test.jsonl"]
        task = own.get("task", "")
        return [*([place] if place else []), *(map(str, files(Path(task))) if is_file(task) else [])]

    def own_chats(self, variant: str | None) -> str | None:
        """The chats that a variant of a reward is tuned on: a key of ``sources``."""
        return variant if variant in self.sources else None

    def dataset(self, variant: str | None = None) -> str:
        """The name in manifests of the chats that a run is tuned on, by the run's variant."""
        return slug(self.sources[self.own_chats(variant)])

    def chats(self, name: str | None) -> str:
        """The source of chats as the package reads it."""
        kind, _, of = self.sources[name].partition(":")
        return f"jsonl:{self.top}/chats/{MINIATURE[of]}.jsonl" if kind == "miniature" else self.sources[name]

    def chats_file(self, name: str | None) -> list[str]:
        """The file that says that chats are there; none for a folder that is at hand."""
        kind, _, place = self.chats(name).partition(":")
        if kind == "jsonl":
            return [place]
        return [] if isdir(place) else [f"{self.config.downloads}/{slug(self.chats(name))}.json"]

    def data(self, name: str | None) -> str:
        """The folder that chats are prepared in."""
        return f"{self.top}/data" if name is None else f"{self.top}/data-{name}"

    def text_jobs(self) -> Iterator[Job]:
        """The jobs that write, fetch and prepare chats and benchmarks."""
        written = [f"chats/{name}.jsonl" for name in MINIATURE.values()]
        written += ["benchmarks/problems/test.jsonl", "benchmarks/instructions/test.jsonl"]
        yield Job("write_text", "text", (), tuple(f"{self.top}/{file}" for file in written))
        for name in self.sources:
            source, folder, needs = self.chats(name), self.data(name), tuple(self.chats_file(name))
            if source.startswith("huggingface:") and needs:
                yield Job("fetch_chats", slug(source), (), needs, source)
            about = [source, self.config.data.validation]
            yield Job("prepare_chats", Path(folder).name, needs, (f"{folder}/manifest.json",), about)
        for benchmark, task in self._hub_benchmarks().items():
            place = str(self.benchmark_folder(benchmark))
            yield Job("fetch_benchmark", Path(place).name, (), (f"{place}.json",), task)

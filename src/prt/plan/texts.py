"""The chats and benchmarks of a language experiment: what each is, and where it lies."""

from os.path import isdir
from pathlib import Path
from typing import Any

from prt.config import Language
from prt.language.task_files import files
from prt.language.tasks import folder as data_folder
from prt.language.tasks import is_file
from prt.plan.jobs import slug


class Texts:
    """What a configuration's chats and benchmarks stand for."""

    def __init__(self, config: Language, experiment: str, few: bool, pretraining_seed: int) -> None:
        self.config, self.few, self.pretraining_seed = config, few, pretraining_seed
        self.top = f"results/{experiment}/language"
        self.dataset = slug(config.data.source)  # the chats' name in manifests

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

    @property
    def chats(self) -> str:
        """The source of the chats as the package reads it."""
        source = self.config.data.source
        return f"jsonl:{self.top}/chats/train.jsonl" if source == "miniature:chats" else source

    def chats_file(self) -> list[str]:
        """The file that says that the chats are there; none for a folder that is at hand."""
        kind, _, name = self.chats.partition(":")
        if kind == "jsonl":
            return [name]
        return [] if isdir(name) else [f"{self.config.downloads}/{slug(self.chats)}.json"]

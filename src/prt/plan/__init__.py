"""The plan: what an experiment consists of, asked of its configuration alone, before anything runs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os.path import exists, isdir
from pathlib import Path
from typing import Any

from prt.atomic import file_hash
from prt.config import Config
from prt.errors import InputError, known
from prt.plan import together
from prt.plan.checks import checked, read_config
from prt.plan.jobs import RULES, Job, Jobs, unique
from prt.plan.language import LanguagePlan
from prt.plan.vision import VisionPlan

# The paper's numbers, in the project's folder: those of its tables, and those read off its bars.
PAPER, BARS = (Path(__file__).parents[3] / "config" / "published" / f"{name}.csv" for name in ("paper", "figure3"))

# Items that the paper does not have, as the report's reader knows them.
OTHERS = {"ledger": "Zero-shot ledger", "beside": "Paper beside ours", "strength": "Strength"}
OTHERS |= {"together": "Two rewards", "together_language": "Two rewards, language", "tokenizers": "Other tokenizers"}
# The portability study, one target.
STUDY = {"portability_vision": "Portability, images", "portability_language": "Portability, language"}
STUDY |= {"bound": "Portability, bound", "calibration": "Portability, calibration"}
STUDY |= {"ageing": "Ageing, images", "ageing_language": "Ageing, language"}
OTHERS |= STUDY


@dataclass(frozen=True)
class Item:
    """A figure or a table of the paper: what it reads, and where its pictures go."""

    name: str
    half: str
    needs: tuple[str, ...]
    about: Any
    pictures: tuple[str, ...]  # names without their endings
    caption: str

    @property
    def category(self) -> str:
        """Of the report."""
        return "Tables" if self.name.startswith("table") else "Figures"

    @property
    def title(self) -> str:
        """As the report's reader knows it."""
        for kind in ("figure", "table"):
            if self.name.startswith(kind):
                return f"{kind.capitalize()} {self.name.removeprefix(kind)}"
        return OTHERS[self.name]


class Plan:
    """An experiment: its halves, its items, and all jobs.

    Raises:
        InputError: for names that are taken, and a batch that a job's GPUs cannot share out.
    """

    def __init__(self, config: Config) -> None:
        self.config, few = config, config.jobs == "few"
        self.figures = f"results/{config.experiment}/figures"
        own = (config.experiment, few, config.pretraining_seed)
        self.vision = VisionPlan(config.vision, *own, stand_ins=config.stand_ins) if config.vision else None
        self.language = LanguagePlan(config.language, *own) if config.language else None
        self.items = {item.name: item for half in (self._vision_items, self._language_items) for item in half()}
        self.jobs = Jobs()
        for half in (self.vision, self.language):
            if half is not None:
                self.jobs.add(replace(job, gpus=0) if config.device == "cpu" else job for job in self._jobs_of(half))
        self.jobs.add(self._drawing(few))
        self._refuse_taken_names()
        if self.language is not None:
            for run in self.language.runs():
                self.language.recipe(run).passes(max(1, self.jobs.makers[self.language.made(run)].gpus))

    @classmethod
    def read(cls, paths: list[Path]) -> "Plan":
        """The plan of a configuration file, with others on top of it.

        Raises:
            InputError: as :func:`prt.plan.checks.read_config`.
        """
        return cls(read_config(paths))

    @classmethod
    def of(cls, content: Any) -> "Plan":
        """The plan of what a configuration file says.

        Raises:
            InputError: as :func:`prt.plan.checks.checked`.
        """
        return cls(checked(content))

    @staticmethod
    def _jobs_of(half: VisionPlan | LanguagePlan) -> Iterator[Job]:
        yield from half.jobs()
        if isinstance(half, VisionPlan):
            yield from together.jobs(half)

    # ---------------------------------------------------------------------------------------------------- the items

    def _item(self, half: str, name: str, needs: list[str], about: Any, caption: str = "") -> Item:
        pictures = [name, *(["beside_table"] if name == "beside" else [])]
        stems = tuple(f"{self.figures}/{picture}" for picture in pictures)
        return Item(name, half, tuple(needs), about, stems, caption or name)

    def _vision_items(self) -> Iterator[Item]:
        vision = self.vision
        if vision is None:
            return
        config = vision.config
        twelfth = config.figure12 or []
        panels = [panel.model_dump() for panel in config.panels]

        def summaries(datasets: list[str]) -> list[str]:
            return [vision.table(f"test/{dataset}", "summary") for dataset in datasets]

        second = [dataset for dataset in vision.datasets if dataset not in twelfth]
        yield self._item("vision", "figure2", summaries(second), panels)
        if twelfth:
            yield self._item("vision", "figure12", summaries(twelfth), panels, "figure2")
        made = unique(vision.made("tuned", vision.path(run)) for run in vision.swept())
        yield self._item("vision", "figure6a", made, [vision.folder(run) for run in vision.swept()])
        yield self._item(
            "vision", "figure6b", summaries([config.figure6.dataset]), config.figure6.model_dump(exclude={"every"})
        )
        theory = vision.table(f"test/{config.table7.dataset}", "theory")
        yield self._item("vision", "table7", [theory], config.table7.model_dump())
        yield self._item("vision", "strength", summaries(vision.datasets), None)
        if config.together is not None:
            yield self._item("vision", "together", together.needs(vision), config.together.model_dump())
        carried = [pair for dataset in vision.datasets for pair in vision.pairs(dataset) if pair[0] != pair[1]]
        if config.variants and carried:
            of = vision.datasets
            compared, theories = ([vision.table(f"test/{d}", t) for d in of] for t in ("comparison", "theory"))
            yield self._item("vision", "portability_vision", compared, None, "portability")
            if (1 + len(config.variants)) * len(carried) > 2:  # of fewer rewards there is no correlation
                yield self._item("vision", "bound", [*theories, *summaries(of)], None)
            yield self._item("vision", "calibration", summaries(of), None)
        if config.ageing is not None:
            yield self._item("vision", "ageing", summaries(vision.datasets), config.ageing.model_dump())
        if config.ledger is not None:
            checks = [f"{vision.top}/ledger/{dataset}.csv" for dataset in vision.datasets]
            yield self._item("vision", "ledger", checks, None)
        noise = summaries([str(vision.clean), str(vision.noisy)])
        if config.table5 is not None:
            yield self._item("vision", "table5", noise, config.table5.model_dump())
        costs = [vision.table("", name) for name in ("table1", "table2")]
        if config.costs is not None:
            for name, table in zip(("table1", "table2"), costs, strict=True):
                yield self._item("vision", name, [table], None)
        if config.costs is not None and config.table5 is not None:
            about = [vision.paper_names, config.table5.model_dump(), config.table7.model_dump(), file_hash(PAPER)]
            yield self._item("vision", "beside", [*costs, *noise, theory], about)

    def _language_items(self) -> Iterator[Item]:
        language = self.language
        if language is None:
            return
        for name, item in language.config.transfers.items():
            needs = [language.table(name, table) for table in ("summary", "comparison")]
            caption = {"ageing_language": "ageing"}.get(name, "language_bars")
            caption = name if name in ("figure7", "table4", "table6") else caption
            printed = file_hash(PAPER if name.startswith("table") else BARS)
            yield self._item("language", name, needs, [item.model_dump(), language.paper_names, printed], caption)
        panels = [panel for bars in language.config.bars.values() for panel in bars.panels]
        pairs = [(panel.source, target) for panel in panels for target in panel.targets]
        carried = [pair for pair in pairs if pair[0] != pair[1] and not language.config.across(*pair)]
        if language.config.variants and carried:
            compared = [language.table("", "comparison")]
            yield self._item("language", "portability_language", compared, None, "portability")
        if (both := language.config.together) is not None:
            made = unique(map(language.evaluated, language.points))
            yield self._item("language", "together_language", made, both.model_dump())
        for name in language.config.next_tokens:
            yield self._item("language", name, [f"{language.top}/next_tokens/{name}.json"], None, "next_tokens")
        if language.config.table3 is not None:
            yield self._item(
                "language", "table3", [language.table("", "table3")], [language.paper_names, file_hash(PAPER)]
            )

    def _drawing(self, few: bool) -> Iterator[Job]:
        """The jobs that draw: one for each item, or one for all that are drawn of the same tables.

        Figure 2 has a job of its own in any case, as it can be there long before the rest.
        """
        groups: dict[Any, list[Item]] = {}
        for item in self.items.values():
            costly = tuple(need for need in item.needs if not self._light(need))
            alone = not few or item.name == "figure2"
            groups.setdefault(item.name if alone else (item.half, costly), []).append(item)
        for items in groups.values():
            needs = unique(need for item in items for need in item.needs)
            makes = [f"{stem}.{ending}" for item in items for stem in item.pictures for ending in ("png", "pdf", "csv")]
            name = items[0].name if len(items) == 1 else f"{items[0].half}-pictures"
            wide = any(item.name in ("figure2", "figure12", "strength") or item.half == "language" for item in items)
            about = {item.name: item.about for item in items}
            yield Job("draw", name, tuple(needs), tuple(makes), about, group="collected" if wide else "tables")

    def _light(self, file: str) -> bool:
        """Whether a file is one of those that every other picture of its half hangs on, too."""
        costly = ("table1.csv", "table2.csv", "table3.csv")
        return Path(file).name not in costly and Path(file).suffix != ".json" and "@both" not in file

    def drawn_by(self, job: str) -> list[Item]:
        """The items that a job draws."""
        return [item for item in self.items.values() if item.name in self.jobs.get("draw", job).about]

    # --------------------------------------------------------------------------------------------------- the targets

    def targets(self) -> dict[str, list[str]]:
        """Name → files of everything that may be asked for by name: items, data sets and benchmarks."""
        found = {name: [f"{stem}.pdf" for stem in item.pictures] for name, item in self.items.items()}
        if {"figure6a", "figure6b"} <= found.keys():
            found["figure6"] = found["figure6a"] + found["figure6b"]
        if study := [file for name in STUDY for file in found.get(name, [])]:
            found["portability"] = study
        return found | self._data_targets()

    def _data_targets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if self.vision is not None:
            for dataset in self.vision.datasets:
                found[dataset] = [
                    self.vision.table(f"{split}/{dataset}", "transfer") for split in ("test", "validation")
                ]
        if self.language is not None:
            for benchmark in self.language.parts:
                if benchmark in self.language.config.benchmarks:
                    found[benchmark] = [self.language.table(benchmark, "transfer")]
        return found

    def everything(self) -> list[str]:
        """All that the experiment makes."""
        collected = [file for job in self.jobs.of("collect") for file in job.makes]
        return [*collected, *(f"{stem}.pdf" for item in self.items.values() for stem in item.pictures)]

    def downloads(self) -> list[str]:
        """All that must be downloaded before everything else can run without a network."""
        return [job.makes[0] for job in self.jobs.by_name.values() if job.rule.startswith("fetch_")]

    def needed(self, names: list[str]) -> list[Job]:
        """The jobs of some targets, or of everything.

        Raises:
            InputError: for an unknown name.
        """
        targets = self.targets()
        for name in names:
            known(name, targets, "item, data set or benchmark")
        files = [file for name in names for file in targets[name]] if names else self.everything()
        return self.jobs.needed(files)

    def counts(self, names: list[str]) -> dict[str, int]:
        """The number of jobs of each rule that some targets, or everything, need."""
        return dict(Counter(job.rule for job in self.needed(names)))

    def check_inputs(self) -> None:
        """Refuse an experiment that hangs on files that are not there, and that no job makes.

        Raises:
            InputError: naming the first.
        """
        for job in self.jobs.by_name.values():
            for need in job.needs:
                if need not in self.jobs.makers and not exists(need):
                    raise InputError(
                        f"{Path(need).absolute()} does not exist, and nothing makes it: {job.rule} {job.name} reads "
                        "it; correct its path in the configuration."
                    )
        for name, dataset in self.config.vision.datasets.items() if self.config.vision else ():
            kind, _, place = dataset.source.partition(":")
            if (kind == "folder" or place.startswith(("/", ".", "~"))) and not isdir(place):
                raise InputError(
                    f"the data set {name} is to be in {place}, where there is no folder; correct its source."
                )

    def _refuse_taken_names(self) -> None:
        taken = {*self.items, "figure6", "portability", "all", "fetch", *RULES}
        seen: set[str] = set()
        for half, what in (
            (self.vision and self.vision.datasets, "data set"),
            (self.language and self.language.config.benchmarks, "benchmark"),
        ):
            for name in half or []:
                if name in taken | seen:
                    raise InputError(
                        f"a {what} cannot be called '{name}', as a target is called so; choose another name."
                    )
                seen.add(name)

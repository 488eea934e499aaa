"""What a language experiment consists of: its runs, its cells, and its jobs."""

from collections.abc import Iterator
from functools import cached_property
from operator import itemgetter
from os.path import isdir
from pathlib import Path

from prt.atomic import fingerprint
from prt.cell import TABLES, Cell, Run
from prt.config import Bars
from prt.language.recipe import Lora, Recipe
from prt.language.tasks import settings
from prt.methods import METHODS, Network
from prt.plan.jobs import Job, beside_others, shared, slug, unique
from prt.plan.texts import Texts
from prt.plan.two_rewards import Cells, points, rewards


class LanguagePlan(Texts):
    """The language half of an experiment.

    Paths: ``models/MODEL``, ``data`` (chats), ``tuned/MODEL/RUN/SEED``, ``evaluated/TARGET/BENCHMARK/CELL``,
    ``transfer/PART``, where a part is a benchmark or an item. A job makes all whose path begins with its name. What is
    tuned on chats of its own and what has several rewards is apart, in ``tuned/MODEL@CHATS`` and
    ``evaluated/TARGET@both``.
    """

    # ------------------------------------------------------------------------------------------------ what there is

    @cached_property
    def _rows(self) -> dict[str | None, list[Cell]]:
        """Item, benchmark or (None) everything → all rows of its tables."""
        found: dict[str | None, dict[Cell, None]] = {}
        for item, of in self.config.transfers.items():
            for benchmark in of.benchmarks:
                rows = dict.fromkeys(self._compared(item, of, benchmark))
                for part in (None, item, benchmark):
                    found.setdefault(part, {}).update(rows)
        return {part: list(rows) for part, rows in found.items()}

    def rows(self, part: str | None = None) -> list[Cell]:
        """All rows of the tables of a benchmark or an item, or (None) of everything."""
        return self._rows.get(part, [])

    def _compared(self, item: str, of: Bars, benchmark: str) -> Iterator[Cell]:
        seeds = self.config.seeds if of.seeds is None else of.seeds
        return (
            Cell(
                dataset=benchmark, source=panel.source, target=target, method=name, alpha=alpha, variant=variant,
                lora=lora, strength=1.0, seed=seed,
            ).clean()
            for lora in [item == "table6"]
            for panel in of.panels
            for target in panel.models
            for name, method in METHODS.items()
            if self._measured(name, panel.source, target)
            for alpha, variant in (self._ways(item, of) if method.has_alpha else [(None, None)])
            if variant or not (alpha and method.at)
            for seed in seeds
        )  # fmt: skip

    def _ways(self, item: str, of: Bars) -> list[tuple[float, str | None]]:
        """(α, variant) of the rewards of an item; those that are bars have the variants, too."""
        variants = self.config.variants.items() if item in self.config.bars else []
        return [*((a, None) for a in getattr(of, "alphas", [0.0])), *((way.alpha, name) for name, way in variants)]

    def _measured(self, method: str, source: str, target: str) -> bool:
        """Whether a pair has a row of a method."""
        if method == "instruct" and self.config.models[target].instruct is None:
            return False
        if METHODS[method].transfers and self.config.across(source, target):
            return METHODS[method].of_texts
        if method == "ft" and target == source:
            return True
        if METHODS[method].merged and not self.alike(source, target):
            return False
        return method in ("pretrained", "prt", "eft", "source_ft", *self.config.methods)

    @cached_property
    def _cells(self) -> dict[str | None, list[Cell]]:
        measured = {row: row.measured() for row in self.rows()}
        return {part: unique(measured[row] for row in rows) for part, rows in self._rows.items()}

    def cells(self, part: str | None = None) -> list[Cell]:
        """All that is evaluated for a part, each once."""
        return self._cells.get(part, [])

    def pairs(self) -> list[tuple[str, str]]:
        """(source, target) of every transfer."""
        return unique((str(row.source), row.target) for row in self.rows())

    def alike(self, source: str, target: str) -> bool:
        """Whether two models differ in their weights alone, so that those can be added."""
        found = {of.architecture or of.size for of in (self.config.models[source], self.config.models[target])}
        return source == target or (len(found) == 1 and None not in found)

    def run(self, cell: Cell, network: Network) -> Run:
        """The run that a tuned network of a cell is."""
        model = cell.target if network.owner == "target" or cell.source is None else cell.source
        alpha, variant = (cell.alpha, cell.variant) if network.model == "prt" else (None, None)
        seed = cell.seed or 0
        return Run(
            dataset=self.dataset(variant), model=model, method=network.model, alpha=alpha, lora=cell.lora, seed=seed,
            variant=variant,
        )  # fmt: skip

    def runs(self) -> list[Run]:
        """Everything that is tuned: for the cells, and the rewards that pictures and Table 3 show."""
        found = [
            self.run(cell, n)
            for cell in self.cells()
            for n in METHODS[cell.method].networks
            if n.model in ("ft", "prt")
        ]
        return unique([*found, *(self.reward(source) for source in self._shown()), *rewards(self.config)])

    def _shown(self) -> list[str]:
        """The sources whose reward a picture or Table 3 shows."""
        pairs = self.config.table3.pairs if self.config.table3 else []
        return unique([*(item.source for item in self.config.next_tokens.values()), *(source for source, _ in pairs)])

    def reward(self, source: str) -> Run:
        """The reward that figures and tables show of a source: that of the first seed."""
        return Run(dataset=self.dataset(), model=source, method="prt", alpha=0.0, seed=self.config.seeds[0])

    @property
    def paper_names(self) -> dict[str, str]:
        """Models that stand for one of the paper's → its name there."""
        return {name: model.paper for name, model in self.config.models.items() if model.paper}

    @cached_property
    def used(self) -> list[str]:
        """The models that the configuration's items need."""
        found = [name for pair in self.pairs() for name in pair]
        found += [name for item in self.config.next_tokens.values() for name in (item.source, item.target)]
        found += [name for pair in (self.config.table3.pairs if self.config.table3 else []) for name in pair]
        found += [name for run in self.runs() for name in self.recipe(run).references]
        found += self.config.together.models if self.config.together else []
        return unique(found)

    @property
    def parts(self) -> list[str]:
        """Benchmarks and items, each with tables of its own."""
        used = unique(benchmark for item in self.config.transfers.values() for benchmark in item.benchmarks)
        return [*used, *self.config.transfers]

    # ----------------------------------------------------------------------------------------------- how it is made

    def recipe(self, run: Run) -> Recipe:
        """The recipe of a run."""
        by_lora = self.config.lora.recipe if run.lora and self.config.lora else {}
        given = self.config.recipe | by_lora
        if run.variant in self.config.variants:
            given = given | self.config.variants[run.variant].recipe
        return Recipe(**beside_others(given, run.model, run.method))

    def further(self, run: Run) -> list[str]:
        """Where the further models lie that a reward is tuned beside."""
        return [self.model(name) for name in self.recipe(run).references]

    def lora(self, run: Run) -> Lora | None:
        """The adapter of a run; None where the whole model is tuned."""
        return Lora(**self.config.lora.settings) if run.lora and self.config.lora else None

    @property
    def strengths(self) -> list[float]:
        """The strengths that are chosen among."""
        return sorted({1.0, *(self.config.strengths or [])})

    @property
    def max_length(self) -> int:
        """Tokens after which a chat is cut."""
        return Recipe(**self.config.recipe).max_length

    @property
    def precision(self) -> str:
        """Of tuning and of measuring."""
        return Recipe(**self.config.recipe).precision

    def path(self, run: Run) -> str:
        """A run's path under ``tuned``."""
        of = f"@{chats}" if (chats := self.own_chats(run.variant)) else ""
        return f"{run.model}{of}/{run.name}/{run.seed}"

    def folder(self, run: Run) -> str:
        """Where a run is written."""
        return f"{self.top}/tuned/{self.path(run)}"

    def made(self, run: Run) -> str:
        """The folder that the job makes in which a run lies."""
        path = self.path(run)
        return f"{self.top}/tuned/{path.split('/')[0] if self.few else path}"

    def prepared(self, run: Run) -> str:
        """The folder of the chats that a run is tuned on."""
        return self.data(self.own_chats(run.variant))

    def network(self, cell: Cell, network: Network) -> str:
        """Where a network of a cell lies."""
        model = cell.target if network.owner == "target" or cell.source is None else cell.source
        if network.model == "pretrained":
            return self.model(model)
        if network.model == "instruct":
            return self._downloaded(str(self.config.models[model].instruct))
        return self.folder(self.run(cell, network))

    def is_miniature(self, model: str) -> bool:
        """Whether the pipeline pretrains this model itself; such models are small and run on one CPU core."""
        return self.config.models[model].spec is None

    def model(self, model: str) -> str:
        """Where a model of the configuration lies."""
        spec = self.config.models[model].spec
        return f"{self.top}/models/{model}" if spec is None else self._downloaded(spec)

    def _downloaded(self, spec: str) -> str:
        """Where a model of others lies: a folder as it is, a name on the hub where it is fetched to."""
        return spec if isdir(spec) else f"{self.config.downloads}/models/{slug(spec)}"

    @cached_property
    def downloads(self) -> dict[str, str]:
        """Folder → name on the hub of every model that is fetched."""
        names = [self.config.models[model].spec for model in self.used]
        if "instruct" in self.config.methods:
            names += [self.config.models[model].instruct for model in self.used]
        return {self._downloaded(name): name for name in names if name and not isdir(name)}

    def weights(self, place: str) -> str:
        """What must be there before the model in a folder can be loaded."""
        return f"{place}/fetched.json" if place in self.downloads else f"{place}/config.json"

    # ------------------------------------------------------------------------------------------------------ the jobs

    def jobs(self) -> Iterator[Job]:
        """All jobs of this half but for the pictures."""
        for place, name in self.downloads.items():
            yield Job("fetch_model", Path(place).name, (), (f"{place}/fetched.json",), name)
        yield from self.text_jobs()
        for name, model in self.config.models.items():
            if model.spec is None:
                made = tuple(f"{self.top}/models/{name}/{file}" for file in ("config.json", "model.safetensors"))
                about = [model.model_dump(exclude={"paper"}), self.pretraining_seed]
                yield Job("pretrain_language", name, (), made, about)
        yield from self._tuning()
        yield from self._evaluating()
        yield from self._tables()
        yield from self._showing()

    def _tuning(self) -> Iterator[Job]:
        runs = {self.path(run): run for run in self.runs()}
        for name, paths in shared(runs, 1 if self.few else None):
            of = [runs[path] for path in paths]
            model = of[0].model
            lora = [self.lora(run) for run in of]
            about = [
                self.config.data.template,
                [
                    [p, self.recipe(runs[p]).model_dump(), a and a.model_dump()]
                    for p, a in sorted(zip(paths, lora, strict=True), key=itemgetter(0))
                ],
            ]
            beside = [self.weights(place) for run in of for place in self.further(run)]
            chats = [f"{self.prepared(run)}/manifest.json" for run in of]
            needs = tuple(unique([self.weights(self.model(model)), *chats, *beside]))
            own = self.config.models[model].parameters or 0.0
            references = [self.recipe(run).references for run in of]
            further = max(sum(self.config.models[name].parameters or 0.0 for name in names) for names in references)
            # Weights, gradients and two moments in float32 take 16 bytes a parameter, of a GPU's 80 GB; further models,
            # which are weights alone, two.
            gpus = 0 if self.is_miniature(model) else 1 if own + further / 8 < 2 else 8
            yield Job("tune_language", name, needs, (f"{self.top}/tuned/{name}",), about, gpus, own + further)

    def cell_path(self, cell: Cell) -> str:
        """A measured cell's path under ``evaluated``."""
        of = f"-of-{cell.source}" if cell.source else ""
        seeded = "" if cell.seed is None else f"-seed{cell.seed}"
        runs = [self.run(cell, n).name for n in METHODS[cell.method].networks if n.model in ("ft", "prt")]
        return f"{cell.target}/{cell.dataset}/{cell.method}{of}" + (f"-{runs[-1]}" if runs else "") + seeded

    @cached_property
    def points(self) -> dict[str, Cells]:
        """Path under ``evaluated`` → what of two rewards on one target is measured there."""
        return points(self.config)

    @cached_property
    def evaluations(self) -> dict[str, Cells]:
        """Path under ``evaluated`` → what is measured there."""
        return {self.cell_path(cell): (cell,) for cell in self.cells()} | self.points

    def evaluated(self, path: str) -> str:
        """The folder that the job makes in which a path under ``evaluated`` lies."""
        return f"{self.top}/evaluated/" + (path.split("/")[0] if self.few else path)

    def _evaluating(self) -> Iterator[Job]:
        for name, paths in shared(self.evaluations, 1 if self.few else None):
            several = [self.evaluations[path] for path in paths]
            of = [cell for cells in several for cell in cells]
            benchmarks = unique(cell.dataset for cell in of)
            needs = unique(file for cell in of for file in self._cell_needs(cell))
            needs += [file for benchmark in benchmarks for file in self.benchmark_files(benchmark)]
            # A strength is chosen by the experiment's chats, two strengths by those of their rewards.
            choosing, both = any(METHODS[cell.method].at for cell in of), paths[0] in self.points
            held_out = [None] if choosing else [chats for chats in self.sources if chats] if both else []
            needs += [f"{self.data(chats)}/manifest.json" for chats in held_out]
            target = self.config.models[of[0].target]
            billions = (target.parameters or 0.0) + max(sum(map(self._added, cells)) for cells in several)
            slow = sum(self._minutes(cells[0]) for cells in several)
            about = [
                sorted(paths),
                {benchmark: self.benchmark_settings(benchmark) for benchmark in benchmarks},
                [self.config.data.template, self.precision, self.config.unsafe_code, *self._engine],
                *([self.strengths] if choosing else []),
                *([self.max_length] if held_out else []),
            ]
            yield Job(
                "evaluate", name, tuple(unique(needs)), (f"{self.top}/evaluated/{name}",), about,
                0 if target.spec is None else 1, billions, int(60 + slow * billions),
            )  # fmt: skip

    @property
    def _engine(self) -> list[str]:
        """What measures, where it is not the default: results are the same, but for rounding."""
        return [] if self.config.engine == "transformers" else [self.config.engine]

    def _minutes(self, cell: Cell) -> int:
        """Minutes that a cell may take for every billion of parameters; as text, its prompts are asked one by one."""
        own = settings(cell.dataset, self.config.benchmarks[cell.dataset])
        return int(own["minutes"] * (own["batch"] if METHODS[cell.method].of_texts else 1))

    def _added(self, cell: Cell) -> float:
        """Billions of parameters that a cell puts on its target: each network of the source."""
        if cell.source is None:
            return 0.0
        added = [network for network in METHODS[cell.method].networks if network.owner == "source"]
        return len(added) * (self.config.models[cell.source].parameters or 0.0)

    def _cell_needs(self, cell: Cell) -> Iterator[str]:
        """What must be there before a cell can be measured."""
        for network in METHODS[cell.method].networks:
            if network.model in ("pretrained", "instruct"):
                yield self.weights(self.network(cell, network))
                continue
            run = self.run(cell, network)
            yield self.made(run)
            if run.lora:  # an adapter is put on its base
                yield self.weights(self.model(run.model))

    def table(self, part: str, name: str) -> str:
        """A table of a part; ``part`` may be ``''``, which is everything."""
        return f"{self.top}/transfer/{part}/{name}.csv" if part else f"{self.top}/{name}.csv"

    def results(self, part: str) -> list[str]:
        """``result.json`` of every cell of a part."""
        return [f"{self.top}/evaluated/{self.cell_path(cell)}/result.json" for cell in self.cells(part)]

    def collected(self) -> dict[str, list[str]]:
        """Each table of all benchmarks → the tables under each other in it."""
        benchmarks = [part for part in self.parts if part in self.config.benchmarks]
        return {self.table("", name): [self.table(part, name) for part in benchmarks] for name in TABLES}

    def _tables(self) -> Iterator[Job]:
        groups = [self.parts] if self.few and self.parts else [[part] for part in self.parts]
        for parts in groups:
            needs = unique(self.evaluated(self.cell_path(cell)) for part in parts for cell in self.cells(part))
            made = [self.table(part, name) for part in parts for name in TABLES]
            about = fingerprint([[cell.model_dump() for cell in self.rows(part)] for part in parts])
            name = "language" if self.few else f"language-{parts[0]}"
            yield Job("tables", name, tuple(needs), tuple(made), about)
        collected = self.collected() if self.parts else {}
        if collected:
            yield Job("collect", "language", tuple(f for files in collected.values() for f in files), tuple(collected))

    def _showing(self) -> Iterator[Job]:
        """Table 3's measurements, and the next tokens of Figures 5, 8 and 9."""
        for name, item in self.config.next_tokens.items():
            needs = [self.weights(self.model(item.target)), self.made(self.reward(item.source))]
            needs += self.benchmark_files(item.benchmark)
            about = [item.model_dump(), self.benchmark_settings(item.benchmark), self.precision]
            gpus = 0 if self.is_miniature(item.target) else 1
            yield Job("next_tokens", name, tuple(needs), (f"{self.top}/next_tokens/{name}.json",), about, gpus)
        if (table3 := self.config.table3) is not None:
            models = unique(name for pair in table3.pairs for name in pair)
            needs = [self.weights(self.model(model)) for model in models]
            needs += [self.made(self.reward(source)) for source, _ in table3.pairs]
            gpus = 0 if all(map(self.is_miniature, models)) else 1
            about = [table3.model_dump(), self.precision]
            yield Job("measure_decoding", "table3", tuple(unique(needs)), (self.table("", "table3"),), about, gpus)

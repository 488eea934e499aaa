"""What a vision experiment consists of: its runs, its cells, and its jobs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prt.atomic import fingerprint
from prt.cell import TABLES, Cell, Run
from prt.methods import METHODS
from prt.plan.jobs import Job, beside_others, shared, slug, unique
from prt.plan.places import Places
from prt.recipe import Precision, Recipe

SPLITS = ("validation", "test")
TUNED = ("pretrained", "ft", "prt")  # what there is of a backbone on a data set, and on its noisy copy
ON_NOISE = ("pretrained", "prt", "adapted")
SWEPT = [of.at for of in METHODS.values() if of.at]  # over strengths


class VisionPlan(Places):
    """The vision half of an experiment.

    Paths, beside those of :class:`Places`: ``tuned/DATASET/BACKBONE/RUN/SHOTS/SEED``, ``carried/…`` (scores of a reward
    on a data set that it was not tuned on, under the same path), ``merged/DATASET/SOURCE/TARGET/SHOTS/SEED/SCALE``
    (scores of a difference of weights), ``transfer/SPLIT/DATASET``. A job makes all whose path begins with its name.
    """

    # ------------------------------------------------------------------------------------------------ what there is

    def pairs(self, dataset: str) -> list[tuple[str, str]]:
        """(source, target) of every transfer on a data set: the panels', and those of other items on theirs."""
        table5 = self.config.table5
        if dataset == self.noisy and table5:
            return [(table5.source, target) for target in table5.models]
        panels = [*self.config.panels, *(i for i in self.config.items.values() if i.dataset == dataset)]
        return unique((panel.source, target) for panel in panels for target in panel.models)

    def backbones(self, dataset: str) -> list[str]:
        """The backbones that are used on a data set."""
        return unique(name for pair in self.pairs(dataset) for name in pair)

    @property
    def paper_names(self) -> dict[str, str]:
        """Backbones that stand for one of the paper's → its name there."""
        return {name: backbone.paper for name, backbone in self.config.backbones.items() if backbone.paper}

    @property
    def used(self) -> list[str]:
        """The backbones that the configuration's transfers use."""
        return unique(name for dataset in self.datasets for name in self.with_heads(dataset))

    def with_heads(self, dataset: str) -> list[str]:
        """The backbones that are used on a data set, and those that rewards are tuned beside."""
        beside = [name for run in self.runs(dataset) for name in self.recipe(run).references]
        return unique([*self.backbones(dataset), *(beside if dataset != self.noisy else [])])

    def alike(self, source: str, target: str) -> bool:
        """Whether two backbones differ in their weights alone, so that those can be added."""
        architectures = {self.architecture(source), self.architecture(target)}
        return source != target and len(architectures) == 1 and None not in architectures

    def rewards(self, dataset: str, source: str, shots: str) -> list[tuple[float, str | None]]:
        """(α, variant) of the rewards of a source: (0, None), the αs of Figure 6, and the variants."""
        item = self.config.figure6
        swept = (dataset, source, shots) == (item.dataset, item.source, item.shots)
        variants = [(alpha, name) for name, alpha in self.variants(dataset).items()]
        return unique([(0.0, None), *((alpha, None) for alpha in (item.alphas if swept else [])), *variants])

    def variants(self, dataset: str) -> dict[str, float]:
        """Name → α of the other ways in which rewards are tuned: none on noise, where the experiment's own goes on."""
        return {name: of.alpha for name, of in self.config.variants.items() if dataset != self.noisy}

    def runs(self, dataset: str) -> list[Run]:
        """Everything that is tuned on a data set: FT of all backbones, rewards of the sources."""
        table5 = self.config.table5
        if dataset == self.noisy and table5:
            facts = {"dataset": dataset, "model": table5.source, "alpha": 0.0, "shots": table5.shots}
            return [Run(method="adapted", seed=seed, **facts) for seed in self.config.seeds]
        sources = {source for source, _ in self.pairs(dataset)}
        return [
            Run(dataset=dataset, model=backbone, method=method, alpha=alpha, shots=shots, seed=seed, variant=variant)
            for backbone in self.backbones(dataset)
            for shots in self.config.datasets[dataset].shots
            for method, ways in (
                ("ft", [(None, None)]),
                ("prt", self.rewards(dataset, backbone, shots) if backbone in sources else []),
            )
            for alpha, variant in ways
            for seed in self.config.seeds
        ]

    def carried(self) -> list[Run]:
        """The rewards of Table 5 that are scored on noisy images as they were tuned on clean ones."""
        return [self._begun(run) for run in self.runs(self.noisy)] if self.noisy else []

    def _moved(self, run: Run) -> Run:
        return run.model_copy(update={"dataset": self.noisy})

    def carried_folder(self, run: Run) -> str:
        """Where a reward's scores on noisy images lie."""
        return f"{self.top}/carried/{self.path(self._moved(run))}"

    def cells(self, dataset: str) -> list[Cell]:
        """All rows of the tables of a data set."""
        item = self.config.table5
        if dataset == self.noisy and item:
            sizes, models = [item.shots], ON_NOISE
        else:
            sizes, models = list(self.config.datasets[dataset].shots), TUNED
        methods = [n for n, of in METHODS.items() if not of.of_texts and all(x.model in models for x in of.networks)]
        if dataset == self.noisy:
            methods = [name for name in methods if not METHODS[name].at]
        return unique(
            Cell(
                dataset=dataset, shots=shots, source=source, target=target, method=name, alpha=alpha,
                variant=variant, strength=strength, seed=seed,
            ).clean()
            for shots in sizes
            for source, target in self.pairs(dataset)
            for name in methods
            if self.alike(source, target) or not METHODS[name].merged
            for alpha, variant in self._tunings(name, dataset, source, shots)
            if variant or not (alpha and METHODS[name].at)
            for strength in (self.strengths(dataset) if name in SWEPT and (variant or not alpha) else [1.0])
            for seed in self.config.seeds
        )  # fmt: skip

    def _tunings(self, method: str, dataset: str, source: str, shots: str) -> list[tuple[float | None, str | None]]:
        """(α, variant) of the rows of a method; of one that chooses among variants there is one row, if there are."""
        if METHODS[method].any_variant:
            return [(0.0, None)] if self.variants(dataset) else []
        return [*self.rewards(dataset, source, shots)] if METHODS[method].has_alpha else [(None, None)]

    def strengths(self, dataset: str) -> list[float]:
        """The strengths that are tried on a data set."""
        return sorted({1.0, *(self.config.strengths if dataset != self.noisy else [])})

    def merged(self, dataset: str) -> dict[str, Cell]:
        """Folder of scores → cell of every model that is a sum of weights."""
        return {
            f"{self.merging(dataset, str(c.source), c.target)}/{c.shots}/{c.seed}/{c.strength:g}": c
            for c in self.cells(dataset)
            if METHODS[c.method].merged and not METHODS[c.method].at
        }

    def merging(self, dataset: str, source: str, target: str) -> str:
        """The folder of the scores of all differences of a source's weights on a target."""
        return f"{self.top}/merged/{dataset}/{source}/{target}"

    # ----------------------------------------------------------------------------------------------- how it is made

    def recipe(self, run: Run) -> Recipe:
        """The recipe of a run."""
        given = self.config.recipe | self.config.datasets[self.without_noise(run.dataset)].shots[run.shots]
        if run.method == "adapted" and self.config.table5:
            given = given | self.config.table5.recipe
        if run.variant:
            given = given | self.config.variants[run.variant].recipe
        return Recipe(**beside_others(given, run.model, run.method))

    def further(self, run: Run) -> list[tuple[str, Path]]:
        """Specification and head of each further model that a reward is tuned beside."""
        return [(self.spec(name), self.head(name, run.dataset)) for name in self.recipe(run).references]

    def every(self, run: Run) -> int:
        """Iterations between two points of a run's curve; 0: it has none."""
        item = self.config.figure6
        here = (run.dataset, run.shots, run.model) == (item.dataset, item.shots, item.source)
        return item.every if here and run.method == "prt" and run.alpha in item.alphas and not run.variant else 0

    def swept(self) -> list[Run]:
        """The runs whose curves Figure 6a shows."""
        return [run for run in self.runs(self.config.figure6.dataset) if self.every(run)]

    def initial(self, run: Run) -> str | None:
        """The folder of the run that another goes on from."""
        if run.method != "adapted":
            return None
        return self.folder(self._begun(run))

    def _begun(self, run: Run) -> Run:
        return run.model_copy(update={"dataset": self.clean, "method": "prt"})

    @property
    def precision(self) -> Precision:
        """Of tuning and of scoring."""
        return Recipe(**self.config.recipe).precision

    def path(self, run: Run) -> str:
        """A run's path under ``tuned`` or ``carried``."""
        return f"{run.dataset}/{run.model}/{run.name}/{run.shots}/{run.seed}"

    def folder(self, run: Run) -> str:
        """Where a run is written."""
        return f"{self.top}/tuned/{self.path(run)}"

    # ------------------------------------------------------------------------------------------------------ the jobs

    @property
    def prepared(self) -> list[str]:
        """Every data set that is prepared."""
        return [*self.datasets, *([self.noisy] if self.noisy else [])]

    def zero_shot(self, backbone: str, dataset: str) -> str:
        """The folder that the job makes in which they lie."""
        return f"{self.top}/zero_shot/{dataset}" + ("" if self.few else f"/{backbone}")

    def made(self, kind: str, path: str) -> str:
        """The folder that the job makes in which a run lies."""
        return f"{self.top}/{kind}/" + ("/".join(path.split("/")[:2]) if self.few else path)

    def _size(self, backbone: str) -> dict[str, Any]:
        return {"gpus": 0 if self.is_miniature(backbone) else 1}

    def jobs(self) -> Iterator[Job]:
        """All jobs of this half but for the pictures."""
        yield from self._fetching()
        for name, backbone in self.config.backbones.items():
            if backbone.spec is None:
                made = tuple(f"{self.top}/backbones/{name}/open_clip_{f}" for f in ("config.json", "model.safetensors"))
                yield Job("pretrain", name, (), made, [backbone.model_dump(exclude={"paper"}), self.pretraining_seed])
        for dataset in self.prepared:
            needs = self.receipt(dataset) if dataset != self.noisy else [self.manifest(str(self.clean))]
            files = ("manifest.json", *(f"{split}.arrow" for split in ("train", *SPLITS)))
            made = tuple(f"{self.top}/data/{dataset}/{file}" for file in files)
            of = self.config.datasets.get(dataset)
            about = [self.source(dataset), of and of.model_dump(exclude={"shots"})]
            yield Job("prepare", dataset, tuple(needs), made, about)
        yield from self._scoring()
        yield from self._tuning()
        yield from self._tables()
        yield from self._costs()

    def _fetching(self) -> Iterator[Job]:
        for backbone in self.used:
            if folder := self.fetched(backbone):
                made = tuple(f"{folder}/open_clip_{file}" for file in ("config.json", "model.safetensors"))
                yield Job("fetch_backbone", Path(folder).name, (), made, self.config.backbones[backbone].spec)
        for dataset in self.datasets:
            if receipt := self.receipt(dataset):
                source = self.source(dataset)
                yield Job("fetch_dataset", slug(source), (), tuple(receipt), source)

    def _scoring(self) -> Iterator[Job]:
        pairs = (f"{dataset}/{backbone}" for dataset in self.prepared for backbone in self.with_heads(dataset))
        for name, paths in shared(pairs, 1 if self.few else None):
            dataset, backbones = name.partition("/")[0], [path.partition("/")[2] for path in paths]
            needs = [self.manifest(dataset), *(file for backbone in backbones for file in self.weights(backbone))]
            if dataset == self.noisy:  # whose heads are the clean data set's
                needs += unique(self.zero_shot(backbone, str(self.clean)) for backbone in backbones)
            gpus = 0 if all(map(self.is_miniature, backbones)) else 1
            about = [self.precision, {backbone: self.spec(backbone) for backbone in backbones}]
            yield Job("zero_shot", name, tuple(unique(needs)), (f"{self.top}/zero_shot/{name}",), about, gpus)
        if self.config.ledger is not None:
            yield from self._ledger(self.config.ledger.published, self.config.ledger.tolerance)

    def _ledger(self, published: str, tolerance: float) -> Iterator[Job]:
        for dataset in self.datasets:
            needs = unique([*(self.zero_shot(b, dataset) for b in self.with_heads(dataset)), published])
            made = f"{self.top}/ledger/{dataset}.csv"
            yield Job("check_zero_shot", dataset, tuple(needs), (made,), tolerance)
            yield Job("approve_zero_shot", dataset, (made,), (made.replace(".csv", ".approved"),))

    def approval(self, dataset: str) -> list[str]:
        """What a data set's ledger must come to before anything is tuned on it: nothing where there is none."""
        if self.config.ledger is None:
            return []
        ending = "csv" if self.config.ledger.beyond == "warn" else "approved"
        return [f"{self.top}/ledger/{dataset}.{ending}"]

    def _tuning(self) -> Iterator[Job]:
        for dataset in self.prepared:
            runs = {self.path(run): run for run in self.runs(dataset)}
            for name, paths in shared(runs, 2 if self.few else None):
                of = [runs[path] for path in paths]
                backbone, clean = of[0].model, self.without_noise(dataset)
                needs = [*self.weights(backbone), self.manifest(dataset), self.zero_shot(backbone, clean)]
                needs += self.approval(clean)
                needs += [self.made("tuned", self.path(self._begun(run))) for run in of if run.method == "adapted"]
                for beside in unique(name for run in of for name in self.recipe(run).references):
                    needs += [*self.weights(beside), self.zero_shot(beside, clean)]
                about = [self.spec(backbone)] + [
                    [path, self.recipe(runs[path]).model_dump(), self.every(runs[path])] for path in sorted(paths)
                ]
                made = (f"{self.top}/tuned/{name}",)
                yield Job("tune", name, tuple(unique(needs)), made, about, **self._size(backbone))
        rewards = {self.path(self._moved(run)): run for run in self.carried()}
        for name, paths in shared(rewards, 2 if self.few else None):
            needs = [self.manifest(str(self.noisy)), *(self.made("tuned", self.path(rewards[p])) for p in paths)]
            made = (f"{self.top}/carried/{name}",)
            yield Job(
                "score_rewards", name, tuple(unique(needs)), made, sorted(paths), **self._size(rewards[paths[0]].model)
            )
        for dataset in self.datasets:
            yield from self._merging(dataset)

    def _merging(self, dataset: str) -> Iterator[Job]:
        pairs: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.merged(dataset).values():
            pairs.setdefault((str(cell.source), cell.target), []).append(cell)
        for (source, target), cells in pairs.items():
            needs = [self.manifest(dataset), *self.weights(source), *self.weights(target)]
            needs += [self.zero_shot(backbone, dataset) for backbone in (source, target)]
            needs += [self.made("tuned", self.path(run)) for run in self.fine_tuned(cells)]
            about = [self.spec(source), self.spec(target), self.strengths(dataset), self.precision]
            made = (self.merging(dataset, source, target),)
            yield Job("merge", f"{dataset}/{source}/{target}", tuple(unique(needs)), made, about, **self._size(target))

    def fine_tuned(self, cells: list[Cell]) -> list[Run]:
        """The fine-tuned models of the sources of some cells."""
        return [
            Run(dataset=c.dataset, model=str(c.source), method="ft", shots=c.shots, seed=c.seed or 0) for c in cells
        ]

    def scores(self, dataset: str, split: str) -> list[str]:
        """All score files of a data set and split."""
        folders = [self.zero_shot_folder(backbone, dataset) for backbone in self.backbones(dataset)]
        folders += [*map(self.folder, self.runs(dataset)), *self.merged(dataset)]
        if dataset == self.noisy:
            folders += map(self.carried_folder, self.carried())
        return [f"{folder}/{split}.safetensors" for folder in folders]

    def _scored(self, dataset: str) -> list[str]:
        """What the jobs make in which all scores of a data set lie."""
        found = [self.zero_shot(backbone, dataset) for backbone in self.backbones(dataset)]
        found += [self.made("tuned", self.path(run)) for run in self.runs(dataset)]
        found += [self.merging(dataset, str(cell.source), cell.target) for cell in self.merged(dataset).values()]
        if dataset == self.noisy:
            found += [self.made("carried", self.path(self._moved(run))) for run in self.carried()]
        return unique(found)

    def parts(self) -> list[str]:
        """SPLIT/DATASET of every set of tables."""
        return [f"test/{dataset}" for dataset in self.prepared] + [f"validation/{dataset}" for dataset in self.datasets]

    def table(self, part: str, name: str) -> str:
        """A table of a part; ``part`` may be ``''``, which is all of the test split."""
        return f"{self.top}/transfer/{part}/{name}.csv" if part else f"{self.top}/{name}.csv"

    def collected(self) -> dict[str, list[str]]:
        """Each table of all data sets → the tables under each other in it."""
        tests, validation = ([p for p in self.parts() if p.startswith(f"{split}/")] for split in ("test", "validation"))
        found = {self.table("", name): [self.table(part, name) for part in tests] for name in (*TABLES, "theory")}
        return found | {self.table("", "validation"): [self.table(part, "transfer") for part in validation]}

    def _tables(self) -> Iterator[Job]:
        groups: dict[str, list[str]] = {}
        for part in self.parts():
            name = part.partition("/")[2] if self.few else part.replace("/", "-")
            groups.setdefault(f"vision-{name}", []).append(part)
        for name, parts in groups.items():
            datasets = unique(part.partition("/")[2] for part in parts)
            needs = unique(file for dataset in datasets for file in self._scored(dataset))
            made = [self.table(part, table) for part in parts for table in (*TABLES, "theory")]
            about = fingerprint([[cell.model_dump() for cell in self.cells(dataset)] for dataset in datasets])
            yield Job("tables", name, tuple(needs), tuple(made), about)
        collected = self.collected()
        yield Job(
            "collect", "vision", tuple(unique(f for files in collected.values() for f in files)), tuple(collected)
        )

    def _costs(self) -> Iterator[Job]:
        costs = self.config.costs
        if costs is None:
            return
        paired = [name for pair in costs.inference for name in pair]
        gpus = 0 if all(map(self.is_miniature, [*costs.training, *paired])) else 1
        for rule, table, names, own in (
            ("measure_training", "table1", costs.training, self.precision),
            ("measure_inference", "table2", paired, [costs.inference, costs.compile]),
        ):
            needs = [file for name in unique(names) if self._is_small(name) for file in self.weights(name)]
            about = [costs.batch, costs.repeats, own, {name: self.network(name) for name in names}]
            yield Job(rule, table, tuple(needs), (self.table("", table),), about, gpus=gpus)

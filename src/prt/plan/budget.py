"""What an experiment will cost, reckoned from FLOPs, bytes and stated rates: GPU hours, wall time, memory, disk.

Of networks that are made here, miniatures and stand-ins, only the start of a job is reckoned: they are small.

Every number is a range. Work is counted as usual: 2 FLOPs a parameter and token forward, twice that backward, and once
more forward where activations are made again (gradient checkpointing). A step of decoding reads every weight once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import ceil
from operator import add
from pathlib import Path

from prt.cell import Cell, Run
from prt.errors import InputError, first_line
from prt.language.recipe import Recipe
from prt.methods import METHODS
from prt.plan import Plan, together
from prt.plan.jobs import Job, within
from prt.plan.sizes import Range, architecture, benchmark, images, tokens
from prt.plan.vision import VisionPlan

BACKWARD = 3  # forward and backward, in forward passes
MEASURING = {"measure_training": Range(300, 1800), "measure_inference": Range(600, 3600)}  # seconds, by experience
MEASURING |= {"measure_decoding": Range(900, 5400), "next_tokens": Range(30, 300)}
TREE = 17  # positions that a source reads for a token of another tokenizer (docs/tokenizers.md)
SMALL = Range(5, 300)  # the same of miniatures and stand-ins, on a CPU: most of it is torch.compile


@dataclass(frozen=True)
class Work:
    """``flop`` of a kind (a key of ``throughput``), and the least time that anything else takes, in seconds."""

    kind: str
    flop: Range
    least: Range


class Budget:
    """The seconds that each job takes on the GPUs or the core that it has."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.rates = plan, plan.config.throughput
        self.works: dict[Job, list[Work]] = {job: [] for job in plan.jobs.by_name.values()}
        for made, work in (*self._vision(), *self._language()):
            self.works[plan.jobs.makers[made]].append(work)
        self.seconds = {job: self._seconds(job) for job in self.works}

    def _seconds(self, job: Job) -> Range:
        start = Range(60, 60).over(self.rates.starting)
        measuring = MEASURING.get(job.rule, Range())
        if measuring.high and not job.gpus:
            measuring = SMALL
        return reduce(add, (self._time(job, work) for work in self.works[job]), start + measuring)

    def _time(self, job: Job, work: Work) -> Range:
        rate = getattr(self.rates, work.kind) if job.gpus else self.rates.cpu
        computed = (work.flop * 1e-12 * (1 / max(1, job.gpus))).over(rate)
        return Range(max(computed.low, work.least.low), max(computed.high, work.least.high))

    # ------------------------------------------------------------------------------------------------------- vision

    def _vision(self) -> Iterator[tuple[str, Work]]:
        vision = self.plan.vision
        if vision is None:
            return
        for dataset in vision.prepared:
            scored = images(self.plan, dataset)
            for backbone in vision.with_heads(dataset):
                yield vision.zero_shot(backbone, dataset), self._images(backbone, scored, scored)
            for run in vision.runs(dataset):
                yield vision.made("tuned", vision.path(run)), self._tuned(vision, run, scored)
            for folder, cell in vision.merged(dataset).items():
                yield folder.rsplit("/", 3)[0], self._images(cell.target, scored, scored)
        carried = {vision.carried_folder(run): run for run in vision.carried()} | together.carried(vision)
        for folder, run in carried.items():
            job = next(j for j in self.plan.jobs.of("score_rewards") if within(folder, j.makes[0]))
            yield job.makes[0], self._images(run.model, images(self.plan, job.name.partition("/")[0]), 0)

    def _tuned(self, vision: VisionPlan, run: Run, scored: int) -> Work:
        recipe = vision.recipe(run)
        seen = recipe.steps * recipe.batch
        frozen = seen if run.method != "ft" and recipe.augment else 0
        return self._images(run.model, BACKWARD * seen + frozen + scored, seen + scored)

    def _images(self, backbone: str, passes: int, decoded: int) -> Work:
        flop = passes * architecture(self.plan, backbone)["gflop"] * 1e9
        small = flop == 0  # a miniature's pictures are as small as it is
        readers = 7  # processes that decode, of a GPU's eight cores
        least = Range() if small else Range(decoded, decoded).over(self.rates.pictures) * (1 / readers)
        return Work("images", Range(flop, flop), least)

    # ----------------------------------------------------------------------------------------------------- language

    def _billions(self, model: str) -> float:
        assert self.plan.language is not None
        return 0.0 if self.plan.config.stand_ins else self.plan.language.config.models[model].parameters or 0.0

    def _language(self) -> Iterator[tuple[str, Work]]:
        language = self.plan.language
        if language is None:
            return
        for run in language.runs():
            chats = tokens(self.plan, language.own_chats(run.variant))
            yield language.made(run), self._learned(run, language.recipe(run), chats)
        for path, cells in language.evaluations.items():
            yield language.evaluated(path), self._evaluated(*cells)

    def _learned(self, run: Run, recipe: Recipe, chats: Range) -> Work:
        frozen = 1 + len(recipe.references) if run.method == "prt" else 0
        passes = BACKWARD + int(recipe.gradient_checkpointing) + frozen
        return Work("tuning", chats * (recipe.epochs * passes * 2e9 * self._billions(run.model)), Range())

    def networks(self, cell: Cell) -> list[float]:
        """Billions of parameters of each network that a cell holds, its base first."""
        of = METHODS[cell.method]
        owners = (network.owner for network in ((of.base,) if of.merged else of.networks))
        return [self._billions(cell.target if owner == "target" else cell.source or cell.target) for owner in owners]

    def _evaluated(self, cell: Cell, *others: Cell) -> Work:
        assert self.plan.language is not None
        of, sizes = benchmark(self.plan, cell.dataset), self.networks(cell)
        sizes += [size for other in others for size in self.networks(other)[1:]]  # on the same target
        read = of["questions"] * of["prompt"] * of.get("options", 1)
        written = Range(*of.get("answer", (0, 0)))
        batch = self.plan.language.config.benchmarks[cell.dataset].get("batch", 16)
        after = written * sum(sizes)
        if METHODS[cell.method].of_texts:
            batch, after = 1, written * (sizes[0] + TREE * sum(sizes[1:]))
        flop = (Range(read, read) * sum(sizes) + after * of["questions"]) * 2e9
        steps = written * ceil(of["questions"] / batch)
        moved = (steps * (2 * sum(sizes))).over(self.rates.decoding)
        launched = (steps * len(sizes)).over(self.rates.step) if sum(sizes) else Range()
        return Work("reading", flop, Range(max(moved.low, launched.low), max(moved.high, launched.high)))

    # ------------------------------------------------------------------------------------------------------- totals

    def gpu_hours(self, jobs: list[Job]) -> Range:
        """GPU hours of some jobs."""
        return reduce(add, (self.seconds[job] * (job.gpus / 3600) for job in jobs), Range())

    def core_hours(self, jobs: list[Job]) -> Range:
        """Core hours of those jobs that have no GPU."""
        return reduce(add, (self.seconds[job] * (1 / 3600) for job in jobs if not job.gpus), Range())

    def wall_hours(self, jobs: list[Job], gpus: int, cores: int) -> Range:
        """Hours on so many GPUs and cores: no less than the work shared out or the longest chain, no more than both.

        The upper bound is Graham's (1966) for jobs of one GPU each.
        """
        ends: dict[str, Range] = {}
        chain = Range()
        for job in jobs:  # in the order in which they can run
            before = [ends[need] for need in job.needs if need in ends]
            begun = Range(max((r.low for r in before), default=0), max((r.high for r in before), default=0))
            end = begun + self.seconds[job] * (1 / 3600)
            ends |= dict.fromkeys(job.makes, end)
            chain = Range(max(chain.low, end.low), max(chain.high, end.high))
        shared = [self.gpu_hours(jobs) * (1 / gpus), self.core_hours(jobs) * (1 / cores)]
        return Range(max(chain.low, *(s.low for s in shared)), chain.high + sum(s.high for s in shared))

    def gpu_memory(self, job: Job) -> float:
        """GB on each GPU of a job with language models: weights, gradients, moments; activations come on top."""
        language = self.plan.language
        if language is None or not job.gpus or self.plan.config.stand_ins:
            return 0.0
        if job.rule == "tune_language":
            return 20 * job.billions / job.gpus
        return (2 if language.precision == "bf16" else 4) * job.billions if job.rule == "evaluate" else 0.0

    def checkpoint(self, job: Job) -> float:
        """GB of a checkpoint of language tuning, in fp32: weights, two moments and, under FSDP, the frozen network."""
        if job.rule != "tune_language" or self.plan.config.stand_ins:
            return 0.0
        return (16 if job.gpus > 1 else 12) * job.billions


def measured(plan: Plan, job: Job) -> float | None:
    """Seconds that a job took, by Snakemake's benchmark file; None where it has none."""
    file = Path("results", plan.config.experiment, "benchmarks", job.rule, f"{job.name}.tsv")
    if not file.is_file():
        return None
    try:
        names, values = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[:2])
        return float(dict(zip(names, values, strict=True))["s"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the benchmark file {file} is damaged ({first_line(error)}); delete it.") from None

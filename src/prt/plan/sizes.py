"""How much there is of everything that a budget is reckoned from: bytes, parameters, images, tokens."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

from prt.language.tasks import is_file
from prt.plan import Plan
from prt.plan.jobs import Job, within
from prt.vision.catalogue import entry

FACTS = Path(__file__).with_name("sizes.yaml")
UNKNOWN_IMAGES = 10_000  # of a data set whose images are not counted yet
UNKNOWN_TOKENS = (10e6, 300e6)  # of chats of the hub that sizes.yaml does not know
BENCHMARK_GB, UNKNOWN_GB = 0.1, 1.0


@dataclass(frozen=True)
class Range:
    """A quantity that is known no better than to lie between two numbers."""

    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Self) -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Range":
        return Range(self.low * factor, self.high * factor)

    def over(self, rate: tuple[float, float]) -> "Range":
        """The time that this much work takes at a rate that lies between two."""
        return Range(self.low / rate[1], self.high / rate[0])

    def __str__(self) -> str:
        """Two digits: more would be false precision."""
        low, high = (f"{float(f'{x:.2g}'):,g}" for x in (self.low, self.high))
        return low if low == high else f"{low}–{high}"


@cache
def facts() -> dict[str, Any]:
    """The content of ``sizes.yaml``."""
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


def architecture(plan: Plan, backbone: str) -> dict[str, float]:
    """``clip``, ``tower`` (10⁶ parameters) and ``gflop`` (an image) of a backbone; none of one that is made here.

    One that ``sizes.yaml`` does not know is taken for its largest.
    """
    assert plan.vision is not None
    spec = plan.vision.config.backbones[backbone].spec
    if spec is None or plan.config.stand_ins:
        return {"clip": 0.0, "tower": 0.0, "gflop": 0.0}
    known = facts()["architectures"]
    return known.get(spec.partition("/")[0].removesuffix("-quickgelu"), known["ViT-L-14"])


def images(plan: Plan, dataset: str) -> int:
    """Images of a data set in validation and test, which every network is scored on."""
    assert plan.vision is not None
    kind, _, name = plan.vision.source(plan.vision.without_noise(dataset)).partition(":")
    if kind != "paper":
        return UNKNOWN_IMAGES
    of = entry(name).images
    return of["test"] + of.get("validation", round(0.1 * of["train"]))


def tokens(plan: Plan, chats: str | None) -> Range:
    """Tokens of chats: of a file, by its size, at 3 to 5 bytes a token; of the hub, by its name."""
    assert plan.language is not None
    kind, _, name = plan.language.sources[chats].partition(":")
    if kind == "jsonl":
        size = Path(name).stat().st_size if Path(name).is_file() else 0
        return Range(size / 5, size / 3)
    if kind == "miniature":
        return Range()
    return Range(*facts()["chats"].get(name, {"tokens": UNKNOWN_TOKENS})["tokens"])


def benchmark(plan: Plan, name: str) -> dict[str, Any]:
    """What ``sizes.yaml`` says of a benchmark; a user's own is taken for GSM8K."""
    assert plan.language is not None
    own = plan.language.config.benchmarks[name]
    task = own.get("task", name)
    of = dict(facts()["benchmarks"]["gsm8k" if is_file(task) else task])
    of["questions"] = min(of["questions"], own.get("limit") or of["questions"])
    if "answer" in of and (most := own.get("generation", {}).get("max_gen_toks")):
        of["answer"] = [min(most, tokens) for tokens in of["answer"]]
    return of


def download(plan: Plan, job: Job) -> float:
    """GB that a job downloads: 4 bytes a parameter of a CLIP, 2 of a language model; 0 for other jobs and stand-ins."""
    vision, language = plan.vision, plan.language
    if plan.config.stand_ins:
        return 0.0
    if job.rule == "fetch_backbone" and vision:
        return next(
            4 * architecture(plan, name)["clip"] / 1000
            for name, of in vision.config.backbones.items()
            if of.spec == job.about
        )
    if job.rule == "fetch_model" and language:
        models = language.config.models.values()
        return 2 * next(of.parameters or 0.0 for of in models if job.about in (of.spec, of.instruct))
    if job.rule in ("fetch_dataset", "fetch_chats"):
        name = job.about.partition(":")[2]
        known = {"paper": facts()["datasets"]} if job.about.startswith("paper:") else {}
        if name in known.get("paper", {}):
            return float(known["paper"][name])
        return float(facts()["chats"].get(name, {"gigabytes": UNKNOWN_GB})["gigabytes"])
    return BENCHMARK_GB if job.rule == "fetch_benchmark" else 0.0


def unpacked(plan: Plan, job: Job) -> float:
    """GB that a download takes on the disk: archives are kept beside what was in them."""
    kind, _, name = job.about.partition(":") if job.rule == "fetch_dataset" else ("", "", "")
    archives = kind == "paper" and entry(name).archives
    return download(plan, job) * (2 if archives else 1)


def result(plan: Plan, job: Job) -> float:
    """GB that a job leaves under ``results``: prepared images and tuned weights; the rest is small, and stand-ins."""
    vision, language = plan.vision, plan.language
    if plan.config.stand_ins:
        return 0.0
    if job.rule == "prepare" and vision:
        kind, _, name = vision.source(vision.without_noise(job.name)).partition(":")
        return float(facts()["datasets"].get(name, UNKNOWN_GB)) if kind == "paper" else 0.0
    if job.rule == "tune" and vision:
        dataset = job.name.partition("/")[0]
        runs = [run for run in vision.runs(dataset) if within(vision.path(run), job.name)]
        return sum(4 * architecture(plan, run.model)["tower"] / 1000 for run in runs)
    if job.rule == "tune_language" and language:
        runs = [run for run in language.runs() if within(language.path(run), job.name)]
        size = 2 if language.precision == "bf16" else 4
        # Of a LoRA reward only the adapter is kept: about a hundredth of the model.
        return sum(size * (language.config.models[r.model].parameters or 0.0) * (0.02 if r.lora else 1) for r in runs)
    return 0.0

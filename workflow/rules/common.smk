# Needs: the configuration. Makes: nothing; checks the configuration and answers questions about it.
import json
from operator import attrgetter
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from prt.config import check
from prt.errors import InputError
from prt.files import fingerprint, write_text

try:
    check(
        config,
        yaml.safe_load(
            Path(
                workflow.basedir, "workflow", "schemas", "config.schema.yaml"
            ).read_text()
        ),
    )
except InputError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = config["experiment"]
TOP = f"results/{EXPERIMENT}/vision"
FIGURES = f"results/{EXPERIMENT}/figures"
LOGS = f"results/{EXPERIMENT}/logs/vision"
COSTS = f"results/{EXPERIMENT}/benchmarks/vision"
VISION = config["vision"]
DATASETS, BACKBONES, SEEDS = VISION["datasets"], VISION["backbones"], VISION["seeds"]


wildcard_constraints:
    dataset="|".join(DATASETS),
    backbone="|".join(BACKBONES),
    run=r"ft|prt_[0-9.e+-]+",
    shots=r"full|\d+",
    seed=r"\d+",
    split="validation|test",


def as_json(value):
    """A value on a command line; equal values, equal text, so that only a real change reruns a job."""
    return json.dumps(value, sort_keys=True)


def is_embedded(backbone):
    """Whether the pipeline pretrains this backbone itself; such networks are small and run on one CPU core."""
    return "spec" not in BACKBONES[backbone]


def backbone_files(wildcards):
    """What must be made before a backbone can be loaded."""
    if not is_embedded(wildcards.backbone):
        entry = BACKBONES[wildcards.backbone]["spec"]
        own = (entry.removeprefix("local-dir:"), entry.partition("/")[2])
        return [path for path in own if path and Path(path).exists()]
    return f"{TOP}/backbones/{wildcards.backbone}/open_clip_config.json"


def spec(wildcards):
    """How the command line names a backbone."""
    if not is_embedded(wildcards.backbone):
        return BACKBONES[wildcards.backbone]["spec"]
    return f"local-dir:{TOP}/backbones/{wildcards.backbone}"


def gpus(wildcards):
    """GPUs of a job on this backbone."""
    return 0 if is_embedded(wildcards.backbone) else 1


def device(wildcards):
    """What a job on this backbone computes on. It never falls back from a GPU to a CPU by itself."""
    return "cuda" if gpus(wildcards) else "cpu"


def cores(wildcards):
    """CPU cores of a job on this backbone: more than one where there is a GPU to be kept busy."""
    return 8 if gpus(wildcards) else 1


def growing(amount):
    """A resource that grows with each attempt, so that a job killed for want of it succeeds when it is tried again."""
    return lambda wildcards, attempt: amount * attempt


def workers(wildcards, threads):
    """Processes that decode images: small pictures are decoded faster than a process starts."""
    return threads - 1


def state(wildcards):
    """Names, sizes and times of a user's own image folder: where they change, what hangs on them is made again."""
    kind, _, folder = DATASETS[wildcards.dataset]["source"].partition(":")
    if kind != "folder":
        return ""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return fingerprint(
        [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def regimes(wildcards):
    """The recipe of a run, under its number of shots."""
    return {
        wildcards.shots: VISION["recipe"]
        | DATASETS[wildcards.dataset]["shots"][wildcards.shots]
    }


def is_figure6(wildcards):
    """Whether a run belongs to Figure 6a, and so has a curve."""
    item = VISION["figure6"]
    here = (wildcards.dataset, wildcards.shots, wildcards.backbone)
    alphas = [f"prt_{alpha:g}" for alpha in item["alphas"]]
    return (
        here == (item["dataset"], item["shots"], item["source"])
        and wildcards.run in alphas
    )


def per_seed(pattern):
    """A pattern with {seed}: one job for each seed, or, where runs take seconds, one job for all."""
    return (
        expand(pattern, seed=SEEDS, allow_missing=True)
        if VISION.get("seeds_in_one_job")
        else pattern
    )


def per_seed_name(stem, ending):
    """The name of a job's log or benchmark."""
    return (
        f"{stem}.{ending}"
        if VISION.get("seeds_in_one_job")
        else f"{stem}.{{seed}}.{ending}"
    )


def seeds(wildcards):
    """The seeds of a job."""
    return SEEDS if VISION.get("seeds_in_one_job") else [wildcards.seed]


def pairs(dataset):
    """(source, target) of every transfer on a data set: the panels', and Figure 6's and Table 7's on theirs."""
    panels = [
        *VISION["panels"],
        *(VISION[i] for i in ("figure6", "table7") if VISION[i]["dataset"] == dataset),
    ]
    return list(
        dict.fromkeys(
            (panel["source"], target)
            for panel in panels
            for target in (panel["source"], *panel["targets"])
        )
    )


def runs(dataset):
    """(backbone, run, shots) of everything that is tuned on a data set: FT for all, PRT for the sources."""
    wanted = [(backbone, "ft") for pair in pairs(dataset) for backbone in pair]
    wanted += [(source, "prt_0") for source, _ in pairs(dataset)]
    found = [(*run, shots) for run in wanted for shots in DATASETS[dataset]["shots"]]
    item = VISION["figure6"]
    if dataset == item["dataset"]:
        found += [
            (item["source"], f"prt_{alpha:g}", item["shots"])
            for alpha in item["alphas"]
        ]
    return list(dict.fromkeys(found))


def score_files(wildcards):
    """All scores of a data set and split."""
    tuned = runs(wildcards.dataset)
    return [
        f"{TOP}/scores/{wildcards.dataset}/{b}/{wildcards.split}.safetensors"
        for b in dict.fromkeys(b for b, _, _ in tuned)
    ] + [
        f"{TOP}/tuned/{wildcards.dataset}/{b}/{run}/{shots}/{seed}/{wildcards.split}.safetensors"
        for b, run, shots in tuned
        for seed in SEEDS
    ]


def figure6_runs(file):
    """``file`` of every run of Figure 6a."""
    item = VISION["figure6"]
    return [
        f"{TOP}/tuned/{item['dataset']}/{item['source']}/prt_{alpha:g}/{item['shots']}/{seed}/{file}"
        for alpha in item["alphas"]
        for seed in SEEDS
    ]


def selection(item):
    """What of the tables belongs to a paper item."""
    return as_json(
        {key: VISION[item][key] for key in ("dataset", "shots", "source", "targets")}
    )


def drawn(stem, **about):
    """Outputs of a figure: PNG (shown in the report, which ``about`` describes), PDF and the rows it shows."""
    stem = f"{FIGURES}/{stem}"
    return [report(f"{stem}.png", **about), f"{stem}.pdf", f"{stem}.csv"]


def write_configuration():
    """Keep the configuration in force beside the results."""
    try:
        write_text(
            f"results/{EXPERIMENT}/config.yaml", yaml.safe_dump(config, sort_keys=False)
        )
    except InputError as error:
        raise WorkflowError(str(error)) from None


def refuse_taken_name(dataset, rules):
    """A data set is a target of its own, so it needs a name that no rule has."""
    if dataset in map(attrgetter("name"), rules):
        raise WorkflowError(
            f"a data set cannot be called '{dataset}', as a target is called so; choose another name."
        )

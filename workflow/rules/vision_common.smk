# Needs: the configuration's `vision`. Makes: nothing; answers the vision rules' questions about it.
import shlex
from pathlib import Path

from prt.atomic import fingerprint

VISION = config["vision"]
TOP = f"results/{EXPERIMENT}/vision"
LOGS = f"results/{EXPERIMENT}/logs/vision"
COSTS = f"results/{EXPERIMENT}/benchmarks/vision"
DATASETS, BACKBONES, SEEDS = VISION["datasets"], VISION["backbones"], VISION["seeds"]
DOWNLOADS = VISION.get("downloads", "downloads")
# What tuning makes for each seed.
SCORES = ["validation.safetensors", "test.safetensors"]
TUNED = ["manifest.json", "weights.safetensors", "curve.csv", *SCORES]
# Everything that is prepared: the data sets, and the noisy copy of Table 5's.
ENTRIES = dict(DATASETS)
if "table5" in VISION:
    CLEAN = VISION["table5"]["dataset"]
    NOISY = f"{CLEAN}-noise"
    ENTRIES[NOISY] = {
        "source": f"noise:{VISION['table5']['noise']:g}:{TOP}/data/{CLEAN}"
    }


wildcard_constraints:
    dataset="|".join(DATASETS),
    backbone="|".join(BACKBONES),
    run=r"ft|prt_[0-9.e+-]+",
    shots=r"full|\d+",
    seed=r"\d+",
    split="validation|test",


def is_miniature(backbone):
    """Whether the pipeline pretrains this backbone itself; such networks are small and run on one CPU core."""
    return "spec" not in BACKBONES[backbone]


def fetched_folder(backbone):
    """Where the weights of an open_clip tag are kept, or None for a backbone that has its own files."""
    entry = BACKBONES[backbone].get("spec", "local-dir:")
    if entry.startswith("local-dir:") or Path(entry.partition("/")[2]).is_file():
        return None
    return f"{DOWNLOADS}/backbones/{slug(entry)}"


def backbone_files(wildcards):
    """What must be made or fetched before a backbone can be loaded."""
    if is_miniature(wildcards.backbone):
        return f"{TOP}/backbones/{wildcards.backbone}/open_clip_config.json"
    folder = fetched_folder(wildcards.backbone)
    if folder:
        return f"{folder}/open_clip_config.json"
    entry = BACKBONES[wildcards.backbone]["spec"]
    folder, file = Path(entry.removeprefix("local-dir:")), Path(entry.partition("/")[2])
    return [str(file)] if file.is_file() else [str(folder)] if folder.is_dir() else []


def spec(wildcards):
    """How the command line names a backbone."""
    if is_miniature(wildcards.backbone):
        return f"local-dir:{TOP}/backbones/{wildcards.backbone}"
    folder = fetched_folder(wildcards.backbone)
    return f"local-dir:{folder}" if folder else BACKBONES[wildcards.backbone]["spec"]


def receipt(dataset):
    """The file that says that a data set's source is fetched; none for a source that is at hand."""
    source = ENTRIES[dataset]["source"]
    kind, _, name = source.partition(":")
    local = kind == "huggingface" and Path(name).is_dir()
    at_hand = local or kind in ("miniature", "folder", "noise")
    return [] if at_hand else f"{DOWNLOADS}/{slug(source)}.json"


def data_files(wildcards):
    """What must be made or fetched before a data set can be prepared."""
    if ENTRIES[wildcards.dataset]["source"].startswith("noise:"):
        return f"{TOP}/data/{CLEAN}/manifest.json"
    return receipt(wildcards.dataset)


def used_backbones():
    """The backbones that the configuration's items need."""
    return list(dict.fromkeys(b for dataset in DATASETS for b in backbones_of(dataset)))


def vision_downloads():
    """All that must be downloaded before the vision half can run without a network."""
    folders = [fetched_folder(backbone) for backbone in used_backbones()]
    return [
        *(f"{folder}/open_clip_config.json" for folder in folders if folder),
        *filter(None, map(receipt, DATASETS)),
    ]


def gpus(wildcards):
    """GPUs of a job on this backbone."""
    return 0 if is_miniature(wildcards.backbone) else 1


def device(wildcards):
    """What a job on this backbone computes on. It never falls back from a GPU to a CPU by itself."""
    return "cuda" if gpus(wildcards) else "cpu"


def cores(wildcards):
    """CPU cores of a job on this backbone."""
    return cores_of(gpus(wildcards))


def workers(wildcards, threads):
    """Processes that decode images: small pictures are decoded faster than a process starts."""
    return threads - 1


def state(wildcards):
    """Names, sizes and times of a user's own image folder: where they change, what hangs on them is made again."""
    kind, _, folder = ENTRIES[wildcards.dataset]["source"].partition(":")
    if kind != "folder":
        return ""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return fingerprint(
        [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def scoring_recipe():
    """What of the recipe scoring needs: the precision."""
    return as_json({k: v for k, v in VISION["recipe"].items() if k == "precision"})


def regimes(wildcards):
    """The recipe of a run, under its number of shots."""
    return {
        wildcards.shots: VISION["recipe"]
        | DATASETS[wildcards.dataset]["shots"][wildcards.shots]
    }


def retuning(wildcards):
    """The recipe of tuning a reward further on noise, under its number of shots."""
    item = VISION["table5"]
    clean = VISION["recipe"] | DATASETS[CLEAN]["shots"][wildcards.shots]
    return {wildcards.shots: clean | item["recipe"]}


def is_figure6(wildcards):
    """Whether a run belongs to Figure 6a, and so has a curve."""
    item = VISION["figure6"]
    here = (wildcards.dataset, wildcards.shots, wildcards.backbone)
    alphas = [f"prt_{alpha:g}" for alpha in item["alphas"]]
    return (
        here == (item["dataset"], item["shots"], item["source"])
        and wildcards.run in alphas
    )


def per_seed(folder, files):
    """``files`` in ``folder``/{seed}: one job for each seed, or, where runs take seconds, one job for all."""
    seeds = SEEDS if VISION.get("seeds_in_one_job") else ["{seed}"]
    return [f"{folder}/{seed}/{file}" for seed in seeds for file in files]


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
    """(source, target) of every transfer on a data set: the panels', and those of other items on theirs."""
    panels = [
        *VISION["panels"],
        *(
            VISION[item]
            for item in ("figure6", "table5", "table7")
            if item in VISION and VISION[item]["dataset"] == dataset
        ),
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
        for b in backbones_of(wildcards.dataset)
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


def checked(wildcards):
    """What a data set's ledger must come to before anything is tuned on it: nothing where there is none."""
    if "ledger" not in VISION:
        return []
    ending = "csv" if VISION["ledger"].get("beyond") == "warn" else "approved"
    return f"{TOP}/ledger/{wildcards.dataset}.{ending}"


def shown_in(figure):
    """The data sets of Figure 2 or 12: Figure 12 has those that it names, Figure 2 the others."""
    twelfth = VISION.get("figure12", [])
    return (
        twelfth if figure == "figure12" else [d for d in DATASETS if d not in twelfth]
    )


def summaries(datasets):
    """The transfer accuracies of some data sets."""
    return [f"{TOP}/transfer/test/{dataset}/summary.csv" for dataset in datasets]


def backbones_of(dataset):
    """The backbones that are used on a data set."""
    return list(dict.fromkeys(backbone for backbone, _, _ in runs(dataset)))


def noise_targets():
    """The networks that Table 5's reward is put on: the source itself comes first."""
    item = VISION["table5"]
    return list(dict.fromkeys([item["source"], *item["targets"]]))


def noise_scores(dataset, run):
    """Test scores of Table 5's reward, one for each seed: of ``run`` on a data set."""
    item = VISION["table5"]
    folder = f"{TOP}/tuned/{dataset}/{item['source']}/{run}/{item['shots']}"
    return [f"{folder}/{seed}/test.safetensors" for seed in SEEDS]


def network(backbone):
    """How a benchmark names a network; it reads the architecture alone."""
    if is_miniature(backbone):
        return f"{backbone}=local-dir:{TOP}/backbones/{backbone}"
    return shlex.quote(f"{backbone}={BACKBONES[backbone]['spec']}")


def network_files(backbones):
    """What must be made before networks are timed."""
    return [
        f"{TOP}/backbones/{backbone}/open_clip_config.json"
        for backbone in backbones
        if is_miniature(backbone)
    ]


def gpus_of_costs():
    """GPUs of the jobs that measure time and memory: one, where a network is not a miniature."""
    names = [*VISION["costs"]["training"], *sum(VISION["costs"]["inference"], [])]
    return 0 if all(map(is_miniature, names)) else 1


def vision_items():
    """Everything that the configuration's vision half makes."""
    items = {
        "figure12": ["figure12"],
        "ledger": ["ledger"],
        "table5": ["table5"],
        "costs": ["table1", "table2"],
    }
    names = ["figure2", "figure6a", "figure6b", "table7", "strength"]
    names += [name for item, some in items.items() if item in VISION for name in some]
    if {"costs", "table5"} <= VISION.keys():
        names.append("beside")
    tables = ["transfer", "theory", "comparison", "validation"]
    return [f"{TOP}/{name}.csv" for name in tables] + [
        f"{FIGURES}/{name}.pdf" for name in names
    ]

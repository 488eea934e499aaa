# Needs: the configuration's `language`. Makes: nothing; answers the language rules' questions about it.
import shlex
from pathlib import Path

from prt.language.tasks import folder, is_file, settings

LANGUAGE = config["language"]
LANGUAGE_TOP = f"results/{EXPERIMENT}/language"
LANGUAGE_LOGS = f"results/{EXPERIMENT}/logs/language"
LANGUAGE_COSTS = f"results/{EXPERIMENT}/benchmarks/language"
LANGUAGE_DOWNLOADS = LANGUAGE.get("downloads", "downloads")
MODELS, BENCHMARKS = LANGUAGE["models"], LANGUAGE["benchmarks"]
BARS, NEXT_TOKENS = LANGUAGE.get("bars", {}), LANGUAGE.get("next_tokens", {})
# What tuning makes for each seed, beside the weights.
TUNED_MODEL = ["manifest.json", "curve.csv"]


wildcard_constraints:
    model="|".join(map(re.escape, MODELS)),
    target="|".join(map(re.escape, MODELS)),
    tuning=r"(ft|prt)(-lora)?(_[0-9.e+-]+)?",
    benchmark="|".join(map(re.escape, BENCHMARKS)),
    part=r"[A-Za-z0-9_-]+",


def is_pretrained_here(model):
    """Whether the pipeline pretrains this model itself; such models are small and run on one CPU core."""
    return "spec" not in MODELS[model]


def hub_models():
    """Folder → name on the hub of every model that is fetched: those that an item uses, and their instruct models."""
    used = [MODELS[model] for model in used_models()]
    names = [entry.get("spec") for entry in used]
    if "instruct" in LANGUAGE["methods"]:
        names += [entry.get("instruct") for entry in used]
    return {
        model_folder_of(name): name
        for name in names
        if name and not Path(name).is_dir()
    }


def model_folder_of(spec):
    """Where a model of others lies: a folder as it is, a name on the hub where it is fetched to."""
    return spec if Path(spec).is_dir() else f"{LANGUAGE_DOWNLOADS}/models/{slug(spec)}"


def model_folder(model):
    """Where a model of the configuration lies."""
    if is_pretrained_here(model):
        return f"{LANGUAGE_TOP}/models/{model}"
    return model_folder_of(MODELS[model]["spec"])


def model_files(folder):
    """What must be made or fetched before the model in ``folder`` can be loaded."""
    return (
        f"{folder}/fetched.json" if folder in hub_models() else f"{folder}/config.json"
    )


def used_models():
    """The models that the configuration's items need."""
    found = [
        model
        for _, _, panel, *_ in transfers()
        for model in (panel["source"], *panel["targets"])
    ]
    for item in NEXT_TOKENS.values():
        found += [item["source"], item["target"]]
    if "table3" in LANGUAGE:
        found += decoding_models()
    return list(dict.fromkeys(found))


def transfers():
    """(item, benchmark, panel, seeds, αs, whether by LoRA) of everything that the configuration's items compare."""
    items = [(name, item, False) for name, item in BARS.items()]
    items += [
        (name, LANGUAGE[name], name == "table6")
        for name in ("figure7", "table4", "table6")
        if name in LANGUAGE
    ]
    return [
        (
            name,
            benchmark,
            panel,
            item.get("seeds", LANGUAGE["seeds"]),
            item.get("alphas", [0]),
            lora,
        )
        for name, item, lora in items
        for benchmark in item["benchmarks"]
        for panel in item["panels"]
    ]


def run_of(method, alpha, lora):
    """The name of a tuning: ft, prt_ALPHA, ft-lora, prt-lora_ALPHA."""
    name = f"{method}-lora" if lora else method
    return name if method == "ft" else f"{name}_{alpha:g}"


def cells(benchmark, target, part=None):
    """Name → facts of everything that is measured of a target on a benchmark, for an item or for all."""
    found = {}
    methods = LANGUAGE["methods"]

    def add(method, run, **facts):
        for seed in facts.pop("seeds"):
            source = facts["source"]
            of = f"-of-{source}" if source != target else ""
            found[f"{method}{of}-{run}-seed{seed}"] = {
                "method": method,
                "run": run,
                "seed": seed,
                **facts,
            }

    for item, name, panel, seeds, alphas, lora in transfers():
        source = panel["source"]
        elsewhere = target not in (source, *panel["targets"])
        if name != benchmark or elsewhere or part not in (None, item):
            continue
        found["pretrained"] = {"method": "pretrained"}
        if "instruct" in methods and "instruct" in MODELS[target]:
            found["instruct"] = {"method": "instruct"}
        facts = {"lora": lora, "seeds": seeds}
        ft = run_of("ft", 0, lora)
        if "ft" in methods or target == source:
            add("ft", ft, source=target, alpha=None, **facts)
        if target != source:
            add("eft", ft, source=source, alpha=None, **facts)
        if "poe" in methods:
            add("poe", ft, source=source, alpha=None, **facts)
        for alpha in alphas:
            prt = run_of("prt", alpha, lora)
            add("prt", prt, source=source, alpha=alpha, **facts)
            if "reward" in methods and target == source:
                add("reward", prt, source=source, alpha=alpha, **facts)
    return found


def tuned_folder(cell):
    """Where the tuned model of a cell lies."""
    return f"{LANGUAGE_TOP}/tuned/{cell['source']}/{cell['run']}/{cell['seed']}"


def cell_needs(target, cell):
    """What must be there before a cell can be measured."""
    if cell["method"] == "instruct":
        return [model_files(model_folder_of(MODELS[target]["instruct"]))]
    found = [model_files(model_folder(target))]
    if "source" in cell:
        found.append(f"{tuned_folder(cell)}/manifest.json")
    if cell["method"] == "eft" or cell.get("lora"):
        found.append(model_files(model_folder(cell["source"])))
    return found


def cell_facts(benchmark, target, name):
    """A cell as the command line takes it."""
    cell = cells(benchmark, target)[name]
    found = {
        "name": name,
        "method": cell["method"],
        "source": cell.get("source"),
        "alpha": cell.get("alpha"),
        "lora": cell.get("lora", False),
        "seed": cell.get("seed"),
    }
    if "source" in cell:
        found["tuned"] = tuned_folder(cell)
        found["pretrained"] = model_folder(cell["source"])
    if cell["method"] == "instruct":
        found["instruct"] = model_folder_of(MODELS[target]["instruct"])
    return found


def batches(benchmark, target):
    """Name → cells of the jobs that measure a target: one cell each, or, where cells take seconds, one job for all."""
    names = list(cells(benchmark, target))
    return (
        {"all": names}
        if LANGUAGE.get("in_one_job")
        else {name: [name] for name in names}
    )


def cells_of_job(wildcards):
    """The cells of a job."""
    return batches(wildcards.benchmark, wildcards.target)[wildcards.batch]


def evaluation_needs(wildcards):
    """What an evaluation reads."""
    here = cells(wildcards.benchmark, wildcards.target)
    found = [
        file
        for name in cells_of_job(wildcards)
        for file in cell_needs(wildcards.target, here[name])
    ]
    return list(dict.fromkeys([*found, *benchmark_files(wildcards.benchmark)]))


def pairs_of_part(part):
    """(benchmark, source, target) of every transfer of an item or a benchmark, the source itself first."""
    found = [
        (benchmark, panel["source"], target)
        for item, benchmark, panel, *_ in transfers()
        if part in (item, benchmark)
        for target in (panel["source"], *panel["targets"])
    ]
    return list(dict.fromkeys(found))


def measured(part):
    """The folders of every measurement of an item or a benchmark."""
    item = None if part in BENCHMARKS else part
    found = []
    for benchmark, _, target in pairs_of_part(part):
        names = (
            ["all"] if LANGUAGE.get("in_one_job") else cells(benchmark, target, item)
        )
        found += [
            f"{LANGUAGE_TOP}/evaluated/{benchmark}/{target}/{name}" for name in names
        ]
    return list(dict.fromkeys(found))


def language_pairs(part):
    """The pairs of an item or a benchmark, as options."""
    pairs = [f"--pair {source}:{target}" for _, source, target in pairs_of_part(part)]
    return list(dict.fromkeys(pairs))


def language_table(part, table):
    """A table of an item or a benchmark."""
    return f"{LANGUAGE_TOP}/transfer/{part}/{table}.csv"


def benchmark_folder(benchmark):
    """Where the data of a benchmark lies; None where its task file says."""
    own = BENCHMARKS[benchmark]
    if own.get("data") == "miniature":
        return f"{LANGUAGE_TOP}/benchmarks/{benchmark}"
    place = folder(benchmark, own, Path(LANGUAGE_DOWNLOADS))
    return place and str(place)


def hub_benchmarks():
    """The benchmarks whose data are fetched → their tasks."""
    return {
        benchmark: own.get("task", benchmark)
        for benchmark, own in BENCHMARKS.items()
        if "data" not in own and not is_file(own.get("task", benchmark))
    }


def benchmark_files(benchmark):
    """What must be made or fetched before a benchmark can be run."""
    place = benchmark_folder(benchmark)
    if benchmark in hub_benchmarks():
        return [f"{place}.json"]
    if BENCHMARKS[benchmark].get("data") == "miniature":
        return [f"{place}/test.jsonl"]
    task = BENCHMARKS[benchmark].get("task", "")
    return [*([place] if place else []), *([task] if is_file(task) else [])]


def chats_receipt():
    """The file that says that the chats are fetched; none for chats that are at hand."""
    source = LANGUAGE["data"]["source"]
    kind, _, name = source.partition(":")
    if kind == "miniature":
        return f"{LANGUAGE_TOP}/chats/train.jsonl"
    if kind == "jsonl":
        return name
    return [] if Path(name).is_dir() else f"{LANGUAGE_DOWNLOADS}/{slug(source)}.json"


def chats_source():
    """The chats as the command line takes them."""
    source = LANGUAGE["data"]["source"]
    return (
        f"jsonl:{LANGUAGE_TOP}/chats/train.jsonl"
        if source == "miniature:chats"
        else source
    )


def benchmark_settings(benchmark):
    """The settings of a benchmark, with the folder of its data."""
    place = benchmark_folder(benchmark)
    return BENCHMARKS[benchmark] | ({"data": place} if place else {})


def lora_settings(wildcards):
    """The adapter of a tuning, as an option; none where the whole model is tuned."""
    if "-lora" not in wildcards.tuning:
        return ""
    settings = {
        key: value for key, value in LANGUAGE["lora"].items() if key != "recipe"
    }
    return f"--lora {shlex.quote(as_json(settings))}"


def tuning_recipe(wildcards):
    """The recipe of a tuning."""
    by_lora = LANGUAGE["lora"].get("recipe", {}) if "-lora" in wildcards.tuning else {}
    return LANGUAGE["recipe"] | by_lora


def launch(wildcards, resources, threads):
    """What starts a tuning on GPUs: one process for each, with its share of the cores."""
    gpus = resources.get("gpu", 0)
    if not gpus:
        return ""
    return (
        f"OMP_NUM_THREADS={max(1, threads // gpus)} "
        f"torchrun --standalone --nproc-per-node {gpus} --no-python"
    )


def memory_of_tuning(wildcards, attempt):
    """MB of a tuning: on GPUs every process loads the model in float32, and the reference in bfloat16."""
    gpus = gpus_of_tuning(wildcards)
    need = 16000 + 7000 * gpus * billions([wildcards.model]) if gpus else 4000
    return int(need) * attempt


def minutes_of_evaluation(wildcards, attempt):
    """Minutes of an evaluation, which begins anew when it is killed."""
    own = BENCHMARKS[wildcards.benchmark]
    slow = settings(wildcards.benchmark, own)["minutes"]
    return int(60 + slow * weights_of(wildcards)) * attempt


def language_downloads():
    """All that must be downloaded before the language half can run without a network."""
    chats = chats_receipt()
    fetched = chats and LANGUAGE["data"]["source"].startswith("huggingface:")
    return [
        *(f"{folder}/fetched.json" for folder in hub_models()),
        *([chats] if fetched else []),
        *(
            file
            for benchmark in hub_benchmarks()
            for file in benchmark_files(benchmark)
        ),
    ]


def billions(models):
    """Parameters of some models, in billions; miniature ones have next to none."""
    return sum(MODELS[model].get("parameters", 0) for model in models)


def gpus_of_model(wildcards):
    """GPUs of a job that runs this model, with the reward of another."""
    model = wildcards.get("target") or wildcards.get("model")
    return 0 if is_pretrained_here(model) else 1


def gpus_of_tuning(wildcards):
    """GPUs of tuning: weights, gradients and two moments in float32 want 16 bytes a parameter, of 80 GB."""
    if is_pretrained_here(wildcards.model):
        return 0
    return 1 if billions([wildcards.model]) < 2 else 8


def weights_of(wildcards):
    """Billions of parameters that a measurement holds at most: the target, and the source's two models of EFT."""
    here = cells(wildcards.benchmark, wildcards.target)
    sources = [here[name].get("source") for name in cells_of_job(wildcards)]
    return billions([wildcards.target]) + max(
        (2 * billions([source]) for source in sources if source), default=0
    )


def per_run(files):
    """``files`` of a tuning: one job for each seed, or, where runs take seconds, one job for all."""
    seeds = LANGUAGE["seeds"] if LANGUAGE.get("in_one_job") else ["{seed}"]
    folder = f"{LANGUAGE_TOP}/tuned/{{model}}/{{tuning}}"
    return [f"{folder}/{seed}/{file}" for seed in seeds for file in files]


def per_run_name(stem, ending):
    """The name of a tuning's log or benchmark."""
    return (
        f"{stem}.{ending}"
        if LANGUAGE.get("in_one_job")
        else f"{stem}.{{seed}}.{ending}"
    )


def seeds_of_job(wildcards):
    """The seeds of a tuning job."""
    return LANGUAGE["seeds"] if LANGUAGE.get("in_one_job") else [wildcards.seed]


def language_items():
    """Everything that the configuration's language half makes."""
    names = [*BARS, *NEXT_TOKENS]
    names += [
        item for item in ("figure7", "table3", "table4", "table6") if item in LANGUAGE
    ]
    return [
        *(
            f"{LANGUAGE_TOP}/{table}.csv"
            for table in ("transfer", "summary", "comparison")
        ),
        *(f"{FIGURES}/{name}.pdf" for name in names),
    ]


def transfers_of(item):
    """What of the tables belongs to a paper item."""
    panels = LANGUAGE[item]["panels"]
    targets = [
        name for panel in panels for name in (panel["source"], *panel["targets"])
    ]
    return as_json(
        {
            "sources": list(dict.fromkeys(panel["source"] for panel in panels)),
            "targets": list(dict.fromkeys(targets)),
        }
    )


def paper_names():
    """Our models' names → the paper's."""
    return {name: entry["paper"] for name, entry in MODELS.items() if "paper" in entry}


def spread_tables():
    """Those of Tables 4 and 6 that the configuration has."""
    return [name for name in ("table4", "table6") if name in LANGUAGE]


def reward_of(source):
    """The reward that figures and tables show of a source: that of the first seed."""
    return f"{LANGUAGE_TOP}/tuned/{source}/prt_0/{LANGUAGE['seeds'][0]}"


def figure_reward(wildcards):
    """The reward of a figure of next tokens."""
    return reward_of(NEXT_TOKENS[wildcards.figure]["source"])


def decoding_pair(source, target):
    """A pair of Table 3 as the command line takes it."""
    return {
        "source": source,
        "source_folder": model_folder(source),
        "target": target,
        "target_folder": model_folder(target),
        "reward": reward_of(source),
    }


def next_token_needs(wildcards):
    """What a figure of next tokens reads."""
    item = NEXT_TOKENS[wildcards.figure]
    return [
        model_files(model_folder(item["target"])),
        f"{figure_reward(wildcards)}/manifest.json",
        *benchmark_files(item["benchmark"]),
    ]


def gpus_of_figure(wildcards):
    """GPUs of a figure of next tokens."""
    return 0 if is_pretrained_here(NEXT_TOKENS[wildcards.figure]["target"]) else 1


def decoding_models():
    """The models of Table 3."""
    return list(
        dict.fromkeys(name for pair in LANGUAGE["table3"]["pairs"] for name in pair)
    )


def decoding_needs():
    """The models and rewards of Table 3."""
    rewards = [
        f"{reward_of(source)}/manifest.json"
        for source, _ in LANGUAGE["table3"]["pairs"]
    ]
    return [
        *(model_files(model_folder(model)) for model in decoding_models()),
        *rewards,
    ]


def gpus_of_decoding():
    """GPUs of the job that measures the speed of decoding: one, where a model is not a miniature."""
    return 0 if all(map(is_pretrained_here, decoding_models())) else 1

"""The command line: one typed function per stage. Heavy imports wait inside, so that ``prt --help`` answers at once."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prt.cli_language import generate, language
from prt.errors import InputError, known
from prt.options import (
    Device,
    Downloads,
    Out,
    RecipeJson,
    allow_network,
    device_of,
    keep_threads,
    pairs_of,
    parsed,
    recipe_of,
)

app = typer.Typer(
    help="Portable Reward Tuning: train a reward once, use it on any model with the same labels.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain complaints: a frame would break their lines in a log
    pretty_exceptions_enable=False,
)
vision = typer.Typer(help="The stages of the vision pipeline.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(vision, name="vision")
app.add_typer(language, name="language")
app.command()(generate)

Spec = Annotated[str, typer.Option(help="MODEL/TAG or MODEL/CHECKPOINT of open_clip, or local-dir:FOLDER.")]
Source = Annotated[
    str, typer.Option(help="paper:NAME, miniature:NAME, folder:PATH, torchvision:CLASS or huggingface:REPOSITORY.")
]
Data = Annotated[Path, typer.Option(help="Folder of a prepared data set.")]
Head = Annotated[Path, typer.Option(help="File of a zero-shot head.")]
BackboneName = Annotated[str, typer.Option(help="The backbone's name in the tables.")]
DatasetName = Annotated[str, typer.Option(help="The data set's name in the tables.")]
ScoresOut = Annotated[Path, typer.Option(help="Folder for validation.safetensors and test.safetensors.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode images; 0: none beside this one.")]
Models = Annotated[
    list[str], typer.Option(help="NAME=SPEC, once for every network; SPEC: MODEL, MODEL/TAG or local-dir:FOLDER.")
]
Batch = Annotated[int, typer.Option(help="Images of a batch.")]
Repeats = Annotated[int, typer.Option(help="Batches that are timed, after five that are not.")]
Pairs = Annotated[list[str], typer.Option(help="SOURCE:TARGET; once for every pair.")]

# What options in JSON must hold, as JSON Schema.
NAMES = {
    "description": 'a JSON object such as {"rn50": "RN50 (OpenAI)"}',
    "type": "object",
    "additionalProperties": {"type": "string"},
}
STRINGS = {"description": "a JSON list of strings", "type": "array", "items": {"type": "string"}}
RECIPE = {"description": 'a JSON object such as {"steps": 500}', "type": "object"}
REGIMES = {
    "description": 'a JSON object such as {"16": {}, "full": {"steps": 500}}',
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"pattern": "^(full|[1-9][0-9]*)$"},
    "additionalProperties": RECIPE,
}
SELECTION = {
    "description": 'a JSON object such as {"dataset": "digits", "targets": ["rn12"]}',
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "array"], "items": {"type": ["string", "number"]}},
}
PANELS = {
    "description": 'a JSON list of one or more {"source": "NAME", "targets": ["NAME"]}',
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["source", "targets"],
        "properties": {"source": {"type": "string"}, "targets": STRINGS},
    },
}


@vision.command()
def pretrain(
    architecture: Annotated[str, typer.Option(help="Name in prt.miniature.pretrain.ARCHITECTURES.")],
    corpus: Annotated[str, typer.Option(help="Name in prt.miniature.glyphs.CORPORA.")],
    out: Out,
    checkpoint: Annotated[Path, typer.Option(help="File to resume from.")],
    recipe: RecipeJson = "{}",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Pretrain a small CLIP of the demo on glyphs."""
    keep_threads()
    from prt.miniature.pretrain import pretrain

    pretrain(architecture, corpus, recipe_of(parsed(recipe, "--recipe", RECIPE)), seed, out, checkpoint)


@vision.command()
def fetch(source: Source, downloads: Downloads, out: Annotated[Path, typer.Option(help="Receipt to write.")]) -> None:
    """Download what a data set's source needs."""
    allow_network(True)
    from prt.vision.fetch import fetch

    fetch(source, downloads, out)


@vision.command()
def fetch_backbone(spec: Spec, out: Annotated[Path, typer.Option(help="Folder for local-dir: to write.")]) -> None:
    """Download the weights of a backbone, and write them as a folder that local-dir: loads."""
    allow_network(True)
    from prt.vision.backbones import fetch_backbone

    fetch_backbone(spec, out)


@vision.command()
def prepare(
    source: Source,
    out: Out,
    downloads: Downloads = Path("downloads"),
    classes: Annotated[str, typer.Option(help="Class names as a JSON list; empty: the source's own.")] = "[]",
    templates: Annotated[str, typer.Option(help="Prompts as a JSON list, with {} for the class.")] = "[]",
    validation: Annotated[float, typer.Option(help="Share of the training images held out.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share held out where the source has no test split.")] = 0.2,
) -> None:
    """Make a data set, of what was fetched: three splits and a manifest."""
    allow_network(False)
    for option, share in (("--validation", validation), ("--test", test)):
        if not 0 < share < 1:
            raise InputError(f"{option} is {share}, but a share of images lies between 0 and 1, as 0.1 does.")
    from prt.vision.datasets import prepare

    prepare(
        source,
        out,
        root=downloads,
        classes=parsed(classes, "--classes", STRINGS),
        templates=parsed(templates, "--templates", STRINGS),
        validation=validation,
        test=test,
    )


@vision.command()
def head(spec: Spec, data: Data, out: Out, device: Device = "auto") -> None:
    """Make the zero-shot head of a backbone for a data set's class names and prompts."""
    keep_threads()
    from prt.vision.backbones import load_backbone
    from prt.vision.datasets import read_manifest
    from prt.vision.head import make_head

    manifest = read_manifest(data)
    loaded = load_backbone(spec)
    loaded.clip.to(device_of(device))
    make_head(loaded, manifest.classes, manifest.templates, out)


@vision.command()
def score(
    spec: Spec,
    backbone: BackboneName,
    dataset: DatasetName,
    data: Data,
    head: Head,
    out: ScoresOut,
    recipe: RecipeJson = "{}",
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Score a pretrained backbone on the validation and test splits."""
    keep_threads()
    from prt.vision.datasets import read_manifest
    from prt.vision.tune import Tuner

    how = recipe_of(parsed(recipe, "--recipe", RECIPE))
    tuner = Tuner(spec, head, read_manifest(data), device_of(device), workers)
    for split in ("validation", "test"):
        facts = {"backbone": backbone, "dataset": dataset, "method": "pretrained", "kind": "log_probs"}
        tuner.scores(tuner.reference(split, how), split, **facts).save(out / f"{split}.safetensors")


@vision.command()
def zero_shot(
    spec: Spec,
    backbone: BackboneName,
    dataset: DatasetName,
    data: Data,
    head_file: Annotated[Path, typer.Option("--head", help="Zero-shot head to write.")],
    out: ScoresOut,
    recipe: RecipeJson = "{}",
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Head and score in one process, whose imports take longer than a small head."""
    head(spec, data, head_file, device)
    score(spec, backbone, dataset, data, head_file, out, recipe, workers, device)


@vision.command()
def score_rewards(
    runs: Annotated[list[Path], typer.Argument(help="Folders of tuned rewards, as …/SHOTS/SEED.")],
    dataset: DatasetName,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for SHOTS/SEED/validation.safetensors and test.safetensors.")],
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Score rewards on a data set that they were not tuned on; it has the same labels."""
    keep_threads()
    from prt.vision.datasets import read_manifest
    from prt.vision.predict import score_reward

    manifest, on = read_manifest(data), device_of(device)
    for run in runs:
        place = out / run.parent.name / run.name
        score_reward(run, dataset=dataset, data=manifest, out=place, device=on, workers=workers)


@vision.command()
def tune(
    spec: Spec,
    backbone: BackboneName,
    dataset: DatasetName,
    data: Data,
    head: Head,
    method: Annotated[str, typer.Option(help="ft (fine-tune) or prt (tune a reward).")],
    regimes: Annotated[str, typer.Option(help="JSON: number of shots ('full': all images) → recipe.")],
    seed: Annotated[list[int], typer.Option(min=0, help="Once for every run.")],
    out: Annotated[Path, typer.Option(help="Folder for SHOTS/SEED/.")],
    checkpoints: Annotated[Path, typer.Option(help="Folder to resume from.")],
    alpha: Annotated[float, typer.Option(help="Weight of entropy maximisation (eq. 12), for prt.")] = 0.0,
    every: Annotated[int, typer.Option(min=0, help="Iterations between evaluations of the curve; 0: none.")] = 0,
    initial: Annotated[Path | None, typer.Option(help="Folder whose SHOTS/SEED are tuned further.")] = None,
    workers: Workers = 0,
    device: Device = "auto",
) -> None:
    """Fine-tune a backbone or tune a reward, and score the result."""
    keep_threads()
    from prt.vision.datasets import read_manifest
    from prt.vision.tune import tune

    recipes = {shots: recipe_of(recipe) for shots, recipe in parsed(regimes, "--regimes", REGIMES).items()}
    tune(
        spec,
        backbone=backbone,
        dataset=dataset,
        data=read_manifest(data),
        head=head,
        method=method,
        alpha=alpha,
        regimes=recipes,
        seeds=seed,
        out=out,
        checkpoints=checkpoints,
        device=device_of(device),
        workers=workers,
        every=every,
        initial=initial,
    )


@vision.command()
def benchmark_training(
    model: Models,
    out: Out,
    batch: Batch = 128,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    repeats: Repeats = 50,
    device: Device = "auto",
) -> None:
    """Time and memory of an iteration of fine-tuning and reward tuning (Table 1); the weights are random."""
    keep_threads()
    from prt.tables import write_table
    from prt.vision.speed import training

    table = training(_models(model), batch, device_of(device), precision, repeats)
    write_table(out, table, digits=6)


@vision.command()
def benchmark_inference(
    model: Models,
    pair: Pairs,
    out: Out,
    batch: Batch = 128,
    repeats: Repeats = 50,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Measure torch.compile, too.")] = True,
    device: Device = "auto",
) -> None:
    """Time and memory of a batch through a target alone, EFT and PRT (Table 2); the weights are random."""
    keep_threads()
    from prt.tables import write_table
    from prt.vision.speed import inference

    table = inference(_models(model), pairs_of(pair), batch, device_of(device), repeats, compiled)
    write_table(out, table, digits=6)


@app.command()
def transfer(
    scores: Annotated[list[Path], typer.Argument(help="Score files of one data set and split.")],
    pair: Pairs,
    out: Annotated[Path, typer.Option(help="Folder for transfer, summary, comparison and theory .csv.")],
    strength: Annotated[list[float], typer.Option(help="1/λ; once for every strength.")] = [1.0],  # noqa: B006
) -> None:
    """Compute all cells of the transfer tables from cached scores."""
    from prt.tables import write_table
    from prt.transfer import transfer

    pairs = pairs_of(pair)
    for s in strength:
        if not math.isfinite(s):
            raise InputError(f"--strength is {s}, but must be a finite number.")
    names = ("transfer", "summary", "comparison", "theory")
    for name, table in zip(names, transfer(scores, pairs, strength), strict=True):
        write_table(out / f"{name}.csv", table)


@app.command()
def noise(
    pretrained: Annotated[list[Path], typer.Option(help="Score file of a target, clean or noisy; once for each.")],
    untuned: Annotated[list[Path], typer.Option(help="Score file of the reward tuned on clean images; the same.")],
    tuned: Annotated[list[Path], typer.Option(help="Score file of the reward tuned further on noise; the same.")],
    out: Out,
) -> None:
    """Compute Table 5 from cached scores."""
    from prt.noise import noise_table
    from prt.tables import write_table

    table = noise_table(pretrained, untuned, tuned)
    write_table(out, table)


@app.command()
def ledger(
    scores: Annotated[list[Path], typer.Argument(help="Score files of pretrained backbones on a test split.")],
    published: Annotated[Path, typer.Option(help="Table of published zero-shot accuracies.")],
    out: Out,
    tolerance: Annotated[float, typer.Option(min=0, help="Greatest difference that agrees, as a share of 1.")] = 0.02,
) -> None:
    """Compare zero-shot accuracies with published ones; what differs is told, and does not fail."""
    from prt import published as numbers
    from prt.tables import write_table

    table = numbers.ledger(scores, published, tolerance)
    write_table(out, table)
    if told := numbers.differences(table):
        print(f"prt: warning: {told}.", file=sys.stderr)


@app.command()
def approve(table: Annotated[Path, typer.Argument(help="A ledger.")]) -> None:
    """Fail if zero-shot accuracies in a ledger differ from the published ones."""
    from prt.published import differences
    from prt.tables import read_table

    told = differences(read_table(table, {}, ["dataset", "backbone", "ours", "published", "tolerance", "verdict"]))
    if told:
        raise InputError(f"{told}; 'beyond: warn' in the configuration's 'ledger' lets the run go on.")


@app.command()
def beside(
    paper: Annotated[Path, typer.Option(help="The paper's numbers.")],
    costs: Annotated[list[Path], typer.Option(help="Our Table 1 or 2; once for each.")],
    noise: Annotated[Path, typer.Option(help="Our Table 5.")],
    theory: Annotated[Path, typer.Option(help="Our Table 7.")],
    clean: Annotated[str, typer.Option(help="Table 5's data set without noise.")],
    names: Annotated[str, typer.Option(help="JSON: our backbones' names → the paper's.")],
    out: Out,
) -> None:
    """Put our Tables 1, 2, 5 and 7 beside the paper's numbers."""
    from prt import published
    from prt.tables import write_table

    table = published.beside(paper, parsed(names, "--names", NAMES), costs, noise, theory, clean)
    write_table(out, table)


@app.command()
def collect(
    tables: Annotated[list[Path], typer.Argument(help="CSV files with the same columns.")],
    out: Out,
) -> None:
    """Put tidy tables under each other."""
    import pandas as pd

    from prt.tables import read_csv, write_table

    write_table(out, pd.concat([read_csv(t, str) for t in tables]))


@app.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(help="Folders of tuned rewards.")],
    out: Out,
) -> None:
    """Collect the curves of rewards into one tidy table (Figure 6a)."""
    import pandas as pd

    from prt.reward import read_manifest
    from prt.tables import read_csv, write_table

    tables = []
    for run in runs:
        manifest = read_manifest(run)
        wide = read_csv(run / "curve.csv").assign(
            dataset=manifest["dataset"]["name"],
            source=manifest["backbone"]["name"],
            **{key: manifest[key] for key in ("shots", "alpha", "seed")},
            metric="top1",
        )
        tables.append(wide.melt([c for c in wide if c not in ("prt", "reward")], var_name="method"))
    columns = ["dataset", "shots", "source", "alpha", "seed", "iteration", "method", "metric", "value"]
    write_table(out, pd.concat(tables)[columns])


# Figures: module and function of each, and the columns that it needs.
PLACE = ["dataset", "shots", "source"]
RESULT = ["metric", "value", "low", "high"]
SUMMARY = [*PLACE, "target", "method", "alpha", "strength", *RESULT]
LANGUAGE = ["dataset", "source", "target", "method", "alpha", "lora", "strength", "headline", *RESULT]
COSTS = ["source", "target", "method", "variant", "precision", "quantity", "value", "std", "device", "torch"]
DRAWINGS = {
    "transfer-bars": ("transfer_bars", "draw", SUMMARY),
    "language-bars": ("transfer_bars", "draw", LANGUAGE),
    "entropy-curves": ("entropy", "draw_curves", [*PLACE, "alpha", "iteration", "method", "metric", "value"]),
    "entropy-transfer": ("entropy", "draw_transfer", SUMMARY),
    "language-entropy": ("entropy", "draw_transfer", LANGUAGE),
    "seeds-table": ("seeds_table", "draw", [*LANGUAGE, "std", "seeds"]),
    "lora-table": ("seeds_table", "draw_lora", [*LANGUAGE, "std", "seeds"]),
    "strength": ("strength", "draw", SUMMARY),
    "theory-table": ("theory_table", "draw", [*PLACE, "target", "alpha", "seed", "epsilon", "C", "bound"]),
    "costs-table": ("costs_table", "draw", ["table", *COSTS, "batch", "unit", "peak_from"]),
    "decoding-table": ("decoding_table", "draw", [*COSTS, "weights", "prompt_tokens", "new_tokens", "repeats"]),
    "noise-table": ("noise_table", "draw", ["dataset", "source", "target", "reward", *RESULT]),
    "ledger": (
        "ledger",
        "draw",
        ["dataset", "backbone", "metric", "ours", "low", "high", "published", "tolerance", "verdict"],
    ),
    "beside": (
        "beside",
        "draw",
        [
            *("item", "source", "target", "method", "quantity", "paper", "ours"),
            *("our_source", "our_target", "unit", "precision", "device"),
        ],
    ),
}


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help=f"{', '.join(DRAWINGS)}.")],
    table: Annotated[list[Path], typer.Option(help="Tidy table to draw; several, under each other, if repeated.")],
    out: Annotated[Path, typer.Option(help="Name of the pictures and their CSV, without its ending.")],
    select: Annotated[str, typer.Option(help="JSON: dataset, shots, source, targets, alphas to keep.")] = "{}",
    panels: Annotated[str, typer.Option(help="JSON list of {source, targets}, for bars.")] = "[]",
    comparison: Annotated[Path | None, typer.Option(help="Table of differences, for seeds-table, lora-table.")] = None,
    published: Annotated[
        Path | None,
        typer.Option(help="The paper's numbers, for those that show them."),
    ] = None,
    names: Annotated[str, typer.Option(help="JSON: our models' names → the paper's, with --published.")] = "{}",
) -> None:
    """Draw a figure as PDF and PNG, with the rows it shows as CSV."""
    import importlib
    import inspect

    known(name, DRAWINGS, "figure")
    import pandas as pd

    from prt.tables import read_csv, read_table

    module, function, columns = DRAWINGS[name]
    draw = getattr(importlib.import_module(f"prt.figures.{module}"), function)
    more: dict[str, Any] = {}
    if name.endswith("-bars"):
        more["panels"] = parsed(panels, "--panels", PANELS)
    if published is not None:
        more["published"] = read_csv(published)
    if names != "{}":
        more["names"] = parsed(names, "--names", NAMES)
    if comparison is not None:
        more["comparison"] = read_csv(comparison)
    taken = inspect.signature(draw).parameters
    for option in more:
        if option not in taken:
            raise InputError(f"the figure {name} takes no --{option}; leave it out.")
    if "comparison" in taken and comparison is None:
        raise InputError(f"the figure {name} needs --comparison, the table of differences that belongs to the summary.")
    chosen = parsed(select, "--select", SELECTION)
    draw(pd.concat([read_table(t, chosen, columns) for t in table], ignore_index=True), stem=out, **more)


@app.command()
def next_tokens_figure(
    content: Annotated[Path, typer.Argument(help="What `prt language next-tokens` wrote.")],
    out: Annotated[Path, typer.Option(help="Name of the pictures and their CSV, without its ending.")],
) -> None:
    """Draw the next tokens with and without a reward (Figures 5, 8 and 9)."""
    from prt.atomic import read_json
    from prt.figures.next_tokens import draw

    draw(read_json(content, "table of next tokens"), out)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    reward: Annotated[Path, typer.Option(help="Folder of a tuned reward.")],
    target: Annotated[str, typer.Option(help="MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER.")],
    head: Annotated[
        Path | None, typer.Option(help="The target's zero-shot head; default: made of the reward's labels.")
    ] = None,
    strength: Annotated[float, typer.Option(help="1/λ; the paper's is 1.")] = 1.0,
    without: Annotated[bool, typer.Option(help="Print the target without the reward, too.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Predict with a reward put on a target."""
    keep_threads()
    from prt.vision.predict import load_reward

    model = load_reward(reward, device_of(device)).on(target, head, strength)
    views = dict(zip(("with_reward", "without_reward"), model.both(images), strict=True))
    if not without:
        del views["without_reward"]
    result: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        entry: dict[str, Any] = {"image": str(image)}
        for view, probabilities in views.items():
            best = probabilities[i].topk(min(top, len(model.reward.classes)))
            entry[view] = [
                {"label": model.reward.classes[label], "probability": p}
                for p, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        result.append(entry)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for entry in result:
        print(entry["image"])
        for view in views:
            line = "  ".join(f"{x['label']} {x['probability']:.3f}" for x in entry[view])
            print(f"  {view.replace('_', ' '):15}{line}")


def _models(texts: list[str]) -> dict[str, str]:
    """Name → architecture of every NAME=SPEC."""
    models: dict[str, str] = {}
    for text in texts:
        name, _, spec = text.partition("=")
        if not (name and spec):
            raise InputError(f"--model is '{text}', but must be NAME=SPEC, as in RN50=RN50-quickgelu.")
        if name in models:
            raise InputError(f"--model names '{name}' twice; give each network a name of its own.")
        models[name] = spec
    return models


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 1."""
    try:
        app()
    except InputError as error:
        print(f"prt: error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""The commands of the language half. Heavy imports wait inside, as in prt.cli."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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

if TYPE_CHECKING:
    import torch

language = typer.Typer(help="The stages of the language pipeline.", no_args_is_help=True, rich_markup_mode=None)

Spec = Annotated[str, typer.Option(help="A folder in transformers' format, or OWNER/NAME on the Hugging Face hub.")]
Name = Annotated[str, typer.Option(help="The model's name in the tables.")]
RewardFolder = Annotated[Path, typer.Option(help="Folder of a tuned reward.")]
Base = Annotated[str | None, typer.Option(help="The model that a LoRA reward was tuned on, where it has moved.")]
BenchmarkName = Annotated[str, typer.Option(help="Name of a benchmark.")]
Settings = Annotated[
    str, typer.Option(help="JSON: task, data, shots, chat_template, limit, batch, generation, headline.")
]
Receipt = Annotated[Path, typer.Option(help="Receipt to write.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16.")]

# What options in JSON must hold, as JSON Schema.
CELL = {
    "description": 'a JSON object such as {"name": "prt", "method": "prt", "tuned": "FOLDER", "seed": 0}',
    "type": "object",
    "required": ["name", "method"],
    "properties": {
        **{key: {"type": "string"} for key in ("name", "method")},
        **{key: {"type": ["string", "null"]} for key in ("source", "tuned", "pretrained", "instruct")},
        "alpha": {"type": ["number", "null"]},
        "lora": {"type": "boolean"},
        "seed": {"type": ["integer", "null"]},
    },
}
PAIR = {
    "description": 'a JSON object such as {"source": "s", "source_folder": "models/s", "target": "m", …}',
    "type": "object",
    "required": ["source", "source_folder", "target", "target_folder"],
    "properties": {key: {"type": "string"} for key in ("source", "source_folder", "target", "target_folder", "reward")},
    "additionalProperties": False,
}
OBJECT = {"description": 'a JSON object such as {"shots": 0}', "type": "object"}


@language.command()
def write_text(out: Annotated[Path, typer.Option(help="Folder for chats/ and benchmarks/.")]) -> None:
    """Write the chats and the benchmarks of the demo."""
    from prt.miniature.tasks import write_chats, write_instructions, write_problems

    write_chats(out / "chats" / "train.jsonl")
    write_problems(out / "benchmarks" / "problems")
    write_instructions(out / "benchmarks" / "instructions")


@language.command()
def pretrain(
    size: Annotated[str, typer.Option(help="Name in prt.miniature.pretrain_text.SIZES.")],
    corpus: Annotated[str, typer.Option(help="Name in prt.miniature.text.CORPORA.")],
    out: Out,
    checkpoint: Annotated[Path, typer.Option(help="File to resume from.")],
    recipe: Annotated[str, typer.Option(help="Training recipe as JSON.")] = "{}",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Pretrain a small language model of the demo on generated text."""
    keep_threads()
    from prt.miniature.pretrain_text import pretrain

    pretrain(size, corpus, recipe_of(parsed(recipe, "--recipe", OBJECT)), seed, out, checkpoint)


@language.command()
def fetch_model(
    spec: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face hub.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Download a model of the hub into a folder."""
    allow_network(True)
    from prt.language.models import fetch

    fetch(spec, out)


@language.command()
def fetch_chats(
    source: Annotated[str, typer.Option(help="huggingface:OWNER/NAME.")], downloads: Downloads, out: Receipt
) -> None:
    """Download the chats that models are tuned on."""
    allow_network(True)
    from prt.language.chats import fetch

    fetch(source, downloads, out)


@language.command()
def fetch_benchmark(benchmark: BenchmarkName, downloads: Downloads, out: Receipt, settings: Settings = "{}") -> None:
    """Download the data of a benchmark."""
    allow_network(True)
    from prt.atomic import write_json
    from prt.language.tasks import fetch, origin

    folder = fetch(benchmark, parsed(settings, "--settings", OBJECT), downloads)
    write_json(out, origin(folder) if folder else {})


@language.command()
def prepare(
    source: Annotated[str, typer.Option(help="jsonl:FILE, huggingface:OWNER/NAME or huggingface:FOLDER.")],
    out: Out,
    downloads: Downloads = Path("downloads"),
    validation: Annotated[float, typer.Option(help="Share of the conversations held out.")] = 0.02,
) -> None:
    """Check the chats, and split them into training and validation."""
    allow_network(False)
    from prt.language.chats import prepare

    prepare(source, out, downloads=downloads, validation=validation)


@language.command()
def tune(
    spec: Spec,
    name: Name,
    data: Annotated[Path, typer.Option(help="Folder of prepared chats.")],
    dataset: Annotated[str, typer.Option(help="The chats' name in the tables.")],
    method: Annotated[str, typer.Option(help="ft (fine-tune) or prt (tune a reward).")],
    seed: Annotated[list[int], typer.Option(min=0, help="Once for every run.")],
    out: Annotated[Path, typer.Option(help="Folder for SEED/.")],
    checkpoints: Annotated[Path, typer.Option(help="Folder to resume from.")],
    recipe: RecipeJson = "{}",
    alpha: Annotated[float, typer.Option(help="Weight of entropy maximisation (eq. 12), for prt.")] = 0.0,
    lora: Annotated[str, typer.Option(help="JSON: rank, alpha, targets of an adapter; empty: tune all weights.")] = "",
    template: Annotated[str, typer.Option(help="Chat template: tulu, or own (the tokenizer's).")] = "tulu",
    device: Device = "auto",
) -> None:
    """Fine-tune a language model, or tune a reward; on several GPUs under torchrun."""
    keep_threads()
    from prt.language.chats import read_manifest
    from prt.language.tune import Lora, Recipe, tune

    how = parsed(recipe, "--recipe", OBJECT)
    adapter = parsed(lora, "--lora", OBJECT) if lora else None
    for given, kind, what in ((how, Recipe, "key of a tuning recipe"), (adapter or {}, Lora, "key of an adapter")):
        for key in given:
            known(key, [f.name for f in fields(kind)], what)
    tune(
        spec,
        name=name,
        dataset=dataset,
        data=read_manifest(data),
        method=method,
        recipe=Recipe(**how),
        seeds=seed,
        out=out,
        checkpoints=checkpoints,
        device=device_of(device),
        alpha=alpha,
        lora=None if adapter is None else Lora(**adapter),
        template=template,
    )


@language.command()
def evaluate(
    target: Spec,
    name: Name,
    benchmark: BenchmarkName,
    cell: Annotated[list[str], typer.Option(help="JSON: what is put on the target; once for every measurement.")],
    out: Annotated[Path, typer.Option(help="Folder for CELL/result.json and samples.jsonl.")],
    settings: Settings = "{}",
    template: Annotated[
        str, typer.Option(help="Template for models without one, where the benchmark asks for it: tulu or own.")
    ] = "own",
    precision: Precision = "bf16",
    unsafe_code: Annotated[
        bool, typer.Option("--unsafe-code", help="Let benchmarks run, in a sandbox, code that a model wrote.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Measure a target on a benchmark: alone, with a reward on it, with EFT, …"""
    keep_threads()
    allow_network(False)
    from prt.language.cells import Cell, Models
    from prt.language.evaluate import check, evaluate

    cells = []
    for text in cell:
        content = parsed(text, "--cell", CELL)
        for key in content:
            known(key, [f.name for f in fields(Cell)], "key of a cell")
        cells.append(Cell(**content))
    chosen = parsed(settings, "--settings", OBJECT)
    check(benchmark, chosen, unsafe_code)  # before a large model is loaded
    models = Models(target, name, _dtype(precision), device_of(device), template)
    for each in cells:
        evaluate(
            models.of(each), benchmark, chosen, cell=each.facts(name), out=out / each.name, unsafe_code=unsafe_code
        )


@language.command()
def transfer(
    results: Annotated[list[Path], typer.Argument(help="Folders that hold CELL/result.json.")],
    pair: Annotated[list[str], typer.Option(help="SOURCE:TARGET; once for every pair.")],
    out: Annotated[Path, typer.Option(help="Folder for transfer, summary and comparison .csv.")],
) -> None:
    """Make the transfer tables of what was measured."""
    from prt.language.transfer import transfer
    from prt.tables import write_table

    files = []
    for folder in results:
        found = sorted(folder.glob("*/result.json"))
        if not found:
            raise InputError(f"there are no results in {folder} (CELL/result.json); evaluate the target again.")
        files += found
    for name, table in zip(("transfer", "summary", "comparison"), transfer(files, pairs_of(pair)), strict=True):
        write_table(out / f"{name}.csv", table)


@language.command()
def next_tokens(
    target: Spec,
    name: Name,
    reward: RewardFolder,
    benchmark: BenchmarkName,
    example: Annotated[int, typer.Option(min=0, help="Number of the question that is answered.")],
    out: Out,
    settings: Settings = "{}",
    base: Base = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    precision: Precision = "bf16",
    device: Device = "auto",
) -> None:
    """Find the next tokens with and without a reward, in the answer to a benchmark's question (Figures 5, 8 and 9)."""
    keep_threads()
    allow_network(False)
    from prt.atomic import write_json
    from prt.language.decode import load_reward, next_tokens
    from prt.language.evaluate import question

    chosen = parsed(settings, "--settings", OBJECT)
    prompt, stop = question(benchmark, chosen, example)
    rewarded = load_reward(reward, device_of(device), _dtype(precision), base).on(target, name=name)
    chat = bool(chosen.get("chat_template"))
    write_json(out, next_tokens(rewarded, prompt, max_new_tokens=max_new_tokens, stop=stop, chat=chat))


@language.command()
def benchmark_decoding(
    pair: Annotated[
        list[str],
        typer.Option(
            help="JSON: source, source_folder, target, target_folder, reward (a folder); once for every pair."
        ),
    ],
    out: Out,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens that are decoded.")] = 256,
    repeats: Annotated[int, typer.Option(help="Runs that are timed, after one that is not.")] = 5,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Measure compiled steps, too.")] = True,
    precision: Precision = "bf16",
    device: Device = "auto",
) -> None:
    """Time of a decoded token with the target alone, EFT, PRT and speculative PRT (Table 3)."""
    keep_threads()
    allow_network(False)
    from prt.language.decoding_speed import Pair, decoding
    from prt.tables import write_table

    pairs = [Pair(**parsed(text, "--pair", PAIR)) for text in pair]
    table = decoding(pairs, prompt_tokens, new_tokens, repeats, precision, device_of(device), compiled=compiled)
    write_table(out, table, digits=6)


def generate(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    reward: RewardFolder,
    target: Spec,
    strength: Annotated[float, typer.Option(help="1/λ; the paper's is 1.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    stop: Annotated[list[str], typer.Option(help="Text at which it ends; may be repeated.")] = [],  # noqa: B006
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a user's message, in the reward's chat template.")
    ] = False,
    top: Annotated[
        bool, typer.Option("--top", help="Print the likeliest next tokens with and without the reward, too.")
    ] = False,
    draft: Annotated[
        str | None, typer.Option(help="The model that the reward was tuned on: it drafts, the target verifies.")
    ] = None,
    base: Base = None,
    precision: Precision = "fp32",
    device: Device = "auto",
) -> None:
    """Generate text with a reward put on a target; it is printed as it comes."""
    keep_threads()
    import torch
    from transformers import TextStreamer

    from prt.language.decode import explained, load_reward, told
    from prt.language.models import load

    on, dtype = device_of(device), _dtype(precision)
    rewarded = load_reward(reward, on, dtype, base).on(target, strength)
    torch.manual_seed(seed)
    tokenizer: Any = rewarded.target.tokenizer
    ids = rewarded.encode(prompt, max_new_tokens, chat=chat)
    text = rewarded.continued(
        ids,
        max_new_tokens,
        temperature,
        stop,
        None if draft is None else load(draft, dtype, on),
        TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )
    if top:
        print(told(explained(rewarded, text, ids.shape[1])))


def _dtype(precision: str) -> "torch.dtype":
    from prt.language.models import DTYPES

    known(precision, DTYPES, "precision")
    return DTYPES[precision]

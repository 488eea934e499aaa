"""The commands of the language half."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prt.errors import InputError, known
from prt.options import allow_network, device_of, keep_threads, pairs_of, parsed, recipe_of

if TYPE_CHECKING:
    import torch

    from prt.language.models import Causal

language = typer.Typer(help="The stages of the language pipeline.", no_args_is_help=True, rich_markup_mode=None)

Out = Annotated[Path, typer.Option(help="What to write.")]
Model = Annotated[str, typer.Option(help="A folder in transformers' format, or OWNER/NAME on the Hugging Face hub.")]
Name = Annotated[str, typer.Option(help="The model's name in the tables.")]
Reward = Annotated[Path, typer.Option(help="Folder of a tuned reward.")]
Base = Annotated[str | None, typer.Option(help="The model that a LoRA reward was tuned on, where it has moved.")]
Benchmark = Annotated[str, typer.Option(help="Name of a benchmark.")]
Settings = Annotated[str, typer.Option(help="JSON: task, data, shots, chat_template, limit, batch.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; auto: a GPU where there is one.")]

CELL = {
    "description": 'a JSON object such as {"name": "prt", "method": "prt", "tuned": "FOLDER", "seed": 0}',
    "type": "object",
    "required": ["name", "method"],
}
OBJECT = {"description": 'a JSON object such as {"shots": 0}', "type": "object"}


@language.command()
def write_text(out: Annotated[Path, typer.Option(help="Folder for chats/ and benchmarks/.")]) -> None:
    """Write the chats and the benchmarks of the embedded default."""
    from prt.embedded.tasks import write_chats, write_instructions, write_problems

    write_chats(out / "chats" / "train.jsonl")
    write_problems(out / "benchmarks" / "problems")
    write_instructions(out / "benchmarks" / "instructions")


@language.command()
def pretrain(
    size: Annotated[str, typer.Option(help="Name in prt.embedded.pretrain_text.SIZES.")],
    corpus: Annotated[str, typer.Option(help="Name in prt.embedded.text.CORPORA.")],
    out: Out,
    checkpoint: Annotated[Path, typer.Option(help="File to resume from.")],
    recipe: Annotated[str, typer.Option(help="Training recipe as JSON.")] = "{}",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Pretrain a small language model of the embedded default on generated text."""
    keep_threads()
    from prt.embedded.pretrain_text import pretrain

    pretrain(size, corpus, recipe_of(parsed(recipe, "--recipe", OBJECT)), seed, out, checkpoint)


@language.command()
def fetch_model(spec: Annotated[str, typer.Option(help="OWNER/NAME on the Hugging Face hub.")], out: Out) -> None:
    """Download a model of the hub into a folder."""
    allow_network(True)
    from prt.language.models import fetch

    fetch(spec, out)

"""Advice: which way of using a reward on a target is best, by a few labelled examples."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prt.cli.options import Device, begin, device_of, dtype_of
from prt.errors import InputError

if TYPE_CHECKING:
    from prt.advice import Values


def advise(
    reward: Annotated[Path, typer.Option(help="Folder of a tuned reward.")],
    target: Annotated[
        str,
        typer.Option(
            help="Of images: MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER; of language: a folder, or OWNER/NAME."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Labelled images (folders called as the labels), chats (JSON Lines with `messages`), or a prepared "
            "data set (its validation). Not what was tuned on."
        ),
    ],
    finetuned: Annotated[
        Path | None,
        typer.Option(help="Folder of a run of ft of the same source, to compare PoE, EFT and that model kept, too."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model that was tuned, where it has moved.")] = None,
    precision: Annotated[str | None, typer.Option(help="Of language models: fp32 (default) or bf16.")] = None,
    device: Device = "auto",
) -> None:
    """Say which way of using a reward on a target is best, how surely, and how many more examples would tell.

    Of images by accuracy; of language by the loss of chats, in nats per token of the assistant. A lower loss on chats
    is not the same as better answers on a benchmark, which `prt evaluate` measures.
    """
    from prt import advice
    from prt.reward import kind_of

    if kind_of(reward) == "language":
        ways, measure = _of_chats(reward, target, data, finetuned, base, precision or "fp32", device), advice.LOSS
    elif precision is not None:
        raise InputError("--precision is of language models, but the reward is of images; leave it out.")
    else:
        ways, measure = _of_images(reward, target, data, finetuned, base, device), advice.RIGHT
    print(advice.as_text(advice.advise(ways, measure)))


def _of_images(
    reward: Path, target: str, data: Path, finetuned: Path | None, base: str | None, device: str
) -> "dict[str, Values]":
    from prt.vision.advise import examples, ways
    from prt.vision.predict import load_reward

    begin()
    on = device_of(device)
    loaded = load_reward(reward, on)
    read, labels = examples(data, loaded.classes)
    other = None if finetuned is None else load_reward(finetuned, on, "poe")
    return ways(target, loaded, other, read, labels, base)


def _of_chats(
    reward: Path, target: str, data: Path, finetuned: Path | None, base: str | None, precision: str, device: str
) -> "dict[str, Values]":
    from prt.language.advise import examples, ways
    from prt.language.decode import load_reward

    begin()
    on, dtype = device_of(device), dtype_of(precision)
    chats = examples(data)
    loaded = load_reward(reward, on, dtype, base)
    other = None if finetuned is None else load_reward(finetuned, on, dtype, base, "poe")
    return ways(target, loaded, other, chats, base)

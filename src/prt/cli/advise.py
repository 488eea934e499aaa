"""Advice: which way of using a reward on a target is best, by a few labelled examples."""

from pathlib import Path
from typing import Annotated

import typer

from prt.cli.options import Device, begin, device_of


def advise(
    reward: Annotated[Path, typer.Option(help="Folder of a tuned reward.")],
    target: Annotated[str, typer.Option(help="MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER.")],
    data: Annotated[
        Path,
        typer.Option(help="Labelled images: folders called as the labels, or a prepared data set (its validation)."),
    ],
    finetuned: Annotated[
        Path | None, typer.Option(help="Folder of a run of ft, to compare PoE, EFT and that model kept, too.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The backbone that was tuned, where it has moved.")] = None,
    device: Device = "auto",
) -> None:
    """Say which way of using an image reward on a target is best, how surely, and how many more images would tell."""
    from prt import advice
    from prt.vision.advise import examples, ways
    from prt.vision.predict import load_reward

    begin()
    on = device_of(device)
    loaded = load_reward(reward, on)
    read, labels = examples(data, loaded.classes)
    other = None if finetuned is None else load_reward(finetuned, on, "eft", base)
    print(advice.as_text(advice.advise(ways(target, loaded, other, read, labels, base)), len(labels)))

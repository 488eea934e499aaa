"""Rewards that are carried elsewhere: as a folder with their target in it, and to the Hugging Face hub and back."""

from pathlib import Path
from typing import Annotated

import typer

from prt.cli.options import Device, begin, device_of, dtype_of
from prt.cli.use import Bases, MethodName, Precision, Rewards, Spec, Strengths, with_bases
from prt.errors import InputError
from prt.hub import allow_network

Repository = Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")]


def compose(
    reward: Rewards,
    target: Spec,
    out: Annotated[Path, typer.Option(help="Folder that is made, with copies of all models.")],
    method: MethodName = "prt",
    strength: Strengths = [],  # noqa: B006
    base: Bases = [],  # noqa: B006
    precision: Precision = "fp32",
    device: Device = "auto",
) -> None:
    """Write a target with a language reward on it as one model of transformers; README says what loads it."""
    from prt.language.decode import load_reward, put_on
    from prt.language.prompts import template_of
    from prt.language.reward import check_writable
    from prt.language.text_decode import TextRewarded

    begin()
    check_writable(out)
    on, dtype = device_of(device), dtype_of(precision)
    loaded = [load_reward(folder, on, dtype, of, method) for folder, of in with_bases(reward, base)]
    template_of([each.named for each in loaded], "take rewards that were tuned with the same one")
    rewarded = put_on(target, loaded, strength)
    if isinstance(rewarded, TextRewarded):
        raise InputError(
            f"{target} has another tokenizer than {reward[0]}, and only `prt generate` and `prt evaluate` put it on as "
            "text; take a target with the tokenizer that the reward was tuned with."
        )
    rewarded.composed.model.save_pretrained(out)
    print(f"ready: {out}")


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a reward, a run of ft, or what `prt compose` made.")],
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="If it is new, only its owner sees it.")] = False,
    measured: Annotated[
        list[Path], typer.Option(help="An experiment's transfer.csv, for the page; may be repeated.")
    ] = [],  # noqa: B006
) -> None:
    """Push a reward, of images or of language, to the Hugging Face hub, with a page made of its manifest."""
    allow_network(True)
    from prt.sharing import push

    begin()
    print(push(folder, repository, private=private, measured=measured))


def pull(
    repository: Repository,
    out: Annotated[Path, typer.Argument(help="Folder that is made.")],
) -> None:
    """Download a reward that was pushed to the Hugging Face hub."""
    allow_network(True)
    from prt.sharing import pull

    begin()
    pull(repository, out)
    print(f"ready: {out}")

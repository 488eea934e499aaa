"""Rewards that are carried elsewhere: as a folder with their target in it, and to the Hugging Face hub and back."""

from pathlib import Path
from typing import Annotated

import typer

from prt.cli.options import Device, begin, device_of, dtype_of
from prt.cli.use import Base, MethodName, Precision, RewardFolder, Spec, Strength
from prt.errors import InputError


def compose(
    reward: RewardFolder,
    target: Spec,
    out: Annotated[Path, typer.Option(help="Folder that is made, with copies of all models.")],
    method: MethodName = "prt",
    strength: Strength = 1.0,
    base: Base = None,
    precision: Precision = "fp32",
    device: Device = "auto",
) -> None:
    """Write a target with a language reward on it as one model of transformers; README says what loads it."""
    from prt.language.decode import load_reward
    from prt.language.reward import check_writable
    from prt.language.text_decode import TextRewarded

    begin()
    check_writable(out)
    rewarded = load_reward(reward, device_of(device), dtype_of(precision), base, method).on(target, strength)
    if isinstance(rewarded, TextRewarded):
        raise InputError(
            f"{target} has another tokenizer than {reward}, and only `prt generate` puts it on as text; take a target "
            "with the tokenizer that the reward was tuned with."
        )
    rewarded.composed.model.save_pretrained(out)
    print(f"ready: {out}")

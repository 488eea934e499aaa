"""The recipe and the adapter of language tuning."""

import subprocess
import sys

import pytest

from prt.errors import InputError
from prt.language.models import DTYPES
from prt.language.recipe import PRECISIONS, Lora, Recipe


def test_the_paper_s_recipe() -> None:
    """App. B.2: lr 2e-5, batch 128, 2 epochs, Adam, warm-up ratio 0.03, linear decay."""
    recipe = Recipe()
    assert (recipe.lr, recipe.batch, recipe.epochs, recipe.warmup, recipe.weight_decay) == (2e-5, 128, 2, 0.03, 0)


def test_every_precision_has_a_type() -> None:
    assert tuple(DTYPES) == PRECISIONS


def test_bad_settings() -> None:
    for options, complaint in (
        ({"batch": 0}, "'batch' of a tuning recipe is 0; it should be greater than or equal to 1"),
        ({"epochs": 1.5}, "'epochs' of a tuning recipe is 1.5"),
        ({"lr": -1}, "'lr' of a tuning recipe is -1"),
        ({"clip": 0}, "'clip' of a tuning recipe is 0; it should be greater than 0"),
        ({"warmup": 1}, "'warmup' of a tuning recipe is 1; it should be less than 1"),
        ({"packing": 1}, "'packing' of a tuning recipe is 1; it should be a valid boolean"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"epoch": 1}, "unknown key of a tuning recipe 'epoch': did you mean 'epochs'"),
    ):
        with pytest.raises(InputError, match=complaint):
            Recipe(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'rank' of an adapter is 0"):
        Lora(rank=0)
    for targets in (5, [5], []):
        with pytest.raises(InputError, match=r"'targets' of an adapter is .*; it should"):
            Lora(targets=targets)


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, prt.language.recipe; sys.exit(bool({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

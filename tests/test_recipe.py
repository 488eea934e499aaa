"""A recipe: the paper's, its schedule, and what is refused."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prt.errors import InputError
from prt.recipe import Recipe


@given(st.integers(1, 60), st.integers(0, 60))
def test_learning_rate(steps: int, warmup: int) -> None:
    recipe = Recipe(lr=2.0, steps=steps, warmup=warmup)
    rates = [recipe.learning_rate(step) for step in range(steps)]
    assert all(0 < rate <= 2 for rate in rates)
    up, down = rates[:warmup], rates[warmup:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    if warmup < steps:
        assert recipe.learning_rate(warmup) == 2
        assert recipe.learning_rate(steps) == pytest.approx(0, abs=1e-12)


def test_the_paper_s_recipe() -> None:
    """App. B.1: Adam, 1e-5, batch 128, 2000 iterations, 500 of them warm-up, cosine."""
    recipe = Recipe()
    assert (recipe.optimizer, recipe.lr, recipe.batch, recipe.steps, recipe.warmup) == ("adam", 1e-5, 128, 2000, 500)
    assert (recipe.weight_decay, recipe.clip, recipe.precision) == (0, None, "fp32")
    assert recipe.learning_rate(0) == pytest.approx(1e-5 / 500)
    assert recipe.learning_rate(1250) == pytest.approx(0.5e-5)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("optimizer", "sgd", "unknown optimizer 'sgd': choose one of: adam, adamw"),
        ("precision", "fp8", r"unknown precision 'fp8': did you mean 'fp\d+'\?"),
        ("precision", 8, "unknown precision '8': choose one of"),
        ("batch", 0, "'batch' of a training recipe is 0; it should be greater than or equal to 1"),
        ("batch", 8.0, "'batch' of a training recipe is 8.0; it should be a valid integer"),
        ("batch", True, "'batch' of a training recipe is True; it should be a valid integer"),
        ("steps", "many", "'steps' of a training recipe is 'many'; it should be a valid integer"),
        ("warmup", -1, "'warmup' of a training recipe is -1; it should be greater than or equal to 0"),
        ("lr", -1.0, "'lr' of a training recipe is -1.0; it should be greater than or equal to 0"),
        ("lr", float("nan"), "'lr' of a training recipe is nan; it should be a finite number"),
        ("lr", "1e-3", "'lr' of a training recipe is '1e-3'; it should be a valid number"),
        ("beta2", True, "'beta2' of a training recipe is True; it should be a valid number"),
        ("clip", "x", "'clip' of a training recipe is 'x'; it should be a valid number"),
        ("clip", float("inf"), "'clip' of a training recipe is inf; it should be a finite number"),
        ("augment", 1, "'augment' of a training recipe is 1; it should be a valid boolean"),
        ("step", 3, r"unknown key of a training recipe 'step': did you mean 'steps'\?"),
    ],
)
def test_bad_recipes(key: str, value: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Recipe(**{key: value})


def test_whole_numbers_are_numbers_too() -> None:
    """As they stand in a configuration; and a recipe comes back from its own content, as manifests hold it."""
    recipe = Recipe(lr=1, weight_decay=0, clip=None)
    assert Recipe(**recipe.model_dump()) == recipe
    assert list(recipe.model_dump()) == [
        *("optimizer", "lr", "batch", "steps", "warmup", "weight_decay", "beta2", "clip", "precision", "augment")
    ]


def test_a_plan_can_make_recipes_without_torch() -> None:
    subprocess.run([sys.executable, "-c", "import prt.recipe, sys; assert 'torch' not in sys.modules"], check=True)

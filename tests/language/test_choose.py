"""Strengths of language models that held-out chats choose."""

from pathlib import Path

import pytest
import torch
from helpers.recipes import but
from helpers.tuning import CPU, RECIPE, Run, bases, data, imported, run, tokens_of
from torch.nn import functional as F

from prt.errors import InputError
from prt.language.chats import IGNORED, Manifest, chat_template
from prt.language.choose import choose, loss
from prt.language.composed import compose
from prt.language.models import load
from prt.language.reward import load_tuned

__all__ = ["bases", "data", "imported", "run"]  # fixtures


def test_the_loss_is_that_of_the_validation_chats(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    causal = load(str(bases["llama"]), torch.float32, CPU)
    causal.tokenizer.chat_template = chat_template(causal.tokenizer, "tulu", "llama")
    batch = tokens_of(data, "validation", tmp_path)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = causal.model(**batch).logits[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED).item()
    assert loss(causal, data, 64) == pytest.approx(expected, rel=1e-5)
    assert loss(causal, data, 32) != pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="has a token of the assistant; give longer ones"):
        loss(causal, data, 2)


def test_the_best_of_the_strengths(run: Run, bases: dict[str, Path], data: Manifest) -> None:
    """A reward that was tuned helps, one that says the opposite is not used; of equal ones the nearest to 1."""
    reward = load_tuned(run("run", recipe=but(RECIPE, epochs=10)) / "0", torch.float32, CPU)
    target = load(str(bases["llama"]), torch.float32, CPU)
    target.tokenizer.chat_template = reward.tokenizer.chat_template
    chosen = [
        choose(lambda s, f=f: compose(target, [(reward, f * s)], "prt"), [0.0, 0.5, 1.0, 9.0], data, 64, "x")
        for f in (1.0, -1.0, 0.0)
    ]
    assert chosen[0] in (0.5, 1.0)
    assert chosen[1:] == [0.0, 1.0]

"""The methods are the paper's equations, and everything else follows from their entries."""

import pytest
import torch

from prt import combine
from prt.cell import Cell, Run
from prt.errors import InputError
from prt.methods import AS_TEXT, METHODS, SOURCE_PRETRAINED, method, putting_on

GENERATOR = torch.Generator().manual_seed(0)
NETWORKS = {
    (owner, model): torch.randn(5, 4, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
    for owner in ("target", "source")
    for model in ("pretrained", "instruct", "ft", "prt", "adapted")
}


def summed(name: str, strength: float) -> torch.Tensor:
    of = METHODS[name]
    added = [NETWORKS[network] for _, network in of.added]
    return combine.prt(NETWORKS[of.base], added, [sign * strength for sign, _ in of.added])


def test_the_sums_are_the_paper_s_equations() -> None:
    target, source, ft = (NETWORKS[n] for n in (("target", "pretrained"), ("source", "pretrained"), ("source", "ft")))
    for strength in (0.0, 0.5, 1.0, 2.0):
        torch.testing.assert_close(summed("eft", strength), combine.eft(target, ft, source, strength))
        torch.testing.assert_close(summed("prt", strength), combine.prt(target, NETWORKS["source", "prt"], strength))
        torch.testing.assert_close(summed("poe", strength), combine.poe(target, ft, strength))
        both = combine.prt(NETWORKS["target", "ft"], ft, strength)
        torch.testing.assert_close(summed("ensemble", strength), both)
    for name in ("pretrained", "ft", "source_ft", "instruct"):
        torch.testing.assert_close(summed(name, 1.0), NETWORKS[METHODS[name].base])


def test_what_follows_from_an_entry() -> None:
    assert [name for name, of in METHODS.items() if not of.seeded] == ["pretrained", "instruct"]
    with_alpha = {"prt", "prt_best", "prt_chosen", "adapted", "prt-text", "reward"}
    assert {name for name, of in METHODS.items() if of.has_alpha} == with_alpha
    assert len({of.label for of in METHODS.values()}) == len({of.colour for of in METHODS.values()}) == len(METHODS)
    for plain, text in AS_TEXT.items():  # the same networks, and the pretrained source; no folder is put on by it
        assert METHODS[text].of_texts and METHODS[text].tuned is None and METHODS[plain].tuned
        assert {*METHODS[text].networks} == {*METHODS[plain].networks, SOURCE_PRETRAINED}
    with pytest.raises(InputError, match="unknown method 'ptr': did you mean 'prt'"):
        method("ptr")


FULL = {"dataset": "d", "source": "s", "target": "t", "alpha": 0.0, "strength": 1.0, "seed": 1, "lora": True}


@pytest.mark.parametrize(
    ("name", "clean", "measured"),
    [
        ("pretrained", {"alpha": None, "strength": None, "seed": None, "lora": False}, {"source": None}),
        ("ft", {"alpha": None, "strength": None}, {"source": None}),
        ("source_ft", {"alpha": None, "strength": None}, {"method": "ft", "target": "s", "source": None}),
        ("eft", {"alpha": None}, {}),
        ("poe", {"alpha": None}, {}),
        ("ensemble", {"alpha": None}, {}),
        ("difference", {"alpha": None}, {}),
        ("prt", {}, {}),
        ("prt_chosen", {"strength": None}, {}),
        ("prt-text", {}, {}),
        ("eft-text", {"alpha": None}, {}),
        ("reward", {"strength": None}, {"target": "s", "source": None}),
    ],
)
def test_a_cell_says_what_has_a_meaning(name: str, clean: dict[str, object], measured: dict[str, object]) -> None:
    cell = Cell(method=name, **FULL)
    assert cell.clean() == Cell(**FULL | {"method": name} | clean)
    assert cell.measured() == Cell(**FULL | {"method": name} | clean | measured)
    assert cell.measured().measured() == cell.measured()


def test_eft_on_the_source_itself_is_its_fine_tuned_model() -> None:
    cell = Cell(method="eft", **FULL | {"target": "s"})
    assert cell.measured() == Cell(method="ft", **FULL | {"target": "s"}).measured()
    twice = cell.model_copy(update={"strength": 2.0})
    assert twice.measured().method == "eft"


def test_a_difference_of_weights_on_the_source_itself_is_its_fine_tuned_model() -> None:
    cell = Cell(method="difference", **FULL | {"target": "s"})
    assert cell.measured() == Cell(method="ft", **FULL | {"target": "s"}).measured()


def test_what_a_folder_can_be_put_on_by() -> None:
    """A reward that was tuned further is a reward; one that was not is not said to be."""
    assert {model: putting_on(model) for model in ("prt", "adapted")} == {"prt": ["prt"], "adapted": ["prt", "adapted"]}
    assert {"eft", "poe"} <= set(putting_on("ft")) <= METHODS.keys() - {"prt", "adapted"}


def test_names_of_runs_and_cells() -> None:
    facts = {"dataset": "d", "model": "m"}
    names = [
        Run(method="ft", **facts),
        Run(method="prt", alpha=1e-5, **facts),
        Run(method="adapted", alpha=0.0, **facts),
    ]
    names += [Run(method="ft", lora=True, **facts), Run(method="prt", alpha=0.0, lora=True, **facts)]
    assert [run.name for run in names] == ["ft", "prt_1e-05", "adapted", "ft-lora", "prt-lora_0"]
    assert Run(method="prt", alpha=0.0, variant="half", **facts).name == "prt_0-half"
    assert Cell(method="ft", variant="half", **FULL).clean().variant is None
    assert str(Cell(method="prt", variant="half", **FULL)).endswith("(LoRA, half, alpha 0, strength 1, seed 1)")
    told = str(Cell(method="prt", **FULL))
    assert told == "'prt' of 's' on 't' (LoRA, alpha 0, strength 1, seed 1)"

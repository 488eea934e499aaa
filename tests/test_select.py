"""Rows of the tables are chosen by their values, and nothing left is an error."""

import pytest
from helpers import made_up

from prt.errors import InputError
from prt.select import chosen, headline, plain


def test_rows_are_chosen() -> None:
    table = made_up.summary(datasets=["digits", "mnist", "digits-noise"])
    assert len(chosen(table)) == len(table)
    rows = chosen(table, ["digits", "digits-noise"], "16", "rn12-rich", made_up.TARGETS[:2])
    assert set(rows["dataset"]) == {"digits", "digits-noise"}
    assert (set(rows["shots"]), set(rows["source"]), set(rows["target"])) == (
        {"16"},
        {"rn12-rich"},
        set(made_up.TARGETS[:2]),
    )
    assert len(rows) == len(table) * 2 // 3 // 2 // 2 // 2
    with pytest.raises(InputError, match="no rows with dataset mnist and source nobody, nothing; measure them"):
        chosen(table, "mnist", sources=["nobody", "nothing"])


def test_the_paper_s_main_results() -> None:
    """What has no α and no strength is among them; LoRA is not in a headline, but may be plain."""
    table = made_up.language()
    rows = plain(table)
    assert set(rows["method"]) == set(table["method"])
    assert rows["alpha"].max() == 0
    assert set(rows["metric"]) == {"top1"}
    assert set(rows["lora"]) == {False, True}
    assert not headline(table)["lora"].any()
    assert headline(table)["alpha"].max() == 0.1
    assert set(plain(made_up.summary())["strength"].dropna()) == {1.0}

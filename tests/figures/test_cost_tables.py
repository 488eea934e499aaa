"""Tables 1, 2 and 3: each measurement in its line and column, and what cannot be compared refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.made_up import costs, decoding, inside, paper, read_sheet

from prt.errors import InputError
from prt.figures import costs_table, decoding_table


def test_costs_stand_in_the_line_of_their_pair_and_the_group_of_their_method() -> None:
    """Each text of the picture, read from left to right and from top to bottom."""
    read = read_sheet(costs_table.figure(costs()))
    assert read[0] == ["FT", "EFT", "PRT"]
    headers = ["memory (GB)", "time (ms)", "launch (ms)", "bound (ms)"] * 3
    assert read[1] == ["source", "target", "variant", "precision", *headers]
    first = ["2.50", "40.2 ± 1.2", "4.50", "14.4"]
    assert read[2][:8] == ["RN50", "ViT-B-16", "baseline", "fp32", *first]
    assert read[4][:6] == ["+ streams", "bf16", *"––––"]
    assert read[4][6:10] == ["2.55", "45.2 ± 1.2", "4.55", "19.4"]
    assert read[5][:3] == ["ViT-B-16", "ViT-L-14", "baseline"]
    assert read[8] == ["batch 128; NVIDIA A100-SXM4-80GB; torch 2.14.1; bound: FLOPs at its data sheet's peak"]


def test_a_training_step_has_a_network_and_no_pair() -> None:
    training = costs().query("source == 'RN50'").assign(table="table1", target=np.nan, variant=np.nan)
    training = training.drop_duplicates(["method", "quantity"]).replace({"eft": "prt_cached"})
    read = read_sheet(costs_table.figure(training))
    assert read[0] == ["FT", "PRT", "PRT, log π cached"]
    assert read[1][:3] == ["network", "precision", "memory (GB)"]


def test_costs_of_two_devices_are_not_mixed(tmp_path: Path) -> None:
    """Nor are both tables."""
    for column in ("device", "table"):
        with pytest.raises(InputError, match=f"more than one '{column}'"):
            costs_table.draw(pd.concat([costs(), costs().assign(**{column: "other"})]), tmp_path / "table")


def test_table_3(tmp_path: Path) -> None:
    """A line for each method and variant; the paper's numbers beside the plainest."""
    decoding_table.draw(decoding(), tmp_path / "table3", published=paper())
    figure = decoding_table.figure(pd.read_csv(tmp_path / "table3.csv"))
    inside(figure)
    lines = read_sheet(figure)
    assert lines[0] == ["ours", "paper"]
    ours = ["26.0 ± 0.2", "38.5", "12.5", "×1.00", "–"]
    assert lines[2] == ["Llama-2-7B", "Llama-2-13B", "Pretrained", "eager", *ours, "26.0 ± 0.2", "×1.00"]
    assert lines[4][:2] == ["EFT", "eager"]
    assert lines[4][-2:] == ["39.8 ± 0.1", "×0.65"]
    assert lines[5][-2:] == ["–", "–"]
    assert lines[8][:2] == ["PRT, speculative", "eager"]
    assert lines[8][-3:] == ["82 %", "–", "–"]
    assert "prompt of 512 tokens, 128 new ones, 10 repeats" in lines[-2][0]


def test_table_3_without_the_paper_and_of_mixed_measurements(tmp_path: Path) -> None:
    costs = decoding()
    decoding_table.draw(costs.assign(source="a"), tmp_path / "t", published=paper())
    assert pd.read_csv(tmp_path / "t.csv")["paper"].isna().all()
    with pytest.raises(InputError, match="two values of time_per_token for pretrained of a on b, eager; keep one"):
        decoding_table.draw(costs.assign(source="a", target="b"), tmp_path / "t")
    with pytest.raises(InputError, match="more than one 'device'"):
        decoding_table.draw(pd.concat([costs, costs.assign(device="cpu")]), tmp_path / "t")
    with pytest.raises(InputError, match="no times of decoding"):
        decoding_table.draw(costs[costs.quantity == "other"], tmp_path / "t")

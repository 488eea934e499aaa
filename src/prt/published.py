"""Published numbers beside our own: zero-shot accuracies before anything is trained, the paper's tables after."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prt import stats
from prt.errors import InputError, known
from prt.scores import Scores
from prt.select import chosen, headline, plain
from prt.tables import read_table

LEDGER = [
    "dataset",
    "backbone",
    "metric",
    "ours",
    "low",
    "high",
    "published",
    "difference",
    "tolerance",
    "verdict",
    "protocol",
    "source",
]
VISION = ("table1", "table2", "table5", "table7")
KEYS = ["item", "source", "target", "method", "quantity"]
OURS = ["our_source", "our_target", "ours", "precision", "device"]


def ledger(files: list[Path], published: Path, tolerance: float) -> pd.DataFrame:
    """Compare pretrained models' scores on a test split with published zero-shot accuracies, in the same metric.

    Args:
        files: score files of pretrained models.
        published: table of backbone, dataset, metric (top1, mean_per_class_recall), value, protocol, source. A value
            with a ``protocol`` was measured in another way, which it names; it is shown and not judged.
        tolerance: greatest difference that still agrees, as a share of 1.

    Returns:
        A row for each model and metric; ``low`` and ``high`` are Wilson's interval of ours over the images.

    Raises:
        InputError: if a table or scores cannot be read.
    """
    expected = read_table(published, ["backbone", "dataset", "metric", "value", "protocol", "source"])
    if twice := expected[expected.duplicated(["backbone", "dataset", "metric"])].to_dict("records"):
        raise InputError(
            f"{published} has two values for {twice[0]['backbone']} on {twice[0]['dataset']}"
            f" ({twice[0]['metric']}); keep one."
        )
    for metric in expected["metric"].unique():
        known(metric, stats.METRICS, f"metric in {published}")
    rows: list[dict[str, Any]] = []
    for path in files:
        scores = Scores.load(path)
        labels = scores.labels.numpy()
        hit = (scores.values.argmax(-1).numpy() == labels).astype(float)
        of = expected[(expected["backbone"] == scores.backbone) & (expected["dataset"] == scores.dataset)]
        for metric in stats.METRICS:
            share = stats.share(hit, stats.strata(labels, metric))
            row = {"dataset": scores.dataset, "backbone": scores.backbone, "metric": metric, "ours": share.value}
            row |= {"low": share.low, "high": share.high, "published": np.nan, "difference": np.nan}
            row |= {"tolerance": tolerance, "verdict": "none published", "protocol": "", "source": ""}
            for there in of[of["metric"] == metric].to_dict("records"):
                difference = share.value - there["value"]
                other = isinstance(there["protocol"], str)
                agrees = "agrees" if abs(difference) <= tolerance else "differs"
                row |= {"published": there["value"], "difference": difference}
                row |= {"verdict": "not judged" if other else agrees, "protocol": there["protocol"] if other else ""}
                row |= {"source": there["source"]}
            rows.append(row)
    return pd.DataFrame(rows)[LEDGER]


def differences(table: pd.DataFrame) -> str:
    """What of a ledger differs, in one sentence; empty where nothing does."""
    wrong = table[table["verdict"] == "differs"].to_dict("records")
    if not wrong:
        return ""
    wide = "; ".join(
        f"{r['backbone']} on {r['dataset']} has {100 * r['ours']:.1f} %, published are {100 * r['published']:.1f} %"
        for r in wrong
    )
    return (
        f"zero-shot accuracy differs from the published one by more than {100 * wrong[0]['tolerance']:g} points: {wide}"
        " (check weights, preprocessing, images, class names, prompts, and the published value)"
    )


def beside(
    paper: Path, names: dict[str, str], costs: list[Path], noise: list[Path], theory: pd.DataFrame, item: dict[str, Any]
) -> pd.DataFrame:
    """The paper's Tables 1, 2, 5 and 7, and beside each number ours, where a backbone of ours stands for theirs.

    Args:
        paper: table of item, source, target, method, quantity, value, std, unit, note.
        names: our backbones' names → the paper's.
        costs: our Tables 1 and 2.
        noise: summaries of the clean and of the noisy data set of Table 5.
        theory: our Table 7, of one data set and number of shots: the rows that its figure shows.
        item: Table 5's ``dataset`` (the clean one), ``shots``, ``source`` and ``targets``.

    Returns:
        A row for each of the paper's numbers and each of ours for it, in the paper's unit: means over seeds, and over
        batches. Inference is ours without what makes it faster (variant ``baseline``), most likely as the paper's. The
        paper's times appear twice: beside our finished batches, and beside the time that launching them took, which
        is what they most likely are.

    Raises:
        InputError: if a table cannot be read, or the summaries hold nothing of Table 5.
    """
    printed = read_table(paper, [*KEYS, "value", "std", "unit", "note"])
    printed = printed[printed["item"].isin(VISION)]
    launched = printed[printed["quantity"] == "time_per_batch"].assign(quantity="launch_time_per_batch")
    ours = pd.concat([_costs(path) for path in costs] + [_noise(noise, item), _theory(theory)], ignore_index=True)
    ours["our_source"], ours["our_target"] = ours["source"], ours["target"]
    for column in ("source", "target"):
        ours[column] = ours[column].map(names)
    both = pd.concat([printed, launched]).merge(ours, "left", KEYS)
    both = both[(both["quantity"] != "launch_time_per_batch") | both["ours"].notna()]
    order = both.sort_values("item", kind="stable").rename(columns={"value": "paper", "std": "paper_std"})
    return order[[*KEYS, "paper", "paper_std", *OURS, "unit", "note"]].reset_index(drop=True)


def _costs(path: Path) -> pd.DataFrame:
    """Table 1 or 2: the plainest variant, most likely the paper's, where there are several."""
    conditions = ["precision", "device"]
    table = read_table(path, ["table", "source", "target", "method", "variant", "quantity", "value", *conditions])
    table = table[table["variant"].isna() | (table["variant"] == "baseline")]
    names = {"table": "item", "value": "ours"}
    return table.assign(target=table["target"].fillna(table["source"])).rename(columns=names)[
        [*KEYS, "ours", *conditions]
    ]


def _noise(files: list[Path], item: dict[str, Any]) -> pd.DataFrame:
    """Table 5 in percent: the reward of clean images (method ``prt``), and tuned further on noise (``adapted``)."""
    columns = ["dataset", "shots", "source", "target", "method", "alpha", "lora", "strength", "headline", "value"]
    summary = pd.concat([read_table(path, columns) for path in files])
    table = plain(headline(chosen(summary, None, item["shots"], item["source"], item["targets"])))
    quantity = np.where(table["dataset"] == item["dataset"], "top1_clean", "top1_noise")
    measured = {"item": "table5", "quantity": quantity, "ours": 100 * table["value"]}
    return table[["source", "target", "method"]].assign(**measured)


def _theory(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 7, means over seeds; the paper gives C once, in the source's own row."""
    wide = rows[["source", "target", "epsilon", "C"]]
    return wide.melt(["source", "target"], var_name="quantity", value_name="ours").assign(item="table7", method="prt")

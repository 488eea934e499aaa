"""Made-up tables with the columns of real ones, and what tests read from the pictures of them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prt.figures.transfer_bars import Panel
from prt.methods import METHODS

SOURCES = ["vit-s-poor", "rn12-rich"]
TARGETS = ["vit-s-poor", "vit-b-poor", "rn12-rich", "rn24-rich"]
SHOTS = ["16", "full"]
ALPHAS = [0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
STRENGTHS = [0.25, 0.5, 1.0, 1.5, 2.0]
PANELS: list[Panel] = [{"source": source, "targets": [t for t in TARGETS if t != source]} for source in SOURCES]
LANGUAGE: list[Panel] = [{"source": "small", "targets": ["large"]}]
NAMES = {"small": "Qwen2.5-0.5B", "large": "Qwen2.5-7B"}
PUBLISHED = Path(__file__).parents[2] / "config" / "published"
# How far each method is above the level of its data set: FT best, PRT near it, EFT behind, Pretrained far below.
ABOVE = {"pretrained": -0.3, "prt": 0.09, "eft": 0.05, "poe": 0.02, "ft": 0.12, "source_ft": 0.12, "reward": -0.05}
ABOVE |= {"instruct": 0.1, "adapted": 0.07}
MEASURED = ["value", "std", "low", "high", "seeds", "n"]


def summary(
    sources: Sequence[str] = SOURCES,
    targets: Sequence[str] = TARGETS,
    datasets: Sequence[str] = ("mnist",),
    shots: Sequence[str] = SHOTS,
    alphas: Sequence[float] = ALPHAS,
    strengths: Sequence[float] = STRENGTHS,
    loras: Sequence[bool] = (False,),
    methods: Sequence[str] = tuple(ABOVE)[:7],
) -> pd.DataFrame:
    """A summary that looks real. Strengths other than 1 have α = 0, and the target number i is 10 i points better."""
    rng = np.random.default_rng(0)
    rows = []
    for d, n, s, t, name in itertools.product(datasets, shots, sources, targets, methods):
        method = METHODS[name]
        for alpha, power, lora in itertools.product(
            alphas if method.has_alpha else [np.nan],
            strengths if method.transfers and name != "poe" else [1.0 if method.transfers else np.nan],
            loras if method.seeded else [False],
        ):
            if alpha > 0 and power != 1 and method.transfers:
                continue
            value = 0.4 + 0.03 * datasets.index(d) + 0.05 * shots.index(n) + ABOVE[name]
            value += 0.1 * targets.index(s) if name == "source_ft" else 0.1 * targets.index(t) + rng.normal(0, 0.003)
            value -= 0.03 * (alpha == 0.1) + 0.02 * lora
            value -= 0 if np.isnan(power) else 0.1 * np.log2(power) ** 2 * (1.5 if name == "eft" else 0.7)
            half = 0.012 if n == "full" else 0.03
            seeds, std = (3, half / 2) if method.seeded else (1, np.nan)
            cell = (d, n, s, t, name, alpha, np.nan, lora, power)
            for metric, lower in (("top1", 0), ("mean_per_class_recall", 0.01)):
                v = float(np.clip(value - lower, 0.02, 0.99))
                rows.append((*cell, metric, lower == 0, v, std, v - half, v + half, seeds, 500))
    keys = "dataset shots source target method alpha variant lora strength metric headline"
    return pd.DataFrame(rows, columns=[*keys.split(), *MEASURED])


def language(**changes: object) -> pd.DataFrame:
    """The same for two benchmarks and one pair of language models, with LoRA and without."""
    facts = {"sources": ["small"], "targets": ["small", "large"], "datasets": ["gsm8k", "ifeval"], "shots": ["full"]}
    return summary(**{**facts, "alphas": [0.0, 0.01, 0.1], "strengths": [1.0], "loras": [False, True]} | changes)


def instructed() -> pd.DataFrame:
    """The same with published instruct models, a single seed and no LoRA."""
    table = language(alphas=[0.0], loras=[False], methods=(*tuple(ABOVE)[:7], "instruct"))
    return table.assign(std=np.nan, seeds=1)


def comparison(of: pd.DataFrame) -> pd.DataFrame:
    """Differences of what is transferred in a summary, at α = 0 and strength 1, to the two main baselines."""
    place = ["dataset", "shots", "source", "target", "metric"]
    plain = of[of["alpha"].fillna(0).eq(0) & of["strength"].fillna(1).eq(1)]
    both = plain[plain["method"].isin(["prt", "eft", "poe"])].merge(
        plain[plain["method"].isin(["pretrained", "source_ft"])], on=place, suffixes=("", "_of")
    )
    both = both[both["lora"].eq(both["lora_of"]) | both["method_of"].eq("pretrained")]
    both = both.assign(baseline=both["method_of"], difference=both["value"] - both["value_of"])
    both = both.assign(low=both["difference"] - 0.02, high=both["difference"] + 0.02)
    verdict = np.select([both["low"] > 0, both["high"] < 0], ["better", "worse"], "not told apart")
    columns = [*place[:4], "lora", "method", "variant", "baseline", "metric", "difference", "low", "high", "verdict"]
    return both.assign(verdict=verdict)[[*columns, "seeds", "n"]]


def curves(sources: Sequence[str] = SOURCES[:1]) -> pd.DataFrame:
    """Made-up learning curves: PRT above the reward alone, which the entropy term pulls down."""
    rng = np.random.default_rng(1)
    rows = []
    for n, s, alpha, seed in itertools.product(SHOTS, sources, ALPHAS, range(3)):
        for iteration, method in itertools.product(range(0, 2001, 200), ("prt", "reward")):
            below = 0.0 if method == "prt" else 0.25 + 1.5 * alpha
            value = 0.9 - 0.4 * np.exp(-iteration / 400) - below * np.exp(-iteration / 1500)
            rows.append(("mnist", n, s, alpha, seed, iteration, method, "top1", value + rng.normal(0, 0.008)))
    columns = "dataset shots source alpha seed iteration method metric value"
    return pd.DataFrame(rows, columns=columns.split())


def theory() -> pd.DataFrame:
    """Made-up constants of Table 7, on three seeds, for two α."""
    rng = np.random.default_rng(2)
    rows = []
    for n, s, t in itertools.product(SHOTS, SOURCES, TARGETS):
        epsilon = 0.0 if s == t else rng.uniform(0.2, 3)
        for alpha, seed in itertools.product((0.0, 0.1), range(3)):
            c = rng.uniform(5, 150)
            rows.append(("mnist", n, s, t, alpha, np.nan, seed, epsilon, c, c * epsilon + np.log1p(c * epsilon), 0.1))
    return pd.DataFrame(rows, columns="dataset shots source target alpha variant seed epsilon C bound kl".split())


def costs() -> pd.DataFrame:
    """Made-up measurements of Table 2 on a GPU; a network alone has no streams."""
    rows = []
    for number, ((s, t), method, variant) in enumerate(
        itertools.product(
            (("RN50", "ViT-B-16"), ("ViT-B-16", "ViT-L-14")), ("ft", "eft", "prt"), ("baseline", "+ bf16", "+ streams")
        )
    ):
        if method == "ft" and variant == "+ streams":
            continue
        for quantity, value, std, unit in (
            ("time_per_batch", 40.25 + number, 1.25, "ms"),
            ("launch_time_per_batch", 4.5 + number / 100, 0.1, "ms"),
            ("peak_memory", 2.5 + number / 100, np.nan, "GB"),
            ("flop_bound", 14.4 + number, np.nan, "ms"),
        ):
            precision = "fp32" if variant == "baseline" else "bf16"
            rows.append(("table2", s, t, method, variant, 128, precision, quantity, value, std, unit))
    columns = "table source target method variant batch precision quantity value std unit"
    facts = {"peak_from": "datasheet", "device": "NVIDIA A100-SXM4-80GB", "torch": "2.14.1"}
    return pd.DataFrame(rows, columns=columns.split()).assign(**facts)


def decoding() -> pd.DataFrame:
    """Made-up measurements of Table 3: three methods, two variants, and the speculative one."""
    rows = []
    for target, source in (("Llama-2-13B", "Llama-2-7B"), ("Llama-3-8B", "Llama-3.2-1B")):
        for method, slower in (("pretrained", 1.0), ("eft", 1.6), ("prt", 1.3), ("prt_speculative", 0.8)):
            for variant, ms in (("eager", 26.0), ("compiled", 14.0)):
                facts = ("table3", source, target, method, variant)
                rows += [
                    (*facts, "time_per_token", ms * slower, 0.25, "ms"),
                    (*facts, "tokens_per_second", 1000 / ms / slower, 0.5, "1/s"),
                    (*facts, "bytes_bound", 12.5 * slower, np.nan, "ms"),
                    (*facts, "relative_speed", 1 / slower, np.nan, ""),
                ]
                if method == "prt_speculative":
                    rows.append((*facts, "acceptance", 0.82, 0.02, ""))
    columns = "table source target method variant quantity value std unit".split()
    facts = {"prompt_tokens": 512, "new_tokens": 128, "repeats": 10, "precision": "bf16", "weights": "tuned"}
    return pd.DataFrame(rows, columns=columns).assign(**facts, device="NVIDIA A100-SXM4-80GB", torch="2.14.1")


def paper() -> pd.DataFrame:
    """The paper's tables."""
    return pd.read_csv(PUBLISHED / "paper.csv")


def figure3() -> pd.DataFrame:
    """What was read off the paper's Figure 3."""
    return pd.read_csv(PUBLISHED / "figure3.csv")


def read_sheet(figure: Figure) -> list[list[str]]:
    """The texts of a table drawn as a picture, line by line, each from left to right."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for text in figure.axes[0].texts:
        lines.setdefault(text.get_position()[1], []).append((text.get_position()[0], text.get_text()))
    return [[text for _, text in sorted(lines[y])] for y in sorted(lines)]


def inside(figure: Figure) -> None:
    """Nothing is cut off at the edge of the page."""
    figure.set_dpi(200)  # as it is saved
    FigureCanvasAgg(figure).draw()
    page, box = figure.bbox, figure.get_tightbbox()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < page.width / figure.dpi + 0.02
    assert box.y1 < page.height / figure.dpi + 0.02

"""The page of what is pushed to the Hugging Face hub, made of its manifest: what it is, of what, and how to load it."""

import re
from itertools import cycle
from pathlib import Path
from typing import Any

from prt.errors import InputError
from prt.methods import putting_on
from prt.tables import read_table

PAPER = "[Portable Reward Tuning](https://arxiv.org/abs/2502.12776)"
SHOWN = 30  # labels that are named
COLUMNS = ["dataset", "source", "target", "method", "alpha", "strength", "seed", "metric", "value", "low", "high", "n"]
SUM = """A reward of {paper}: its outputs r are added to the log-probabilities of any pretrained {model} with the same
{what},

    log π = log π_pretrained + s · r        (normalised by a softmax; s = 1/λ, 1 in the paper; equations 6 and 10)

It was trained in such a sum, with the model that it was tuned from, and is no model by itself."""
TUNED = """A fine-tuned {model}, by which others of the same {what} are changed without training: by EFT (proxy-tuning,
equation 4 of {paper}) or as a product of experts (PoE),

    EFT: log π = log π_pretrained + s · (log π_tuned − log π_tuned-from)        PoE: log π_pretrained + s · log π_tuned

(each normalised by a softmax)."""
COMPOSED = """A pretrained language model with others added to its logits, as one model ({paper}),

    log π = {terms}        (normalised by a softmax)"""
LOAD = {
    "language": """    prt pull {repository} reward
    prt generate --reward reward --method {method} --target OWNER/MODEL "Question: …"

```python
from prt.language.decode import load_reward
model = load_reward("reward", method="{method}").on("OWNER/MODEL")
print(model.generate("Question: …"))
```""",
    "vision": """    prt pull {repository} reward
    prt predict --reward reward --method {method} --target ViT-L-14/laion2b_s32b_b82k image.png

```python
from prt.vision.predict import load_reward
model = load_reward("reward", method="{method}").on("ViT-L-14/laion2b_s32b_b82k")
print(model.classes, model.predict(["image.png"]))
```""",
    "composed": """```python
import prt.language.composed, transformers
transformers.pipeline("text-generation", model="{repository}")
```""",
}


def card(manifest: dict[str, Any], repository: str, measured: list[dict[str, Any]]) -> str:
    """The page (Markdown, with what the hub reads of it in YAML) of what ``manifest`` describes.

    Args:
        manifest: as it is pushed, without private paths.
        repository: OWNER/NAME, where it will be.
        measured: rows of :func:`measurements`.
    """
    from huggingface_hub import ModelCardData

    kind, base = manifest["kind"], _base(manifest)
    method = manifest["method"] if kind == "composed" else putting_on(manifest["method"])[0]
    data = ModelCardData(
        library_name="portable-reward-tuning",
        pipeline_tag="image-classification" if kind == "vision" else "text-generation",
        base_model=base if base and re.fullmatch(r"[\w.-]+/[\w.-]+", base) and kind == "language" else None,
        tags=["portable-reward-tuning", method],
    )
    facts = "".join(f"| {name} | {_cell(value)} |\n" for name, value in _facts(manifest).items())
    results = "No measurements came with it."
    if measured:
        lines = [
            f"| {' | '.join(_cell(row[name]) for name in ('dataset', 'target', 'method', 'strength', 'metric'))} "
            f"| {row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f}) | {row['n']:.0f} |\n"
            for row in measured
        ]
        results = (
            "With 95 % intervals over the examples.\n\n| data | target | method | strength | metric | value | n |\n"
        )
        results += "|---|---|---|---|---|---|---|\n" + "".join(lines)
    load = LOAD[kind].format(repository=repository, method=method)
    return (
        f"---\n{data.to_yaml()}\n---\n# {repository.partition('/')[2]}\n{_what(manifest)}\n\n"
        f"| | |\n|---|---|\n{facts}\n## Measured\n{results}\n\n## How to load it\nWith the Python package "
        f"portable-reward-tuning:\n\n{load}\n"
    )


def _base(manifest: dict[str, Any]) -> str | None:
    of = manifest.get("base") or manifest.get("backbone") or {}
    return of.get("spec") or of.get("name")


def _what(manifest: dict[str, Any]) -> str:
    if manifest["kind"] == "composed":
        target, *added = manifest["models"]
        # Of EFT every second is what the one before it was tuned from.
        kinds = {"eft": ["log π of tuned", "log π of"], "poe": ["log π of tuned"]}
        outputs = cycle(kinds.get(manifest["method"], ["r of"]))
        terms = [f"{p['weight']:+g} · ({output} {p['name']})" for output, p in zip(outputs, added, strict=False)]
        return COMPOSED.format(paper=PAPER, terms=f"(log π of {target['name']}) {' '.join(terms)}")
    words = {"language": ("causal language model", "tokenizer"), "vision": ("CLIP of open_clip", "labels")}
    model, what = words[manifest["kind"]]
    return (TUNED if manifest["method"] == "ft" else SUM).format(paper=PAPER, model=model, what=what)


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the page's first table says; what is not known is left out."""
    found: dict[str, Any] = {"method": manifest["method"], "variant": manifest.get("variant")}
    if manifest["kind"] == "composed":
        for part in manifest["models"]:
            found[f"`{part['folder']}`"] = f"{part['name']}, weight {part['weight']:g}"
    else:
        of, data = manifest.get("base") or manifest["backbone"], manifest["dataset"] or {}
        sha256 = of.get("weights_sha256")
        found["tuned from"] = f"{of['name']}" + (f" (SHA-256 of the weights {sha256})" if sha256 else "")
        found["trained on"] = data.get("name")
        if data.get("tokens"):
            found["trained on"] += f", {data['tokens']['train']['conversations']} conversations"
        elif manifest.get("shots"):
            found["trained on"] += f", images of each class: {manifest['shots']}"
        found["weight α of the entropy term"] = manifest["alpha"]
        lora = manifest.get("lora")
        found["LoRA"] = ", ".join(f"{key} {value}" for key, value in lora.items()) if lora else None
        recipe = manifest["recipe"]
        found["recipe"] = ", ".join(f"{key} {value}" for key, value in recipe.items()) if recipe else None
        found["chat template"] = manifest.get("template") if isinstance(manifest.get("template"), str) else None
        found["seed"] = manifest["seed"]
    if manifest["kind"] == "vision":
        names = manifest["classes"]
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        found[f"{len(names)} labels"] = ", ".join(names[:SHOWN]) + more
        found["prompts"] = "; ".join(manifest["templates"])
    elif "vocabulary" in manifest:
        known = manifest["vocabulary"]
        found["vocabulary"] = f"{known.get('size', 'unknown number of')} tokens, SHA-256 {known['sha256']}"
    found["made by"] = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return {name: value for name, value in found.items() if value is not None}


def _cell(value: Any) -> str:
    """A value in a table of Markdown, where nothing is markup."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", " ".join(text.split())) if not text.startswith("`") else text


def measurements(tables: list[Path], manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an experiment's ``transfer.csv`` that are of this reward or fine-tuned model.

    Raises:
        InputError: if a table is missing or damaged, or has no such row.
    """
    found = []
    for table in tables:
        rows = read_table(table, COLUMNS)
        of = manifest.get("base") or manifest.get("backbone") or {}
        mine = rows[
            (rows["source"] == of.get("name"))
            & (rows["seed"] == manifest.get("seed"))
            & rows["method"].isin(putting_on(manifest["method"]))
        ]
        if manifest.get("alpha") is not None:
            mine = mine[mine["alpha"] == manifest["alpha"]]
        wanted = {"headline": "True", "shots": manifest.get("shots"), "variant": manifest.get("variant") or ""}
        if manifest["kind"] == "vision":  # each data set has rewards of its own
            wanted["dataset"] = (manifest["dataset"] or {"name": ""})["name"]
        wanted["lora"] = str(manifest.get("lora") is not None)
        for key, own in wanted.items():
            if key in mine and own is not None:
                mine = mine[mine[key].astype(object).fillna("").astype(str) == own]
        if mine.empty:
            raise InputError(f"{table} has no measurement of what is pushed; name another table.")
        found += mine.to_dict("records")
    return found

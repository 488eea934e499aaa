"""Portable Reward Tuning of causal language models."""

from pathlib import Path


def is_missing(spec: str) -> bool:
    """Whether a model's ``spec`` is a folder, not OWNER/NAME on the Hugging Face hub, that holds no model."""
    looks_local = spec.startswith(("/", ".", "~")) or spec.count("/") != 1
    return not (Path(spec) / "config.json").is_file() and (Path(spec).is_dir() or looks_local)

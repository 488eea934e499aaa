"""Portable Reward Tuning of causal language models."""

from os.path import isdir, isfile
from pathlib import Path


def is_missing(spec: str) -> bool:
    """Whether a model's ``spec`` is a folder, not OWNER/NAME on the Hugging Face hub, that holds no model."""
    looks_local = spec.startswith(("/", ".", "~")) or spec.count("/") != 1
    # These two answer where Path's own raise, such as for a name that is too long.
    return not isfile(Path(spec) / "config.json") and (isdir(spec) or looks_local)

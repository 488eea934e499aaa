"""Scores to work on."""

import torch

from prt.scores import Scores


def scores(**changes: object) -> Scores:
    values = {
        "values": torch.randn(4, 3),
        "labels": torch.tensor([0, 1, 2, 0]),
        "kind": "reward",
        "backbone": "vit",
        "method": "prt",
        "dataset": "digits",
        "fingerprint": "f",
        "split": "test",
        "classes": ["a", "b", "c"],
        "shots": "16",
        "seed": 1,
        "alpha": 0.01,
    }
    return Scores(**(values | changes))

"""The page of what is pushed: for pages of real folders see test_sharing."""

from typing import Any

import pytest

from prt.card import card


def composed(method: str, *models: tuple[str, float]) -> dict[str, Any]:
    parts = [{"folder": f"part-{i}", "name": name, "weight": weight} for i, (name, weight) in enumerate(models)]
    return {"kind": "composed", "method": method, "models": parts, "files": {}, "versions": {"torch": "2"}}


@pytest.mark.parametrize(
    ("manifest", "terms"),
    [
        (composed("prt", ("m", 1), ("a", 1), ("b", 0.5)), "(log π of m) +1 · (r of a) +0.5 · (r of b)"),
        (
            composed("poe", ("m", 1), ("a", 1), ("b", -2)),
            "(log π of m) +1 · (log π of tuned a) -2 · (log π of tuned b)",
        ),
        (
            composed("eft", ("m", 1), ("a", 1), ("a0", -1), ("b", 0.5), ("b0", -0.5)),
            "(log π of m) +1 · (log π of tuned a) -1 · (log π of a0) +0.5 · (log π of tuned b) -0.5 · (log π of b0)",
        ),
    ],
)
def test_a_target_with_several_rewards_is_written_as_their_sum(manifest: dict[str, Any], terms: str) -> None:
    page = card(manifest, "me/both", [])
    assert f"    log π = {terms}        (normalised by a softmax)\n" in page
    for part in manifest["models"]:
        assert f"| `{part['folder']}` | {part['name']}, weight {part['weight']:g} |" in page

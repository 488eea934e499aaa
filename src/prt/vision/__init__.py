"""Vision: CLIP image classifiers (§4, App. B.1)."""

"""Vocabularies as large as the paper's."""

import time

from prt.language.models import Vocabulary, shared_ids


def test_large_vocabularies_are_compared_in_no_time():
    """Qwen2.5's has 152k tokens; a set of all of them, made anew for each, would take hours."""
    tokens = {f"w{i}": i for i in range(152_000)}
    here = Vocabulary(tokens, {"<eos>": 152_000})
    there = Vocabulary(dict(tokens), {"<eos>": 152_000, "<tool>": 152_001})
    began = time.process_time()
    assert shared_ids(here, there, ("here", "there")) == list(range(152_001))
    assert time.process_time() - began < 10

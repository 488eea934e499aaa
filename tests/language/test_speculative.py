"""Speculative decoding of PRT gives what plain decoding gives, and no model reads a token twice."""

from collections import Counter

import pytest
import torch
from helpers.letters import LETTERS, letters
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    LlamaConfig,
    MistralConfig,
    TextStreamer,
)

from prt.errors import InputError
from prt.language import speculative
from prt.language.composed import compose
from prt.language.models import Causal
from prt.language.speculative import Speculative


def causal(seed: int, config=LlamaConfig, size: int = 16, rows: int = 32, tokenizer=None, **more) -> Causal:
    """A small random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=size, intermediate_size=size, num_hidden_layers=1, num_attention_heads=2)
    sizes |= dict(num_key_value_heads=1, max_position_embeddings=128, bos_token_id=None, eos_token_id=0, pad_token_id=1)
    model = AutoModelForCausalLM.from_config(config(vocab_size=rows, initializer_range=0.5, **sizes, **more)).eval()
    return Causal(f"model{seed}", model, tokenizer or letters())


def noisy(model: Causal, noise: float) -> Causal:
    """A copy that says something like the original."""
    copy = type(model.model)(model.model.config).eval()
    torch.manual_seed(9)
    state = {k: v + noise * v.std() * torch.randn_like(v) for k, v in model.model.state_dict().items()}
    copy.load_state_dict(state)
    return Causal("draft", copy, model.tokenizer)


TARGET, REWARD = causal(0, size=32), causal(1)
DRAFT = noisy(TARGET, 0.1)
SLIDING = causal(2, MistralConfig, sliding_window=6)
PADDED = causal(4, size=32, rows=33, tokenizer=letters("[PAD]"))
PRT = compose(TARGET, [(REWARD, 1.0)], "prt")
MODELS = {
    "prt": (PRT, DRAFT),
    "two rewards, one with a sliding window": (compose(TARGET, [(REWARD, 0.7), (SLIDING, 0.4)], "prt"), DRAFT),
    "eft": (compose(TARGET, [(REWARD, 1), (SLIDING, -1)], "eft"), DRAFT),
    "a sliding target": (compose(SLIDING, [(REWARD, 1.0)], "prt"), noisy(SLIDING, 0.1)),
    "a useless draft": (PRT, causal(3)),
    "a draft with more rows": (PRT, causal(3, rows=40)),
    "the target drafts": (PRT, TARGET),
    "a pad token that the reward lacks": (compose(PADDED, [(REWARD, 1.0)], "prt"), noisy(PADDED, 0.1)),
}
EVERY = pytest.mark.parametrize(("model", "draft"), MODELS.values(), ids=MODELS)
PROMPTS = ["the cat sat", "a", "what, is it", "so on and on", "why", "zebra"]


def ids(text: str) -> torch.Tensor:
    return letters()(text, return_tensors="pt")["input_ids"]


def both(model, draft, text, drafted=4, **options):
    """Plain and speculative continuations, as lists of ids, and the statistics."""
    options = dict(max_new_tokens=20, do_sample=False) | options
    plain = model.model.generate(ids(text), **options)
    fast, statistics = Speculative(model, draft, drafted).generate(ids(text), **options)
    return plain[0].tolist(), fast[0].tolist(), statistics


@EVERY
def test_greedy_equals_plain(model, draft):
    drafted = accepted = 0
    for i, text in enumerate(PROMPTS):
        plain, fast, statistics = both(model, draft, text, drafted=1 + i)
        assert fast == plain
        assert statistics.tokens == len(plain) - len(text)
        drafted, accepted = drafted + statistics.drafted, accepted + statistics.accepted
    if draft is TARGET:
        assert accepted == drafted
    elif draft is DRAFT:
        assert 0.2 * drafted < accepted < drafted  # both ways were gone


def test_settings_of_generate_hold():
    text = "the cat sat"
    for options in (
        {"repetition_penalty": 1.5},
        {"suppress_tokens": [5, 9]},
        {"min_new_tokens": 20},
        {"max_new_tokens": 1},
    ):
        plain, fast, _ = both(PRT, DRAFT, text, **options)
        assert fast == plain
    said = both(PRT, DRAFT, text)[0][len(text) :]
    for end in (said[0], said[3], said[-1]):
        plain, fast, statistics = both(PRT, DRAFT, text, eos_token_id=end)
        assert fast == plain and plain[-1] == end and statistics.tokens == said.index(end) + 1


def test_stop_strings_and_streaming(capsys):
    plain, _, _ = both(PRT, DRAFT, "the cat sat")
    said = letters().decode(plain[11:])
    for stop in (said[2:4], said[6]):
        how = dict(stop_strings=stop, max_new_tokens=20, do_sample=False)
        streamer = TextStreamer(letters(), skip_prompt=True)
        out, _ = Speculative(PRT, DRAFT).generate(ids("the cat sat"), streamer=streamer, **how)
        text = letters().decode(out[0, 11:])
        assert text == said[: said.index(stop) + len(stop)]
        assert capsys.readouterr().out == text + "\n"


@EVERY
def test_no_model_reads_a_token_twice(model, draft):
    reads = {}
    for name, part in {"draft": draft.model, **dict(enumerate(model.model.models))}.items():
        if part is draft.model and name != "draft":
            continue  # the target that drafts reads for both

        reads[name] = []
        part.register_forward_pre_hook(
            lambda _, __, k, read=reads[name]: read.append(k["input_ids"].shape[1]), with_kwargs=True
        )
    try:
        _, statistics = Speculative(model, draft).generate(ids("the cat sat"), max_new_tokens=40, do_sample=False)
    finally:
        for part in (draft.model, *model.model.models):
            part._forward_pre_hooks.clear()
    rounds, every = statistics.target_forwards, statistics.drafted
    if draft is not TARGET:
        assert len(reads[0]) == rounds and sum(reads[0]) == 11 + every + rounds - 1
    for name in set(reads) - {0, "draft"}:
        # The prompt; one token for each draft but the first, which follows what was read; one where all were kept.
        assert sum(reads[name]) <= 11 + every + rounds - 1
        assert len(reads[name]) <= every + rounds
    assert statistics.tokens <= statistics.accepted + rounds


def exact(text: str, model: Causal, temperature: float, top_k: int) -> dict[tuple[int, ...], float]:
    """The exact distribution of three tokens, from full forward passes."""

    def after(prefix: torch.Tensor) -> torch.Tensor:
        logits = model.model(prefix, logits_to_keep=1).logits[0, -1] / temperature
        logits[0] = -torch.inf  # no end before the third token
        return logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf).softmax(-1)

    def walk(prefix, left):
        if not left:
            return {(): 1.0}
        chances = after(prefix)
        return {
            (int(t), *rest): float(chances[t]) * value
            for t in chances.nonzero()[:, 0]
            for rest, value in walk(torch.cat([prefix, t.view(1, 1)], -1), left - 1).items()
        }

    with torch.no_grad():
        return walk(ids(text), 3)


def p_value(draft: Causal, samples: int) -> float:
    """Of a χ² test of sampled three-token continuations against the exact distribution."""
    how = dict(temperature=1.5, top_k=3)
    decoder = Speculative(PRT, draft, 2)
    right = exact("the cat", PRT, **how)
    torch.manual_seed(0)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(samples):
        out, _ = decoder.generate(ids("the cat"), max_new_tokens=3, min_new_tokens=3, do_sample=True, **how)
        counts[tuple(out[0, 7:].tolist())] += 1
    if set(counts) - set(right):
        return 0.0  # something came out that cannot
    likely = [k for k in right if right[k] * samples >= 5]
    seen, expected = [counts[k] for k in likely], [right[k] * samples for k in likely]
    seen, expected = [*seen, samples - sum(seen)], [*expected, samples - sum(expected)]
    return float(chisquare(seen, expected).pvalue)


def test_sampling_equals_the_exact_distribution(monkeypatch):
    """Drafts are kept, rejected and followed by a token of the target; rules that are slightly wrong are found out."""
    assert p_value(DRAFT, 400) > 0.01
    with monkeypatch.context() as patch:
        patch.setattr(speculative, "accept", lambda tokens, q, p: len(q))  # keeps whatever is drafted
        assert p_value(DRAFT, 60) < 1e-4
    with monkeypatch.context() as patch:
        patch.setattr(speculative, "residual", lambda p, q: p)  # forgets that q had its chance
        assert p_value(DRAFT, 200) < 1e-4


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_rule(weights):
    """Kept drafts and replacements together have exactly the model's distribution."""
    q, p = torch.tensor(weights, dtype=torch.float64).T + 1e-3
    q, p = q / q.sum(), p / p.sum()
    kept = torch.minimum(p, q)
    rest = speculative.residual(p, q)
    torch.testing.assert_close(kept + (1 - kept.sum()) * rest / rest.sum(), p)


def test_accept():
    q, p = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.25, 0.75])
    assert speculative.accept(torch.tensor([], dtype=torch.long), [], []) == 0
    assert speculative.accept(torch.tensor([0, 1]), [q, q], [p, q]) == 0  # never what the model would not say
    assert speculative.accept(torch.tensor([1, 0]), [p, q], [q, p]) == 1
    torch.manual_seed(0)
    half = [speculative.accept(torch.tensor([1]), [q], [p]) for _ in range(1000)]
    assert 450 < sum(half) < 550


def test_static_caches_and_compiled_steps():
    """As on a GPU; for CUDA graphs stand the captured graphs, whose output is gone when the next one runs."""
    graphs, outputs, rejected = [], [], 0

    def backend(graph, _):
        graphs.append(graph)

        def run(*inputs):
            for output in outputs:
                output.fill_(torch.nan)
            outputs[:] = [x for x in graph(*inputs) if isinstance(x, torch.Tensor) and x.is_floating_point()]
            return outputs

        return run

    compiled = CompileConfig(fullgraph=True, backend=backend, mode=None)
    compiled._compile_all_devices = True
    for text in PROMPTS[:3]:
        plain = PRT.model.generate(ids(text), max_length=30, do_sample=False)[0].tolist()
        for more in ({}, {"compile_config": compiled}):
            how = dict(max_length=30, do_sample=False, cache_implementation="static") | more
            out, statistics = Speculative(PRT, DRAFT, 3).generate(ids(text), **how)
            assert out[0].tolist() == plain
            rejected += statistics.drafted - statistics.accepted
    assert rejected  # so caches went back
    assert len(graphs) == 3  # one for each model, not for each step or prompt


def test_refusals():
    other = causal(5, tokenizer=letters(text="ba" + LETTERS[2:]))
    with pytest.raises(InputError, match=r"different tokenizers.*id 2 is 'a'"):
        Speculative(PRT, other)
    with pytest.raises(InputError, match="0 tokens to draft"):
        Speculative(PRT, DRAFT, 0)
    for options in ({"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}):
        with pytest.raises(InputError, match="one prompt at a time"):
            Speculative(PRT, DRAFT).generate(ids("a"), max_new_tokens=2, **options)
    with pytest.raises(InputError, match="empty cache"):
        Speculative(PRT, DRAFT).generate(ids("a"), max_new_tokens=2, use_cache=False)
    with pytest.raises(InputError, match="sliding window cannot go back"):
        Speculative(*MODELS["a sliding target"]).generate(ids("a"), max_new_tokens=20, cache_implementation="static")
    with pytest.raises(InputError, match="draft has 20 rows for 32 tokens"):
        Speculative(PRT, Causal("draft", causal(5, rows=20).model, letters()))

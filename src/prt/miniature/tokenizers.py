"""The tokenizers of the miniature language models: the family's own, and two of other kinds, for other targets."""

import json
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END, PAD, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|unk|>"
SPACE = "\u2581"


def own(sample: list[str]) -> Tokenizer:
    """384 tokens, with every printable ASCII character.

    Words and numbers take the space before them along; a number up to 20 is one token.
    """
    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
    _by_bytes(bpe, r"<\|[a-z]+\|>| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s")
    # ByteLevel writes the space and the new line as the letters 256 above them, the other characters as they are.
    alphabet = [chr(code) for code in range(33, 127)] + [chr(256 + ord(" ")), chr(256 + ord("\n"))]
    return _trained(bpe, sample, 384, [END, PAD, UNKNOWN], initial_alphabet=alphabet)


def threes(sample: list[str]) -> Tokenizer:
    """As Llama 3's: all bytes, digits in threes without the space before them, marks that take the new line along."""
    bpe = Tokenizer(models.BPE())
    _by_bytes(bpe, r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    return _trained(bpe, sample, 640, [END, PAD], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def pieces(sample: list[str]) -> Tokenizer:
    """As SentencePiece's: a space before every text, digits one by one, bytes to fall back on."""
    bpe = Tokenizer(models.BPE(byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    bpe.pre_tokenizer = pre_tokenizers.Split(
        Regex(f"{SPACE}?[A-Za-z]+|{SPACE}?[0-9]|\n|{SPACE}?[^\\s{SPACE}A-Za-z0-9]+|{SPACE}"), "isolated"
    )
    bpe.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    state = json.loads(_trained(bpe, sample, 640, [END, PAD, *fallback]).to_str())
    # The trainer takes the bytes for control tokens.
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in fallback]
    return Tokenizer.from_str(json.dumps(state))


TOKENIZERS = {None: own, "pieces": pieces, "threes": threes}  # by what a configuration calls them


def _by_bytes(bpe: Tokenizer, pattern: str) -> None:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), level])
    bpe.decoder = decoders.ByteLevel()


def _trained(bpe: Tokenizer, sample: list[str], size: int, control: list[str], **options: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=control, show_progress=False, **options)
    bpe.train_from_iterator(sample, trainer)
    return bpe

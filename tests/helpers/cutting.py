"""Small tokenizers of several kinds, and small random models over them."""

import json

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt.language.models import Causal

SAMPLE = ["Tom has 12 cakes and 345 pens.\nNow Tom has 357 things.\n#### 357", "a naïve café, a Straße"] * 3
END, PAD, TURN = "<|end|>", "<|pad|>", "<|turn|>"
LLAMA3 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
WORDS = "\u2581?[A-Za-z]+|\u2581?[0-9]|\n|\u2581?[^\\s\u2581A-Za-z0-9]+|\u2581"


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.add_special_tokens({"additional_special_tokens": [TURN]})
    return fast


def bpe(alphabet: str, *merges: tuple[str, str]) -> PreTrainedTokenizerFast:
    """A BPE of these letters and merges, whose decoder only joins."""
    words = [END, PAD, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, list(merges)))
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer)


def byte_level(size: int = 340) -> PreTrainedTokenizerFast:
    """As Llama 3's: bytes, digits in threes, new lines taken along by the mark before them."""
    tokenizer = Tokenizer(models.BPE())
    split, level = pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([split, level]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=level.alphabet(), special_tokens=[END, PAD], show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    return _fast(tokenizer)


def sentencepiece(size: int = 360) -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, digits one by one, bytes to fall back on."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END, PAD, *bytes_], limit_alphabet=50, show_progress=False
    )
    tokenizer.train_from_iterator([text for text in SAMPLE if text.isascii()], trainer)
    state = json.loads(tokenizer.to_str())  # where the bytes are ordinary tokens
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in bytes_]
    return _fast(Tokenizer.from_str(json.dumps(state)))


def random_model(seed: int, tokenizer: PreTrainedTokenizerFast, kind: type[LlamaForCausalLM] = LlamaForCausalLM):
    """A random model over a tokenizer, whose next token really depends on those before it."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Causal(f"model{seed}", kind(config).eval(), tokenizer)

"""A tokenizer of letters, the same for all tests of decoding."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz .,?"


def letters(*control: str, text: str = LETTERS) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per letter, after two control tokens; more control tokens come last."""
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate(["<eos>", "<pad>", *text])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )
    fast.add_special_tokens({"additional_special_tokens": list(control)})
    return fast

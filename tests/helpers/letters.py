"""A tokenizer of letters, the same for all tests of decoding."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prt.language.decode import Reward, Rewarded
from prt.language.models import Causal

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


def put(target: Causal, reward: Causal, strength: float = 1.0) -> Rewarded:
    """A reward without a folder on a target."""
    return Rewarded(target, [Reward(reward, {}, Path())], strength)

"""Pretraining of the miniature language models: tiny Llamas, written as ordinary folders of transformers."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from shutil import copyfile

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prt.atomic import remove, replacing, scratch, write_json
from prt.errors import known
from prt.language.models import vocabulary
from prt.miniature.text import CORPORA, batch, tokenizer
from prt.recipe import Recipe
from prt.training import fit

# Hidden size; heads of 16, two layers, an MLP of twice the hidden size.
SIZES = {"s": 64, "m": 96, "l": 128}
LENGTH = 64
# Rotary positions cost no weights: room for lm-eval's longest answers (IFEval: 1,280 tokens).
POSITIONS = 2048


def architecture(size: str, kind: str | None = None) -> LlamaConfig:
    """The configuration of a size: a Llama with tied embeddings, over the tokens of a kind.

    Raises:
        InputError: if ``size`` is not among SIZES.
    """
    known(size, SIZES, "size")
    width, words = SIZES[size], tokenizer(kind)
    return LlamaConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        initializer_range=0.1,  # five times the default: so narrow a network learns far sooner
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def pretrain(
    size: str,
    corpus: str,
    recipe: Recipe,
    seed: int,
    out: Path,
    checkpoint: Path,
    kind: str | None = None,
    stop: int | None = None,
) -> None:
    """Train a language model on a corpus and write it to the folder ``out``.

    Args:
        size: a key of SIZES.
        corpus: a key of ``prt.miniature.text.CORPORA``.
        recipe: its batch counts rows of 64 tokens.
        seed: of the initial weights and of the batches.
        out: gets model.safetensors, the tokenizer, origin.json (what it was made of) and, last, config.json: a folder
            with the latter is whole.
        checkpoint: a file to resume from, removed at the end.
        kind: of its tokenizer, a key of ``prt.miniature.tokenizers.TOKENIZERS``.
        stop: the iteration to end after: the network is then a checkpoint of the pretraining.

    Raises:
        InputError: on unknown names, or where the files cannot be written.
    """
    known(corpus, CORPORA, "corpus")
    config, texts = architecture(size, kind), CORPORA[corpus]
    torch.manual_seed(seed)
    network = LlamaForCausalLM(config)

    def batches(start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in count(start):
            yield batch(texts, recipe.batch, LENGTH, seed, step, kind)

    def loss(rows: tuple[Tensor, Tensor]) -> Tensor:
        ids, positions = rows
        # Positions that start anew, without a cache, are how transformers keeps the documents of a row apart.
        logits = network(input_ids=ids[:, :-1], position_ids=positions[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    words = vocabulary(tokenizer(kind)).sha256
    origin = {"size": size, "corpus": {corpus: texts}, "vocabulary": words, "recipe": recipe.model_dump(), "seed": seed}
    origin |= {} if stop is None else {"stop": stop}
    fit(
        network.model,  # every parameter: the output layer is its embedding
        loss,
        batches,
        recipe,
        name=f"pretrain {size} {corpus}",
        checkpoint=checkpoint,
        identity=origin | {"config": config.to_dict()},
        stop=stop,
    )
    _save(out, network.eval(), tokenizer(kind), origin)
    remove(checkpoint)


def _save(out: Path, network: LlamaForCausalLM, words: PreTrainedTokenizerFast, origin: dict[str, object]) -> None:
    """Every file whole or not at all, config.json last."""
    remove(out / "config.json")
    write_json(out / "origin.json", origin)
    with scratch("pretrain") as aside:
        network.save_pretrained(aside)
        words.save_pretrained(aside)
        for file in sorted(aside.iterdir(), key=lambda file: file.name == "config.json"):
            with replacing(out / file.name) as part:
                copyfile(file, part)

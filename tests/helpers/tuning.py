"""Tiny language models, chats of sums, and a way to tune the one on the other."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import prt.cell
from prt.language.chats import Manifest, chat_template, prepare, read_manifest, read_tokens, tokenise
from prt.language.network import Tuned
from prt.language.recipe import Recipe
from prt.language.reward import load_tuned
from prt.language.trainer import collator
from prt.language.tune import Tuning, tune

CPU = torch.device("cpu")
END = "<|endoftext|>"
SIZE = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
RECIPE = Recipe(
    lr=1e-2, batch=8, epochs=2, max_length=64, precision="fp32", per_device_batch=4, gradient_checkpointing=False
)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and an end; a folder with a Qwen2 gets Qwen2's own, so it has its name."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([END, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


TOKENS = len(bytes_tokenizer())
Run = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def imported() -> Iterator[None]:
    """The trainer collects garbage before each run, which takes half a second with all that is imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Llama whose output matrix is the embeddings', and a Qwen2 with padding rows that are likely."""
    top = tmp_path_factory.mktemp("bases")
    torch.manual_seed(0)
    made = {
        "llama": LlamaForCausalLM(
            LlamaConfig(**SIZE, vocab_size=TOKENS, max_position_embeddings=64, tie_word_embeddings=True)
        ),
        "qwen": Qwen2ForCausalLM(
            Qwen2Config(**SIZE, vocab_size=TOKENS + 7, max_position_embeddings=64, tie_word_embeddings=False)
        ),
    }
    with torch.no_grad():
        made["qwen"].lm_head.weight[TOKENS:] *= 50
    for name, model in made.items():
        model.save_pretrained(top / name)
        bytes_tokenizer().save_pretrained(top / name)
    return {name: top / name for name in made}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Twenty short sums to learn and five to validate on."""
    top = tmp_path_factory.mktemp("chats")
    chats = [
        {"messages": [{"role": "user", "content": f"{a}+{b}"}, {"role": "assistant", "content": f"#{a + b}" * (1 + a)}]}
        for a in range(5)
        for b in range(5)
    ]
    (top / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    prepare(f"jsonl:{top / 'chats.jsonl'}", top / "data", downloads=top, validation=0.2)
    return read_manifest(top / "data")


@pytest.fixture
def run(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> Run:
    """Tune with a few words; the folder of its seeds."""

    def run(out: str, method: str = "prt", base: str = "llama", **options: Any) -> Path:
        given: dict[str, Any] = {"recipe": RECIPE, "seeds": [0], "lora": None, "template": "tulu", **options}
        lora, alpha = given["lora"], given.get("alpha", None if method == "ft" else 0.0)
        tunings = [
            Tuning(
                prt.cell.Run(dataset="sums", model=base, method=method, alpha=alpha, lora=lora is not None, seed=seed),
                given["recipe"],
                lora,
                tmp_path / out / str(seed),
                tmp_path / f"{out}-checkpoints" / str(seed),
                tuple(str(bases[name]) for name in given["recipe"].references),
            )
            for seed in given["seeds"]
        ]
        tune(str(bases[base]), tunings, data=data, device=CPU, template=given["template"])
        assert not list((tmp_path / f"{out}-checkpoints").glob("*"))
        return tmp_path / out

    return run


def weights(folder: Path) -> dict[str, Tensor]:
    return load_tuned(folder, torch.float32, CPU).model.state_dict()


def same(a: Path, b: Path) -> bool:
    mine, theirs = weights(a), weights(b)
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def losses(folder: Path) -> list[float]:
    return pd.read_csv(folder / "curve.csv")["loss"].tolist()


def rows_of(data: Manifest, split: str, folder: Path) -> Any:
    """The tokens of a split, a row for each conversation."""
    tokenizer = bytes_tokenizer()
    file = folder / f"naive-{split}.arrow"
    tokenise(data, split, file, tokenizer, chat_template(tokenizer, "tulu", "bytes"), 64)
    return read_tokens(file)[0]


def tokens_of(data: Manifest, split: str, folder: Path) -> dict[str, Tensor]:
    """The tokens of a split as one batch with padding."""
    return collator(False, 0)(list(rows_of(data, split, folder)))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Have something happen before the n-th forward pass of training."""

    def at(count: int, happen: Callable[[], Any]) -> None:
        forward, calls = Tuned.forward, [0]

        def counted(self: Tuned, *args: Any, **options: Any) -> Tensor:
            calls[0] += self.training
            if calls[0] == count and self.training:
                happen()
            return forward(self, *args, **options)

        monkeypatch.setattr(Tuned, "forward", counted)

    return at


def interrupt() -> None:
    raise KeyboardInterrupt

"""Chat data: prepared whole or refused with the line's number, encoded with a loss mask, padded or packed."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from helpers.chats import chat, prepared, write
from helpers.hub import COMMIT, Server, hub, server
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prt.atomic import read_json
from prt.errors import InputError
from prt.language.chats import (
    IGNORED,
    chat_template,
    collator,
    encode,
    fetch,
    prepare,
    read_manifest,
    read_tokens,
    tokenise,
)


def bytes_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """One token for each byte, and </s>; with ``bos``, texts begin with <s>, as Llama's do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


__all__ = ["hub", "server"]  # fixtures
TOKENIZER = bytes_tokenizer()
TULU = chat_template(TOKENIZER, "tulu", "bytes")


def read(folder: Path, split: str) -> list[Any]:
    return datasets.Dataset.from_file(str(folder / f"{split}.arrow"))["messages"][:]


def test_prepare(tmp_path: Path) -> None:
    chats = [chat(f"question {i}", f"answer {i}", system="Be brief." if i % 3 else "") for i in range(50)]
    chats[7] |= {"id": "seven", "dataset": "other"}
    chats[7]["messages"][0]["weight"] = 1
    source = f"jsonl:{write(tmp_path / 'chats.jsonl', *chats)}"
    prepare(source, tmp_path / "data", downloads=tmp_path, validation=0.1)
    train, validation = (read(tmp_path / "data", split) for split in ("train", "validation"))
    del chats[7]["messages"][0]["weight"]
    expected = [c["messages"] for c in chats]
    assert (len(train), len(validation)) == (45, 5)
    assert sorted(train + validation, key=str) == sorted(expected, key=str)
    assert [m for m in expected if m in train] == train  # in the file's order
    manifest = read_manifest(tmp_path / "data")
    assert manifest.conversations == {"train": 45, "validation": 5}
    prepare(source, tmp_path / "again", downloads=tmp_path, validation=0.1)
    assert read_manifest(tmp_path / "again").fingerprint == manifest.fingerprint
    write(tmp_path / "chats.jsonl", *chats[:-1], chat("another", "one"))
    prepare(source, tmp_path / "again", downloads=tmp_path, validation=0.1)
    assert read_manifest(tmp_path / "again").fingerprint != manifest.fingerprint


def test_bad_sources(tmp_path: Path) -> None:
    def refused(complaint: str, source: str, validation: float = 0.5) -> None:
        with pytest.raises(InputError, match=complaint):
            prepare(source, tmp_path / "data", downloads=tmp_path, validation=validation)

    refused("unknown kind of chat data source 'json': did you mean 'jsonl'", "json:chats.jsonl")
    refused("the chat file none.jsonl does not exist", "jsonl:none.jsonl")
    one = write(tmp_path / "one.jsonl", chat("q", "a"))
    refused("has 1 conversations, but needs two or more", f"jsonl:{one}")
    refused("share of validation is 1", f"jsonl:{one}", 1)
    refused("write 'miniature:chats'", "embedded:chats")
    refused("'owner/chats' is not in .*run `snakemake fetch`", "huggingface:owner/chats")
    (tmp_path / "text").mkdir()
    write(tmp_path / "text" / "train.jsonl", {"text": "hello"})
    refused("has no column 'messages', but text; take chat data", f"huggingface:{tmp_path / 'text'}")
    write(tmp_path / "text" / "train.jsonl", {"instruction": "q", "output": "a"})
    refused("but instruction, output; it is in Alpaca's layout", f"huggingface:{tmp_path / 'text'}")
    write(tmp_path / "text" / "train.jsonl", *[{"messages": [{"from": "human", "value": "q"}]}] * 2)
    refused("leaves no conversation for 'train' .it is in ShareGPT's layout", f"huggingface:{tmp_path / 'text'}")
    (tmp_path / "text" / "train.jsonl").rename(tmp_path / "text" / "test.jsonl")
    refused("has no split 'train'; it has test", f"huggingface:{tmp_path / 'text'}")


def test_hub_data(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In Tulu v2's layout, as fetched; what the user cannot mend is left out, told and counted."""
    folder = tmp_path / "hub" / "owner" / "chats"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\n---\n"
    )
    rows = [chat(f"q {i}", f"a {i}") | {"id": str(i), "dataset": "x"} for i in range(6)]
    rows[4] = chat("hello") | {"id": "4", "dataset": "x"}
    for split in ("train", "test"):
        datasets.Dataset.from_list(rows).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    prepare("huggingface:owner/chats", tmp_path / "data", downloads=tmp_path, validation=0.34)
    manifest = read_json(tmp_path / "data" / "manifest.json")
    assert manifest["left_out"] == {"it has no turn of the assistant, so nothing to learn": 1}
    told = capfd.readouterr().err
    assert "1 rows left out, as it has no turn of the assistant" in told
    assert "'owner/chats': not used, as conversations are held out of 'train': test.\n" in told
    kept = read(tmp_path / "data", "train") + read(tmp_path / "data", "validation")
    assert sorted(kept, key=str) == [row["messages"] for i, row in enumerate(rows) if i != 4]


def test_fetch(hub: Server, tmp_path: Path) -> None:
    """What is downloaded appears whole or not at all, and is then prepared without a network."""
    rows = b"".join(json.dumps(chat(f"q {i}", f"a {i}")).encode() + b"\n" for i in range(9))
    file = hub.repository("owner/chats", {"train.jsonl": rows}) + "train.jsonl"
    hub.repository("gated/chats", {"train.jsonl": rows})
    del hub.files[file]
    downloads, out = tmp_path / "downloads", tmp_path / "receipt.json"
    with pytest.raises(InputError, match="the data set owner/chats could not be downloaded"):
        fetch("huggingface:owner/chats", downloads, out)
    assert not (downloads / "hub" / "owner" / "chats").exists()
    hub.files[file] = rows
    fetch("huggingface:owner/chats", downloads, out)
    with pytest.raises(InputError, match=r"gated/chats is gated: accept its licence at .*/datasets/gated/chats, then"):
        fetch("huggingface:gated/chats", downloads, tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()
    receipt = {"source": "huggingface:owner/chats", "repository": "owner/chats", "revision": COMMIT}
    assert read_json(out) == receipt
    hub.asked.clear()
    fetch("huggingface:owner/chats", downloads, out)
    fetch(f"huggingface:{tmp_path}", downloads, tmp_path / "none.json")
    prepare("huggingface:owner/chats", tmp_path / "data", downloads=downloads, validation=0.3)
    assert not hub.asked  # neither for what is there, nor for a folder
    assert read_json(out) == receipt
    assert read_manifest(tmp_path / "data").conversations == {"train": 6, "validation": 3}
    assert read_json(tmp_path / "data" / "manifest.json")["revision"] == COMMIT


def test_bad_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json does not exist"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"kind": "vision"}')
    with pytest.raises(InputError, match="holds no chat data, but data of kind vision"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"kind": "language", "train": 3}')
    with pytest.raises(InputError, match="is damaged"):
        read_manifest(tmp_path)


def test_tulu_s_format() -> None:
    """As the authors of Tulu v2 publish it, "note the newlines"."""
    messages = chat("Your message here!", "An answer.", "More?", "No.", system="Be brief.")["messages"]
    text = TOKENIZER.apply_chat_template(messages, chat_template=TULU, tokenize=False)
    assert text == (
        "<|system|>\nBe brief.\n<|user|>\nYour message here!\n<|assistant|>\nAn answer.</s>\n"
        "<|user|>\nMore?\n<|assistant|>\nNo.</s>"
    )
    prompt = TOKENIZER.apply_chat_template(
        messages[1:2], chat_template=TULU, tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|user|>\nYour message here!\n<|assistant|>\n"
    llama = bytes_tokenizer(bos=True)
    text = llama.apply_chat_template(messages[1:3], chat_template=chat_template(llama, "tulu", "llama"), tokenize=False)
    assert text == "<s><|user|>\nYour message here!\n<|assistant|>\nAn answer.</s>"


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=40)
@given(turns=st.lists(TEXT, min_size=2, max_size=5), cut=st.integers(1, 120))
def test_labels_are_the_assistant_s_tokens(turns: list[str], cut: int) -> None:
    messages = chat(*turns)["messages"]
    ((ids, labels, truncated),) = encode([messages], TOKENIZER, TULU, 10_000)
    assert not truncated
    said = [m["content"] + "</s>" for m in messages if m["role"] == "assistant"]
    assert TOKENIZER.decode([label for label in labels if label != IGNORED]) == "".join(said)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    assert encode([messages], TOKENIZER, TULU, cut) == [(ids[:cut], labels[:cut], len(ids) > cut)]


def test_tokenise(tmp_path: Path) -> None:
    """Long conversations are cut and counted; where nothing of the assistant is left, they are dropped."""
    data = prepared(tmp_path, *[chat("q", "a" * n) for n in (1, 1, 90, 200)], *[chat("q" * 90, "a")] * 3)
    totals = {"conversations": 0, "truncated": 0, "dropped": 0}
    for split in ("train", "validation"):
        tokenise(data, split, tmp_path / f"{split}.arrow", TOKENIZER, TULU, 60)
        rows, counts = read_tokens(tmp_path / f"{split}.arrow")
        assert len(rows) == counts["conversations"]
        for row in rows:
            assert len(row["input_ids"]) == len(row["labels"]) <= 60
            assert any(label != IGNORED for label in row["labels"])
        totals = {key: totals[key] + counts[key] for key in totals}
    assert totals == {"conversations": 4, "truncated": 5, "dropped": 3}
    with pytest.raises(InputError, match="has a token of the assistant within the first 5: raise max_length"):
        tokenise(data, "train", tmp_path / "short.arrow", TOKENIZER, TULU, 5)
    assert not (tmp_path / "short.arrow").exists()
    (tmp_path / "data" / "train.arrow").unlink()
    with pytest.raises(InputError, match=r"has no train.arrow; prepare it again"):
        tokenise(data, "train", tmp_path / "short.arrow", TOKENIZER, TULU, 60)


def test_templates() -> None:
    def refused(complaint: str, tokenizer: PreTrainedTokenizerBase, template: str = "own") -> None:
        with pytest.raises(InputError, match=complaint):
            chat_template(tokenizer, template, "tiny")

    tokenizer = bytes_tokenizer()
    refused("unknown chat template 'tulo': did you mean 'tulu'", tokenizer, "tulo")
    refused("the tokenizer of tiny has no chat template of its own", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    refused("does not mark the assistant's tokens with {% generation %}", tokenizer)
    own = "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    tokenizer.chat_template = own
    assert chat_template(tokenizer, "own", "tiny") == own
    (row,) = encode([chat("ab", "c")["messages"]], tokenizer, own, 10)
    assert row[1][0] == IGNORED  # nothing is before the first token to tell it from
    with pytest.raises(InputError, match=r"refuses a conversation \(TemplateError: begin with the user\)"):
        encode([chat("ab", "c")["messages"]], tokenizer, "{{ raise_exception('begin with the user') }}", 10)
    tokenizer.eos_token = None
    refused("has no end of sequence", tokenizer, "tulu")


ROWS = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=9), min_size=1, max_size=5)


@given(ids=ROWS, pad=st.integers(0, 300), data=st.data())
def test_batches(ids: list[list[int]], pad: int, data: st.DataObject) -> None:
    """One row of all, or rows of one length; no first token is learned, as nothing comes before it."""
    labels = [[IGNORED, *(token if data.draw(st.booleans()) else IGNORED for token in row[1:])] for row in ids]
    rows = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]
    length = max(map(len, ids))
    expected = {
        True: {
            "input_ids": [[token for row in ids for token in row]],
            "labels": [[label for row in labels for label in row]],
            "position_ids": [[i for row in ids for i in range(len(row))]],
        },
        False: {
            "input_ids": [row + [pad] * (length - len(row)) for row in ids],
            "labels": [row + [IGNORED] * (length - len(row)) for row in labels],
            "attention_mask": [[1] * len(row) + [0] * (length - len(row)) for row in ids],
        },
    }
    for packing, tensors in expected.items():
        batch = collator(packing, pad)(rows)
        assert {name: tensor.tolist() for name, tensor in batch.items()} == tensors
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_the_border_of_packed_rows_is_not_learned() -> None:
    """Even of rows that :func:`encode` did not make."""
    batch = collator(True, 0)([{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7, 8], "labels": [7, 8]}])
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, 8]]


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_packed_rows_do_not_see_each_other(kind: str) -> None:
    """Logits of a packed row are those of each conversation alone; with a cache they would not be."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation(kind)
    ids = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
    rows = [{"input_ids": row, "labels": row} for row in ids]
    one, many = collator(True, 0)(rows), collator(False, 0)(rows)
    del one["labels"], many["labels"]
    with torch.no_grad():
        alone = [model(torch.tensor([row])).logits[0] for row in ids]
        together = model(**one, use_cache=False).logits[0].split([len(row) for row in ids])
        beside = model(**many).logits
        mixed = model(**one, use_cache=True).logits[0].split([len(row) for row in ids])
    for i, row in enumerate(ids):
        torch.testing.assert_close(together[i], alone[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(beside[i, : len(row)], alone[i], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(mixed[2], alone[2], atol=1e-3)  # what use_cache=False is for

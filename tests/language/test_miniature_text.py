"""The miniature language models: problems and instructions, corpora, their tokenizer, pretraining that resumes."""

import json
import re
import signal
import string
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from transformers import LlamaForCausalLM

from prt.atomic import file_hash
from prt.errors import InputError
from prt.language.models import load, shared_ids, vocabulary
from prt.language.text import Texts
from prt.miniature import pretrain_text, tasks, text
from prt.miniature.tokenizers import TOKENIZERS
from prt.plan.texts import MINIATURE
from prt.training import Recipe

RECIPE = Recipe(optimizer="adamw", lr=1e-3, batch=2, steps=3, warmup=1, weight_decay=0.1, beta2=0.98)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model pretrained for three iterations."""
    out = tmp_path_factory.mktemp("miniature") / "s-poor"
    pretrain_text.pretrain("s", "poor", RECIPE, 0, out, out.parent / "checkpoint.safetensors")
    return out


@pytest.fixture(scope="module")
def ifeval() -> ModuleType:
    """lm-eval's judge of IFEval; its import asks the network for NLTK's tables, which these instructions don't need."""
    import nltk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk, "download", lambda *_: True)
        from lm_eval.tasks.ifeval import utils
    return utils


def followed(ifeval: ModuleType, row: dict[str, object], response: str) -> list[bool]:
    """Which of a row's instructions ``response`` follows, strictly."""
    verdict: list[bool] = ifeval.process_results(row, [response])["inst_level_strict_acc"]
    return verdict


def solve(told: str) -> tuple[tuple[int, ...], int]:
    """The number bond and the result of a problem or story, read off its words."""
    first, second = map(int, re.findall(r"\d+", told)[:2])
    if " more " in told or "ogether" in told:
        return tuple(sorted((first, second))), first + second
    return tuple(sorted((second, first - second))), first - second


def test_the_splits_share_no_number_bond_and_no_order() -> None:
    """All hundred bonds are dealt out, each to one split; so are the orders."""
    dealt = [bond for split in tasks.SPLITS for bond in tasks.bonds(split)]
    assert len(dealt) == len(set(dealt)) == 100
    assert {split: len(tasks.bonds(split)) for split in tasks.SPLITS} == {"train": 60, "validation": 20, "test": 20}
    seen: list[tuple[str, frozenset[str]]] = []
    for split in tasks.SPLITS:
        seen += [(thing, frozenset(i.sentence for i in given)) for thing, given in tasks.orders(split)]
    assert len(seen) == len(set(seen))


def test_the_problems_are_solved_rightly() -> None:
    """By the words of the question; in GSM8K's form; each bond as often as the others."""
    asked = {}
    for split, count in (tasks.SIZES | {"train": tasks.PROBLEM_CHATS}).items():
        asked[split] = tasks.problems(split, count)
        assert len({p.question for p in asked[split]}) == count
        for p in asked[split]:
            sentence, mark, number = p.answer.partition("\n#### ")
            assert mark and (p.bond, int(number)) == solve(p.question)
            assert re.search(rf" {number} \w+\.$", sentence)
            assert p.bond in tasks.bonds(split)
    assert set(Counter(p.bond for p in asked["test"]).values()) == {tasks.SIZES["test"] // 20}
    assert {solve(p.question)[1] == sum(p.bond) for p in asked["test"]} == {True, False}  # adding, and taking away


def test_no_text_of_the_corpora_asks_a_held_out_problem() -> None:
    """Questions with two numbers are on training bonds only, in pretraining and in the chats."""
    texts = [t for corpus in text.CORPORA.values() for t in islice(text.documents(corpus, Random(3)), 4000)]
    texts += [turn["content"] for chat in tasks.chats() for turn in chat["messages"] if turn["role"] == "user"]
    found = set()
    for words in texts:
        for question in re.findall(r"[^\n]*How many[^\n?]*\?", words):
            if len(re.findall(r"\d+", question)) == 2:
                found.add(solve(question)[0])
    assert found == set(tasks.bonds("train"))


def test_the_sums_of_the_corpora_are_right() -> None:
    """Facts, equations and stories; every bond is told somewhere."""
    told = set()
    for kind in ("fact", "equation"):
        random = Random(4)
        for _ in range(800):
            sums = re.findall(r"(\d+) (plus|minus|\+|-) (\d+) (?:is|=) (\d+)", text.KINDS[kind](random))
            assert len(sums) in (3, 4)
            for a, sign, b, result in sums:
                assert int(result) == (int(a) + int(b) if sign in ("plus", "+") else int(a) - int(b))
                if sign in ("plus", "+"):
                    told.add(tuple(sorted((int(a), int(b)))))
    assert told == {bond for split in tasks.SPLITS for bond in tasks.bonds(split)}
    random = Random(5)
    for _ in range(400):
        story = text.KINDS["story"](random)
        assert "?" not in story and "####" not in story
        assert int(re.findall(r"\d+", story)[2]) == solve(story)[1]


def test_the_marks_of_the_answers_are_in_both_corpora_elsewhere() -> None:
    """A token that pretraining never saw cannot be transferred; but no text answers a question with it."""
    for corpus in text.CORPORA.values():
        texts = list(islice(text.documents(corpus, Random(6)), 2000))
        assert sum("\n#### " in words for words in texts) > 40
        assert not any("####" in words and ("?" in words or "<|assistant|>" in words) for words in texts)


def test_every_tuned_answer_follows_its_instructions(ifeval: ModuleType) -> None:
    """By IFEval's own checkers; an answer without heed to them mostly fails."""
    followed_all, blind = [], []
    for chat in tasks.chats():
        asked, said = (turn["content"] for turn in chat["messages"])
        given = [i for i in tasks.INSTRUCTIONS if i.sentence in asked]
        assert bool(given) != ("####" in said)
        row = {
            "key": 0,
            "prompt": asked,
            "instruction_id_list": [i.id for i in given],
            "kwargs": [dict(i.kwargs) for i in given],
        }
        if given:
            followed_all.append(all(followed(ifeval, row, said)))
            blind.append(all(followed(ifeval, row, tasks.describe("cat", ["odd", "tall", "shy"]))))
    assert len(followed_all) == tasks.INSTRUCTION_CHATS and all(followed_all)
    assert sum(blind) < 0.05 * len(blind)


@pytest.mark.parametrize("split", tasks.SIZES)
def test_the_instructions_have_ifevals_columns(split: str, ifeval: ModuleType) -> None:
    """One set of arguments in every row; each can be followed, and none is among the chats."""
    rows = tasks.instructions(split, tasks.SIZES[split])
    requests = {chat["messages"][0]["content"] for chat in tasks.chats()}
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert {i for row in rows for i in row["instruction_id_list"]} == {i.id for i in tasks.INSTRUCTIONS}
    for key, row in enumerate(rows):
        assert list(row) == ["key", "prompt", "instruction_id_list", "kwargs"] and row["key"] == key
        assert row["prompt"] not in requests
        assert all(
            set(arguments) == {"num_bullets", "keywords", "end_phrase", "postscript_marker"}
            for arguments in row["kwargs"]
        )
        thing = next(thing for thing in tasks.THINGS if thing in row["prompt"])
        given = [i for i in tasks.INSTRUCTIONS if i.sentence in row["prompt"]]
        assert all(followed(ifeval, row, tasks.response(thing, given, Random(key))))


def test_a_kind_of_chats_is_a_part_of_all() -> None:
    every, problems, instructions = (
        Counter(turn["content"] for chat in tasks.chats(kind) for turn in chat["messages"]) for kind in MINIATURE
    )
    assert every == problems + instructions
    assert sum("#### " in said for said in problems.elements()) == tasks.PROBLEM_CHATS
    assert not any("####" in said for said in instructions)


def test_the_files_hold_the_rows(tmp_path: Path) -> None:
    """JSON Lines with GSM8K's and IFEval's columns, the same at every call."""
    for again in ("a", "b"):
        tasks.write_chats(tmp_path / again / "chats.jsonl")
        tasks.write_problems(tmp_path / again / "problems")
        tasks.write_instructions(tmp_path / again / "instructions")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jsonl"))
    assert [str(file) for file in files] == [
        "chats.jsonl",
        "instructions/test.jsonl",
        "instructions/validation.jsonl",
        "problems/test.jsonl",
        "problems/validation.jsonl",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a" / "problems" / "test.jsonl").read_text().splitlines()]
    assert [row["question"] for row in rows] == [p.question for p in tasks.problems("test", tasks.SIZES["test"])]
    assert set(rows[0]) == {"question", "answer"}
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        tasks.write_problems(tmp_path / "file")


def test_the_tokenizer_gives_every_text_back() -> None:
    """All of printable ASCII, the corpora, and numbers up to twenty as one token; it is trained the same each time."""
    words = text.tokenizer()
    samples = [
        string.printable[:95] + "\n\nx\n",
        "  two spaces",
        *(d for c in text.CORPORA.values() for d in islice(text.documents(c, Random(7)), 200)),
    ]
    samples += [turn["content"] for chat in tasks.chats()[:200] for turn in chat["messages"]]
    for sample in samples:
        assert words.decode(words.encode(sample)) == sample
        assert words.unk_token_id not in words.encode(sample)
    for n in range(1, tasks.GREATEST + 1):
        assert words.tokenize(f"#### {n}") == ["####", f"Ġ{n}"] and words.tokenize(f"is {n}.")[1:] == [f"Ġ{n}", "."]
    assert words.unk_token_id in words.encode("grüßen")
    again = text.tokenizer.__wrapped__()
    assert again.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()


@pytest.mark.parametrize("kind", ["pieces", "threes"])
def test_a_tokenizer_of_another_kind(kind: str, tmp_path: Path) -> None:
    """It gives every text back, also what is no ASCII, its tokens are bytes, and a model is pretrained in them."""
    words = text.tokenizer(kind)
    assert kind in TOKENIZERS and words.unk_token is None
    for sample in ["  two spaces", "grüßen 345", *islice(text.documents(text.CORPORA["rich"], Random(7)), 50)]:
        assert words.decode(words.encode(sample)) == sample
    cut = {"pieces": ["▁is", "▁1", "2", ".", "\n", "A"], "threes": ["is", "Ġ", "12", ".Ċ", "A"]}
    assert words.tokenize("is 12.\nA") == cut[kind]
    assert Texts(kind, words).size == len(words)
    with pytest.raises(InputError, match="have different tokenizers"):
        shared_ids(vocabulary(words), vocabulary(text.tokenizer()), (kind, "own"))
    pretrain_text.pretrain("s", "poor", RECIPE, 0, tmp_path / "m", tmp_path / "checkpoint.safetensors", kind)
    causal = load(str(tmp_path / "m"), torch.float32, torch.device("cpu"))
    assert vocabulary(causal.tokenizer) == vocabulary(words)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    """Whole documents one after the other, with positions that start anew; another seed, step or corpus differs."""
    corpus, words = text.CORPORA["poor"], text.tokenizer()
    ids, positions = text.batch(corpus, 4, 32, seed=1, step=2)
    again, same = text.batch(corpus, 4, 32, seed=1, step=2)
    assert torch.equal(ids, again) and torch.equal(positions, same)
    assert ids.shape == positions.shape == (4, 32) and ids.dtype == positions.dtype == torch.int64
    documents = words.decode(ids.flatten().tolist()).split(text.END)
    assert documents[:-1] == list(islice(text.documents(corpus, Random("1 2")), len(documents) - 1))
    ends = (ids.flatten() == words.eos_token_id)[:-1]
    assert torch.equal(positions.flatten()[1:] == 0, ends)
    assert torch.equal(positions.flatten()[1:][~ends], positions.flatten()[:-1][~ends] + 1)
    for other in (
        text.batch(corpus, 4, 32, 2, 2),
        text.batch(corpus, 4, 32, 1, 3),
        text.batch(text.CORPORA["rich"], 4, 32, 1, 2),
    ):
        assert not torch.equal(ids, other[0])


def test_documents_of_one_row_do_not_see_each_other() -> None:
    """As the pretraining calls it: a document's logits in a row are those of the document alone."""
    torch.manual_seed(0)
    network = LlamaForCausalLM(pretrain_text.architecture("s")).eval()
    ids, positions = text.batch(text.CORPORA["rich"], 1, 64, 0, 0)
    start = int((positions[0] == 0).nonzero()[1])
    with torch.inference_mode():
        row = network(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = network(input_ids=ids[:, start:], position_ids=positions[:, start:], use_cache=False).logits
        mixed = network(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(row[:, start:], alone, atol=1e-4, rtol=1e-4)
    assert (mixed[:, start:] - alone).abs().max() > 0.1


def test_the_folder_is_an_ordinary_model(folder: Path) -> None:
    """It loads with its tokenizer, generates, and shares its vocabulary with the rest of the family."""
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "origin.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not list(folder.parent.glob("checkpoint*"))
    causal = load(str(folder), torch.float32, torch.device("cpu"))
    assert causal.model.config.tie_word_embeddings
    assert causal.model.get_output_embeddings().weight is causal.model.get_input_embeddings().weight
    mine = vocabulary(causal.tokenizer)
    assert mine.size == causal.model.config.vocab_size == len(text.tokenizer())
    assert len(shared_ids(mine, vocabulary(text.tokenizer()), ("a", "b"))) == mine.size
    prompt = causal.tokenizer("Question: Tom", return_tensors="pt")
    assert causal.model.generate(**prompt, max_new_tokens=3, do_sample=False).shape == (
        1,
        prompt.input_ids.shape[1] + 3,
    )
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["size"], origin["seed"], origin["vocabulary"]) == ("s", 0, mine.sha256)
    assert origin["corpus"] == {"poor": text.CORPORA["poor"]}


@pytest.mark.parametrize("size", pretrain_text.SIZES)
def test_the_sizes_grow(size: str) -> None:
    """Each is a Llama of its width, with every parameter in the part that is trained."""
    network = LlamaForCausalLM(pretrain_text.architecture(size))
    assert network.config.hidden_size == pretrain_text.SIZES[size]
    assert {id(p) for p in network.parameters()} == {id(p) for p in network.model.parameters()}


def test_a_killed_run_goes_on_bit_for_bit(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the second iteration, then the same call: the weights of a run that was never stopped."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    steps: list[int] = []
    plain = text.batch

    def terminating(*arguments: object) -> object:
        steps.append(arguments[4])
        if arguments[4] == 1 and len(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(pretrain_text, "batch", terminating)
    with pytest.raises(SystemExit):
        pretrain_text.pretrain("s", "poor", RECIPE, 0, tmp_path / "resumed", checkpoint)
    assert checkpoint.exists() and not (tmp_path / "resumed").exists()
    pretrain_text.pretrain("s", "poor", RECIPE, 0, tmp_path / "resumed", checkpoint)
    assert steps[:3] == [0, 1, 2] and 0 not in steps[2:]
    assert file_hash(folder / WEIGHTS) == file_hash(tmp_path / "resumed" / WEIGHTS)
    assert not checkpoint.exists()


def test_the_seed_matters(folder: Path, tmp_path: Path) -> None:
    """Another seed, other weights."""
    pretrain_text.pretrain("s", "poor", RECIPE, 1, tmp_path / "other", tmp_path / "checkpoint")
    assert file_hash(folder / WEIGHTS) != file_hash(tmp_path / "other" / WEIGHTS)


@pytest.mark.parametrize(("size", "corpus", "near"), [("xs", "poor", "s"), ("s", "pour", "poor")])
def test_unknown_names_are_refused(size: str, corpus: str, near: str, tmp_path: Path) -> None:
    """With the nearest name."""
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        pretrain_text.pretrain(size, corpus, RECIPE, 0, tmp_path / "out", tmp_path / "checkpoint")

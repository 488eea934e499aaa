"""Generating with a reward on a target of another tokenizer."""

import copy
import io
import json
import math
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import torch
import yaml
from helpers.cutting import END, TURN, bpe, byte_level, random_model, sentencepiece
from helpers.harness import ARC, PROBLEMS, TASK, lines, read
from helpers.letters import letters, put
from transformers import TextStreamer

from prt.errors import InputError
from prt.language import prompts, text_decode
from prt.language.decode import Rewarded, load_reward, next_tokens, put_on
from prt.language.reward import save_tuned, weights_hash
from prt.language.text_decode import TextRewarded

LLAMA2, LLAMA3 = sentencepiece(), byte_level()
USER = "{% for m in messages %}{{ m.role }}: {{ m.content }}"
TURNS = USER + TURN + "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LINES = USER + "\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
TARGET = random_model(3, LLAMA3)
REWARD, PRETRAINED = (random_model(seed, LLAMA2) for seed in (1, 2))
PROMPT = "Tom has 12 pens."


def with_template(causal, template):
    tokenizer = copy.deepcopy(causal.tokenizer)
    tokenizer.chat_template = template
    return replace(causal, tokenizer=tokenizer)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_of_one_tokenizer_the_answer_is_that_of_prt(strength, monkeypatch):
    monkeypatch.setattr(text_decode, "MASS", 1.1)  # every token is a candidate
    target, reward, pretrained = (random_model(seed, letters()) for seed in (6, 30, 2))
    plain, text = put(target, reward, strength), TextRewarded(target, reward, pretrained, strength)
    for prompt in ("the cat sat", "what, is it"):  # no control token is likeliest anywhere, which text would not say
        answer = text.generate(prompt, max_new_tokens=14)
        assert answer == plain.generate(prompt, max_new_tokens=14)
        assert text.costs[1].calls <= text.tokens + 1


def test_an_answer_is_text_and_its_tokens_come_one_by_one():
    out = io.StringIO()
    with redirect_stdout(out):
        streamer = TextStreamer(LLAMA3, skip_prompt=True, skip_special_tokens=True)
        answer = TextRewarded(TARGET, REWARD, PRETRAINED).generate(PROMPT, max_new_tokens=12, streamer=streamer)
    assert out.getvalue() == answer + "\n" and answer


def test_strength_0_is_the_target_alone_among_what_the_source_can_say():
    text = TextRewarded(TARGET, REWARD, PRETRAINED, 0.0)
    answer = text.generate(PROMPT, max_new_tokens=1)
    logits = TARGET.model(torch.tensor([LLAMA3(PROMPT)["input_ids"]])).logits[0, -1, : len(LLAMA3)]
    assert answer in LLAMA3.batch_decode([[i] for i in logits.topk(12).indices.tolist()])


def test_of_one_tokenizer_likelihoods_are_those_of_prt(monkeypatch):
    target, reward, pretrained = (random_model(seed, letters()) for seed in (6, 30, 2))
    texts = ["the cat", "the dog", "zzz"]
    plain = put(target, reward, 0.5).composed
    expected = []
    for text in texts:
        ids = letters()("what is " + text)["input_ids"]
        with torch.no_grad():
            logits = plain.model(torch.tensor([ids])).logits[0]
        logits[:, plain.tokenizer.pad_token_id] = -math.inf  # a text says no control token
        logs = logits.log_softmax(-1)[range(6, len(ids) - 1), ids[7:]]  # the space before is no longer the prompt's
        expected.append(float(logs.sum()))
    found = TextRewarded(target, reward, pretrained, 0.5).likelihoods("what is ", texts)
    above = [value - exact for (value, _), exact in zip(found, expected, strict=True)]
    assert all(0 <= each < 0.6 for each in above)  # shares of the candidates, not of all tokens
    monkeypatch.setattr(text_decode, "MASS", 1.1)
    found = TextRewarded(target, reward, pretrained, 0.5).likelihoods("what is ", texts)
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-3)


def test_the_likeliest_answer_is_known_as_such():
    text = TextRewarded(TARGET, REWARD, PRETRAINED)
    answer = text.generate(PROMPT, max_new_tokens=6)
    others = [" and Ann 345.", " Tom", answer]
    found = text.likelihoods(PROMPT, others)
    assert [greedy for _, greedy in found] == [False, False, True]
    assert all(-math.inf < value < 0 for value, _ in found)
    assert [text.likelihoods(PROMPT, [each])[0] for each in others] == [
        (pytest.approx(value, abs=1e-4), greedy) for value, greedy in found
    ]


def test_what_the_source_cannot_say_is_impossible_and_changes_nothing_else():
    few = bpe("Tomhas ", ("h", "a"))
    text = TextRewarded(TARGET, *(random_model(seed, few) for seed in (1, 2)), 0.5)
    possible = text.likelihoods("Tom", [" has"])
    found = text.likelihoods("Tom", [" has 12", " has", "é", " has"])
    assert found[0] == found[2] == (-math.inf, False)
    assert found[1] == found[3] == (pytest.approx(possible[0][0], abs=1e-4), possible[0][1])
    assert math.isfinite(found[1][0])


def test_sampling_is_repeatable_and_ends_at_a_stop():
    text = TextRewarded(TARGET, REWARD, PRETRAINED, method="eft")
    torch.manual_seed(0)
    first = text.generate(PROMPT, max_new_tokens=10, temperature=1.0)
    torch.manual_seed(0)
    stop = first[1:3]
    short = text.generate(PROMPT, max_new_tokens=10, temperature=1.0, stop=[stop])
    assert stop in short and first.startswith(short) and stop not in short[:-1]


def test_each_model_is_asked_in_its_own_template_and_ends_with_its_own_token():
    target, reward = with_template(TARGET, TURNS), with_template(REWARD, LINES)
    text = TextRewarded(target, reward, PRETRAINED)
    assert text._templates(True) == [TURNS, LINES]
    assert [prompts.ends(m, m.tokenizer.chat_template) for m in (target, reward)] == [
        {LLAMA3.convert_tokens_to_ids(END), LLAMA3.convert_tokens_to_ids(TURN)},
        {LLAMA2.convert_tokens_to_ids(END)},
    ]
    (tree, _), (source, _) = (text._begun(n, PROMPT, 4, t) for n, t in enumerate([TURNS, LINES]))
    assert LLAMA3.decode(tree.prompt[0]) == f"user: {PROMPT}{TURN}assistant:"
    assert LLAMA2.decode(source.prompt[0]) == f"user: {PROMPT}\nassistant:\n"
    assert TextRewarded(TARGET, reward, PRETRAINED)._templates(True) == [LINES, LINES]  # a base model has none
    with pytest.raises(InputError, match="model1 has no chat template"):
        TextRewarded(target, REWARD, PRETRAINED).generate(PROMPT, chat=True, max_new_tokens=8)


def test_the_end_of_a_turn_is_the_end_whichever_token_a_model_ends_with():
    """The source is sure that its answer ends at once; the target knows an end of turn and an end of text."""
    ending = random_model(5, LLAMA2)
    head = ending.model.lm_head
    ending.model.lm_head = type(head)(16, head.out_features, bias=True)
    with torch.no_grad():
        ending.model.lm_head.weight.zero_()
        ending.model.lm_head.bias.zero_()
        ending.model.lm_head.bias[LLAMA2.eos_token_id] = 40.0
    target, reward = (
        with_template(TARGET, LINES.replace("\n{% endfor", TURN + "\n{% endfor")),
        with_template(ending, LINES),
    )
    text = TextRewarded(target, reward, PRETRAINED)
    assert text.generate(PROMPT, chat=True, max_new_tokens=5) == "" and text.tokens == 1


def test_a_prompt_that_ends_within_a_token_is_refused():
    with pytest.raises(InputError, match="the prompt ends with a space, which model3 takes into the answer's first"):
        TextRewarded(TARGET, REWARD, PRETRAINED).generate("Answer: ", max_new_tokens=8)
    with pytest.raises(InputError, match="the prompt is empty"):
        TextRewarded(TARGET, REWARD, PRETRAINED).generate(" ", max_new_tokens=8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(InputError, match="strength"):
        TextRewarded(TARGET, REWARD, PRETRAINED, value)
    with pytest.raises(InputError, match="temperature"):
        TextRewarded(TARGET, REWARD, PRETRAINED).generate(PROMPT, temperature=value)


@pytest.fixture
def folders(tmp_path):
    """A reward, its pretrained source and a target of another tokenizer, as folders."""
    for name, causal in (("source", PRETRAINED), ("target", TARGET)):
        causal.model.save_pretrained(tmp_path / name)
        causal.tokenizer.save_pretrained(tmp_path / name)
    known = {
        "name": "source",
        "spec": str(tmp_path / "source"),
        "weights_sha256": weights_hash(str(tmp_path / "source")),
    }
    facts = {"method": "prt", "alpha": 0.0, "lora": None, "base": known, "dataset": {"name": "chats"}}
    facts |= {"fingerprint": "0", "template": "tulu", "recipe": {}, "seed": 0}
    save_tuned(tmp_path / "reward", REWARD.model, REWARD.tokenizer, facts)
    return tmp_path


def test_a_reward_goes_on_a_target_of_another_tokenizer_with_its_source(folders, capsys):
    rewarded = load_reward(folders / "reward").on(str(folders / "target"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "put on as text (prt-text), with a third network" in said and str(folders / "source") in said
    expected = TextRewarded(TARGET, REWARD, PRETRAINED).generate(PROMPT, max_new_tokens=8)
    assert rewarded.generate(PROMPT, max_new_tokens=8) == expected
    with pytest.raises(InputError, match="have different ones"):
        next_tokens(rewarded, PROMPT, max_new_tokens=4)


def test_a_benchmark_says_by_which_method_it_was_measured(folders, prt, tmp_path):
    data, out = lines(tmp_path / "data", ARC), tmp_path / "out"
    given = ["evaluate", "arc_easy", "--reward", folders / "reward", "--out", out, "--set", f"data={data}"]
    code, said, complaint = prt(*given, "--target", folders / "target", "--strength", 0.5, "--device", "cpu")
    assert code == 0, complaint
    result, samples = read(out)
    assert f"acc {result['metrics']['acc']:.4f}\n" in said
    assert "put on as text (prt-text), with a third network" in complaint
    assert {"method": "prt-text", "strength": 0.5, "alpha": 0.0, "seed": 0}.items() <= result["cell"].items()
    found = TextRewarded(TARGET, REWARD, PRETRAINED, 0.5).likelihoods(samples[0]["prompt"], [" rain", " the sun"])
    assert samples[0]["response"] == pytest.approx([value for value, _ in found], abs=1e-3)
    (folders / "source").rename(folders / "moved")
    code, _, complaint = prt(*given, "--target", folders / "target", "--device", "cpu")
    assert code == 1 and "which is not to be had" in complaint
    assert prt(*given, "--target", folders / "moved", "--device", "cpu")[0] == 0
    assert read(out)[0]["cell"]["method"] == "prt"


def test_a_way_to_draw_answers_is_refused_before_a_model_is_loaded(folders, prt, tmp_path):
    for file in (*folders.glob("*/*.safetensors"),):
        file.write_bytes(b"no weights")
    described = json.loads((folders / "reward" / "manifest.json").read_text())
    described["base"]["weights_sha256"] = weights_hash(str(folders / "source"))
    (folders / "reward" / "manifest.json").write_text(json.dumps(described))
    lines(tmp_path, PROBLEMS, "sums.jsonl")
    task = tmp_path / "sums.yaml"
    task.write_text(yaml.safe_dump(TASK | {"generation_kwargs": {"until": ["\n"], "top_p": 0.9}}))
    given = ["evaluate", "sums", "--reward", folders / "reward", "--target", folders / "target", "--device", "cpu"]
    code, _, complaint = prt(*given, "--out", tmp_path / "out", "--set", f"task={task}")
    assert code == 1 and "sums is to be answered with 'top_p' (" in complaint and not (tmp_path / "out").exists()


def test_several_rewards_do_not_go_as_text(folders):
    both = [load_reward(folders / "reward")] * 2
    with pytest.raises(InputError, match=r"^.*target has another tokenizer than the 2 rewards, .* one at a time, as t"):
        put_on(str(folders / "target"), both)


def test_the_source_must_be_there_and_be_the_right_one(folders):
    with pytest.raises(InputError, match=r"was tuned from source, but the weights of .*target are others"):
        load_reward(folders / "reward", base=str(folders / "target")).on(str(folders / "target"))
    (folders / "source").rename(folders / "moved")
    with pytest.raises(InputError, match="was tuned from source, which is not to be had"):
        load_reward(folders / "reward").on(str(folders / "target"))
    assert load_reward(folders / "reward", base=str(folders / "moved")).on(str(folders / "target")).target is not None
    assert isinstance(load_reward(folders / "reward").on(str(folders / "moved")), Rewarded)  # no third network

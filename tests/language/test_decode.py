"""Generating with a reward on a target, and what the reward does to each next token."""

import copy
import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from helpers.letters import LETTERS, letters, put
from tokenizers import Tokenizer, decoders, models
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, TextStreamer

from prt import combine
from prt.errors import InputError
from prt.language import decode
from prt.language.decode import Reward, Rewarded, as_text, load_reward, next_tokens, put_on
from prt.language.models import Causal
from prt.language.reward import save_tuned, weights_hash

PROMPT = "the cat sat"
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}, {{ m.content }}.{% endfor %}{% if add_generation_prompt %}a, {% endif %}"
)


def causal(seed: int, hidden: int = 32, rows: int = 32, tokenizer: PreTrainedTokenizerFast | None = None) -> Causal:
    """A random model whose next token really depends on those before it."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.4,
        eos_token_id=0,
        bos_token_id=None,
    )
    return Causal(f"model{seed}", AutoModelForCausalLM.from_config(config).eval(), tokenizer or letters())


TARGET, REWARD, OTHER, SOURCE = causal(6), causal(30, 16), causal(31, 16), causal(2, 16)


def saved(folder: Path, method: str = "prt", source: Causal = SOURCE) -> Path:
    """A folder as tuning leaves it, and its base beside it."""
    where = folder.with_name("base")
    source.model.save_pretrained(where)
    source.tokenizer.save_pretrained(where)
    known = {"name": "source", "spec": str(where), "weights_sha256": weights_hash(str(where))}
    facts = {"method": method, "alpha": 0.0, "lora": None, "base": known, "dataset": {"name": "chats"}}
    tokenizer = copy.deepcopy(REWARD.tokenizer)
    tokenizer.chat_template = TEMPLATE
    more = {"fingerprint": "0", "template": "tulu", "recipe": {}, "seed": 0}
    save_tuned(folder, REWARD.model, tokenizer, facts | more)
    return folder


@torch.no_grad()
def by_hand(prompt: str, steps: int, strength: float = 1.0) -> tuple[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    """The greedy answer, and log-probabilities without and with the reward at each of its tokens; no cache."""
    ids, found = letters()(prompt)["input_ids"], []
    start = len(ids)
    while len(found) < steps and (not found or ids[-1] != 0):
        target, reward = (m.model(torch.tensor([ids])).logits[0, -1] for m in (TARGET, REWARD))
        found.append((log_softmax(target, -1), combine.prt(target, reward, strength)))
        ids = [*ids, int(found[-1][1].argmax())]
    return letters().decode(ids[start:], skip_special_tokens=True), found


@pytest.mark.parametrize("prompt", [PROMPT, "a dog", "what, is it"])
def test_next_tokens_are_those_of_the_equation_at_every_prefix(prompt):
    answer, logs = by_hand(prompt, 14)
    found = next_tokens(put(TARGET, REWARD), prompt, max_new_tokens=14, positions=None)
    assert (found["target"], found["reward"], found["prompt"], found["answer"]) == ("model6", "model30", prompt, answer)
    assert [p["index"] for p in found["positions"]] == list(range(len(logs)))
    assert len(set(answer)) > 3  # no model that repeats itself
    for position, (without, with_it) in zip(found["positions"], logs, strict=True):
        assert position["before"] == (prompt + answer)[: len(prompt) + position["index"]][-40:]
        assert position["chosen"] == position["with"][0][0]
        for top, expected in ((position["without"], without), (position["with"], with_it)):
            best = expected.exp().topk(5)
            assert [token for token, _ in top] == letters().convert_ids_to_tokens(best.indices.tolist())
            assert [p for _, p in top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_the_positions_shown_are_those_where_the_reward_changes_most():
    _, logs = by_hand(PROMPT, 14, 0.5)
    change = torch.stack([(b.exp() * (b - a)).sum() for a, b in logs])
    found = next_tokens(put(TARGET, REWARD, 0.5), PROMPT, max_new_tokens=14, positions=3)
    assert [p["index"] for p in found["positions"]] == sorted(change.topk(3).indices.tolist())


def test_an_answer_ends_at_a_stop_string():
    answer, _ = by_hand(PROMPT, 14)
    stop = answer[3:5]
    found = next_tokens(put(TARGET, REWARD), PROMPT, max_new_tokens=14, stop=[stop], positions=None)
    assert found["answer"] == answer[: answer.index(stop) + 2]
    assert len(found["positions"]) == len(found["answer"])


def test_tokens_that_one_model_alone_knows_are_not_shown():
    wide = causal(3, rows=40, tokenizer=letters("<image>"))
    with torch.no_grad():
        wide.model.lm_head.weight[32] = (
            50 * wide.model.lm_head.weight[2]
        )  # <image> would be likeliest, or next to never
    found = next_tokens(put(wide, causal(4, rows=40)), PROMPT, max_new_tokens=10, positions=None)
    shown = [token for p in found["positions"] for side in ("without", "with") for token, _ in p[side]]
    assert "<image>" not in shown and len(shown) == 10 * len(found["positions"])
    with torch.no_grad():
        logits = wide.model(torch.tensor([letters()(PROMPT)["input_ids"]])).logits[0, -1, :32]
    assert found["positions"][0]["without"][0][1] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-5)


def test_a_token_is_written_with_the_space_before_it():
    """As in Llama 2, whose decoder drops the first space of a text."""
    words = {t: i for i, t in enumerate(["<eos>", "▁the", "▁cat", "s"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="s"))
    inner.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    assert tokenizer.decode([2]) == "cat"
    assert [decode._text_of(tokenizer, [1, 1], i) for i in (2, 3)] == [" cat", "s"]


def test_lines_for_a_terminal():
    found = next_tokens(put(TARGET, REWARD), PROMPT, max_new_tokens=6, positions=2)
    lines = as_text(found).splitlines()
    assert len(lines) == 2 * 7
    first = found["positions"][0]
    assert lines[0].startswith(f"token {first['index']}, ") and lines[0].endswith(first["before"] + '"')
    assert f'"{first["with"][0][0]}"' in lines[2] and f"{first['without'][0][1]:.1%}" in lines[2]


@pytest.mark.parametrize("draft", [None, SOURCE], ids=["plain", "speculative"])
def test_generate_greedily_and_streaming(draft):
    answer, _ = by_hand(PROMPT, 20)
    model, out = put(TARGET, REWARD), io.StringIO()
    with redirect_stdout(out):
        streamer = TextStreamer(TARGET.tokenizer, skip_prompt=True, skip_special_tokens=True)
        assert model.generate(PROMPT, max_new_tokens=20, draft=draft, streamer=streamer) == answer
    assert out.getvalue() == answer + "\n"
    stop = answer[3:5]
    short = model.generate(PROMPT, max_new_tokens=20, stop=[stop], draft=draft)
    assert short == answer[: answer.index(stop) + 2]


@torch.no_grad()
def test_samples_are_of_the_whole_distribution():
    """Of the sum at that temperature, though the target's own settings ask for the likeliest two tokens."""
    target = Causal("model6", copy.deepcopy(TARGET.model), TARGET.tokenizer)
    own = target.model.generation_config
    own.do_sample, own.top_k, own.top_p, own.repetition_penalty = True, 2, 0.5, 3.0
    model = put(target, REWARD)
    torch.manual_seed(0)
    drawn = [model.generate("so", max_new_tokens=1, temperature=2.0) for _ in range(600)]
    ids = torch.tensor([letters()("so")["input_ids"]])
    expected = ((TARGET.model(ids).logits + REWARD.model(ids).logits)[0, -1] / 2).softmax(-1)
    counts = torch.tensor([sum(d == t for d in drawn) for t in LETTERS])
    likely = expected[2:] > 0.02
    assert likely.sum() > 5
    spread = (600 * expected[2:] * (1 - expected[2:])).sqrt()
    assert ((counts - 600 * expected[2:]).abs() < 4 * spread)[likely].all()
    assert model.generate(PROMPT, max_new_tokens=8) == by_hand(PROMPT, 8)[0]  # no penalty either


def test_a_reward_from_its_folder_on_a_target_from_its_folder(tmp_path, capfd):
    TARGET.model.save_pretrained(tmp_path / "target")
    letters().save_pretrained(tmp_path / "target")
    model = load_reward(saved(tmp_path / "reward")).on(str(tmp_path / "target"), strength=0.5, name="big")
    assert model.generate(PROMPT, max_new_tokens=12) == by_hand(PROMPT, 12, 0.5)[0]
    assert (model.target.name, model.name) == ("big", "source")
    # What a user says, in the format that the reward was tuned with; the target has none.
    assert model.generate("hi", max_new_tokens=12, chat=True) == by_hand("u, hi.a, ", 12, 0.5)[0]
    assert "warning" not in capfd.readouterr().err.lower()


@torch.no_grad()
def test_several_rewards_are_their_weighted_sum():
    """Token for token by the equation, whoever drafts, in either order; at strength 0 one is as if it were not."""
    one, other = (Reward(c, {}, Path(c.name)) for c in (REWARD, OTHER))
    ids = letters()(PROMPT, return_tensors="pt")["input_ids"]
    both, swapped = Rewarded(TARGET, [one, other], [1.0, 0.5]), Rewarded(TARGET, [other, one], [0.5, 1.0])
    target, *raw = (m.model(ids).logits[0] for m in (TARGET, REWARD, OTHER))
    expected = combine.prt(target, raw, [1.0, 0.5])
    for made in (both, swapped):
        torch.testing.assert_close(combine.log_probs(made.composed.model(ids).logits[0]), expected, atol=1e-5, rtol=0)
    answer = both.generate(PROMPT, max_new_tokens=12)
    assert answer not in (put(TARGET, REWARD).generate(PROMPT, max_new_tokens=12), "")
    assert both.generate(PROMPT, max_new_tokens=12, draft=SOURCE) == answer
    shown = next_tokens(both, PROMPT, max_new_tokens=1, positions=None)
    assert shown["reward"] == "model30 + model31"
    assert [p for _, p in shown["positions"][0]["with"]] == pytest.approx(expected[-1].exp().topk(5).values.tolist())
    strange = causal(7, 16, rows=40, tokenizer=letters("<image>"))  # it has no <pad> that others know less of
    for rewards, strengths, alone in (
        ([one, other], [1.0, 0.0], one),
        ([one, other], [0, 1], other),
        ([one, Reward(strange, {}, Path("strange"))], [1, 0], one),
    ):
        found = Rewarded(TARGET, rewards, strengths).composed.model(ids).logits
        assert torch.equal(found, put(TARGET, alone.causal).composed.model(ids).logits)
    assert torch.equal(Rewarded(TARGET, [one, other], [0, 0]).composed.model(ids).logits[0], target)
    assert Rewarded(TARGET, [one, other], 0.7).added == [(REWARD, 0.7), (OTHER, 0.7)]


def test_rewards_that_do_not_fit_each_other(tmp_path):
    one = Reward(REWARD, {}, Path("one"))
    swapped = Reward(causal(5, tokenizer=letters(text="ba" + LETTERS[2:])), {}, Path("two"))
    for make in (Rewarded, lambda target, rewards: put_on("nowhere", rewards)):  # before the target is looked for
        with pytest.raises(InputError, match="the reward one and the reward two have different tokenizers"):
            make(TARGET, [one, swapped])
    for given in ([1, 1, 1], [1, float("nan")]):
        with pytest.raises(InputError, match=r"2 rewards were given and 3 strengths; give none|the strength is nan"):
            put_on("nowhere", [one, one], given)
    written = [copy.deepcopy(REWARD.tokenizer) for _ in range(2)]
    for number, tokenizer in enumerate(written):
        tokenizer.chat_template = f"{number} {TEMPLATE}"
    chatty = [Reward(Causal("x", REWARD.model, t), {}, Path(f"r{i}")) for i, t in enumerate(written)]
    with pytest.raises(InputError, match="the rewards r0 and r1 were tuned with different chat templates"):
        Rewarded(TARGET, [one, *chatty]).encode("hi", 1, chat=True)
    assert Rewarded(TARGET, chatty).encode("hi", 1).tolist() == [letters()("hi")["input_ids"]]
    assert (
        Rewarded(TARGET, [one, chatty[0]]).encode("hi", 1, chat=True).tolist()
    )  # the one that has a template gives it


def test_the_command(prt, tmp_path):
    TARGET.model.save_pretrained(tmp_path / "target")
    letters().save_pretrained(tmp_path / "target")
    given = ["generate", "--reward", saved(tmp_path / "reward"), "--target", tmp_path / "target", "--device", "cpu"]
    answer, logs = by_hand(PROMPT, 12)
    assert prt(*given, "--max-new-tokens", 12, PROMPT)[:2] == (0, answer + "\n")
    # The source drafts: the same text. Then the next tokens, one block for each.
    code, said, _ = prt(*given, "--max-new-tokens", 12, "--draft", tmp_path / "base", "--top", PROMPT)
    assert code == 0 and said.startswith(answer + "\ntoken 0, ")
    assert said.count("without the reward") == len(logs)
    twice = ["--reward", tmp_path / "reward", "--max-new-tokens", 12, PROMPT]
    assert prt(*given, *twice, "--strength", 0.3, "--strength", 0.7)[:2] == (0, answer + "\n")
    complaint = prt(*given, *twice, "--strength", 1, "--strength", 1, "--strength", 1)[2]
    assert complaint.endswith(
        "2 rewards were given and 3 strengths; give none (each has 1), one for all, or one for each.\n"
    )
    code, said, complaint = prt(*given, "--max-new-tokens", 60, PROMPT)
    assert (code, said) == (1, "") and "exceed the context of 64 tokens" in complaint.splitlines()[-1]


def test_each_of_several_rewards_was_tuned_from_a_model_of_its_own(prt, tmp_path):
    """Which may have moved, each to another place."""
    TARGET.model.save_pretrained(tmp_path / "target")
    letters().save_pretrained(tmp_path / "target")
    given = ["generate", "--target", tmp_path / "target", "--device", "cpu", "--method", "eft", "--max-new-tokens", 9]
    bases = []
    for name, source in (("a", SOURCE), ("b", OTHER)):
        given += ["--reward", saved(tmp_path / name / "ft", "ft", source)]
        bases += ["--base", (tmp_path / name / "base").rename(tmp_path / name / "moved")]
    code, said, complaint = prt(*given, *bases, PROMPT)
    assert code == 0, complaint
    eft = [Reward(REWARD, {}, Path(), method="eft", pretrained=source) for source in (SOURCE, OTHER)]
    assert said == Rewarded(TARGET, eft).generate(PROMPT, max_new_tokens=9) + "\n"
    code, _, complaint = prt(*given, *bases[:2], PROMPT)
    assert code == 1 and "b/ft was tuned from source, but the weights of " in complaint
    code, _, complaint = prt(*given, *bases, *bases[:2], PROMPT)
    assert code == 1 and "2 rewards were given and 3 bases; give none, one for all, or one for each." in complaint


def test_bad_input(tmp_path):
    model = put(TARGET, REWARD)
    with pytest.raises(InputError, match="a prompt of 11 tokens and 60 new ones exceed the context of 64 tokens"):
        model.generate(PROMPT, max_new_tokens=60)
    for prompt in ("", "  "):
        with pytest.raises(InputError, match="the prompt is empty"):
            model.generate(prompt)
    with pytest.raises(InputError, match="the prompt is no text in UTF-8"):
        model.generate("a\udcff")
    failing = put(TARGET, Causal("failing", REWARD.model, copy.deepcopy(REWARD.tokenizer)))
    for template in ("{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{% for"):
        failing.rewards[0].causal.tokenizer.chat_template = template
        with pytest.raises(InputError, match=r"the chat template of failing refuses the prompt \(\w+: .*--chat"):
            failing.generate(PROMPT, chat=True)
    with pytest.raises(InputError, match="0 new tokens were asked for"):
        next_tokens(model, PROMPT, max_new_tokens=0)
    for temperature in (-1.0, float("nan")):
        with pytest.raises(InputError, match=r"the temperature is .*, but must be 0"):
            model.generate(PROMPT, max_new_tokens=3, temperature=temperature)
    with pytest.raises(InputError, match="neither model30 nor model6 has a chat template"):
        model.generate(PROMPT, chat=True)
    for strength in (float("inf"), float("nan"), 1e308):
        with pytest.raises(InputError, match=r"the strength is .*, but must be a finite number"):
            put(TARGET, REWARD, strength)
    for draft in (None, SOURCE):  # sums that are no numbers
        with pytest.raises(
            InputError, match=r"at strength 3e\+38 and temperature 0 the next token's scores are no num"
        ):
            put(TARGET, REWARD, 3e38).generate(PROMPT, max_new_tokens=3, draft=draft)
        with pytest.raises(InputError, match=r"at strength 1 and temperature 1e-40 the next token's scores are no num"):
            model.generate(PROMPT, max_new_tokens=3, temperature=1e-40, draft=draft)
    swapped = causal(5, tokenizer=letters(text="ba" + LETTERS[2:]))
    with pytest.raises(InputError, match="model5 and model30 have different tokenizers"):
        put(swapped, REWARD)
    with pytest.raises(InputError, match=r"model6 .* and model5 have different tokenizers"):
        model.generate(PROMPT, max_new_tokens=3, draft=swapped)
    with pytest.raises(InputError, match=r"holds a fine-tuned model \(method ft\), no reward: .* method eft or poe"):
        load_reward(saved(tmp_path / "ft", "ft"))
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "manifest.json").write_text('{"kind": "vision"}')
    with pytest.raises(InputError, match="holds a vision reward; use a language reward on a language model"):
        load_reward(tmp_path / "vision")

"""Table 3 measured on tiny models, and the arithmetic behind its bounds."""

import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pandas as pd
import pytest
import torch
from helpers.letters import LETTERS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedTokenizerFast

from prt.errors import InputError
from prt.language import decoding_speed as benchmark
from prt.language.decoding_runs import PROMPT, _reached, bytes_read, prompt
from prt.language.decoding_speed import Pair, bytes_moved, decoding
from prt.language.models import load, load_tokenizer
from prt.language.reward import save_tuned, weights_hash

CPU = torch.device("cpu")
SHAPE = dict(vocab_size=40, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)


def architecture(folder: Path, hidden: int = 32, kind: type[PreTrainedConfig] = LlamaConfig, letters=LETTERS, **more):
    """A folder with config.json and a tokenizer, and no weights."""
    given = SHAPE | {"max_position_embeddings": 128, "eos_token_id": 0, "bos_token_id": None} | more
    kind(hidden_size=hidden, **given).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(["<eos>", *letters])}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>").save_pretrained(folder)
    return str(folder)


def weights(folder: str, seed: int) -> None:
    """Random weights, in the folder."""
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(load_config(folder))
    network.save_pretrained(folder)


def load_config(folder: str) -> PreTrainedConfig:
    return LlamaConfig.from_pretrained(folder)


def values(table: pd.DataFrame, quantity: str, **where: str) -> dict[tuple[str, str], float]:
    """(method, variant) → value."""
    rows = table[table["quantity"] == quantity]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return {(row.method, row.variant): row.value for row in rows.itertuples()}


def by_hand(hidden: int, context: int, size: int, tied: bool = False) -> int:
    """Bytes of SHAPE's products, norms and output layer, and of keys and values (two of four heads)."""
    head = hidden // 4
    layer = hidden * (4 + 2 * 2 + 4) * head + 3 * hidden * 48 + 2 * hidden
    weights = 2 * layer + hidden + 40 * hidden
    return size * (weights + 2 * 2 * 2 * head * context)


def test_bytes_are_those_of_a_count_by_hand(tmp_path: Path) -> None:
    untied = architecture(tmp_path / "untied", tie_word_embeddings=False)
    assert bytes_read(untied, torch.float32, 50) == by_hand(32, 50, 4)
    assert bytes_read(untied, torch.bfloat16, 50) == by_hand(32, 50, 2)
    # Tied, the embedding is read whole as the output layer: the same bytes.
    tied = architecture(tmp_path / "tied", hidden=16, tie_word_embeddings=True)
    assert bytes_read(tied, torch.float32, 50) == by_hand(16, 50, 4)
    # A window keeps no more of the text than it is wide.
    sliding = architecture(tmp_path / "sliding", kind=MistralConfig, sliding_window=11, head_dim=8)
    assert bytes_read(sliding, torch.float32, 50) == bytes_read(sliding, torch.float32, 30) < by_hand(32, 30, 4)


def test_bytes_of_each_method() -> None:
    assert [bytes_moved(m, 100, 10) for m in ("pretrained", "prt", "eft")] == [100, 110, 120]
    # Four drafts by two models, one step of the target: one token, or five.
    assert bytes_moved("prt_speculative", 100, 10, 0.0) == 180
    assert bytes_moved("prt_speculative", 100, 10, 1.0) == 36


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("models")
    architecture(top / "source", 16)
    architecture(top / "target")
    return top


@pytest.fixture(scope="module")
def table(folders: Path) -> pd.DataFrame:
    pair = Pair("small", str(folders / "source"), "big", str(folders / "target"))
    return decoding([pair], 24, 16, 3, "fp32", CPU, compiled=False)


def test_a_table_of_random_weights(table: pd.DataFrame) -> None:
    assert set(table["weights"]) == {"random"}
    assert not table.duplicated(["method", "variant", "quantity"]).any()
    times = values(table, "time_per_token")
    plain = {(m, v) for m in benchmark.METHODS for v in ("eager", "static")}
    supposed = {("prt_speculative", f"{v}, if 0.8 accepted") for v in ("eager", "static")}
    assert set(times) == plain | supposed
    assert all(time > 0 for time in times.values())
    relative = values(table, "relative_speed")
    for (method, variant), speed in relative.items():
        assert speed == pytest.approx(times["pretrained", variant.split(",")[0]] / times[method, variant])
    assert relative["pretrained", "eager"] == relative["pretrained", "static"] == 1
    speeds = values(table, "tokens_per_second")
    rows = table[table["quantity"] == "time_per_token"]
    assert (rows["std"] > 0).all() and (rows["repeats"] == 3).all()
    assert speeds == pytest.approx({key: 1000 / time for key, time in times.items()})
    assert set(table["prompt_tokens"]) == {24} and set(table["new_tokens"]) == {16}


def test_the_bound_is_bytes_over_bandwidth(table: pd.DataFrame) -> None:
    assert set(table["bandwidth_from"]) == {"measured"}
    bandwidth = table["bandwidth"].iloc[0] * 1e9
    assert 1e8 < bandwidth < 1e13
    target, source = by_hand(32, 24 + 8, 4), by_hand(16, 24 + 8, 4)
    bounds = {key: value / 1000 * bandwidth for key, value in values(table, "bytes_bound").items()}
    accepted = values(table, "acceptance")
    for variant in ("eager", "static"):
        assert bounds["pretrained", variant] == pytest.approx(target)
        assert bounds["prt", variant] == pytest.approx(target + source)
        assert bounds["eft", variant] == pytest.approx(target + 2 * source)
        share = accepted["prt_speculative", variant]
        expected = (target + 8 * source) / (1 + 4 * share)
        assert bounds["prt_speculative", variant] == pytest.approx(expected)
        supposed = "prt_speculative", f"{variant}, if 0.8 accepted"
        assert bounds[supposed] == pytest.approx((target + 8 * source) / 4.2)
        assert accepted[supposed] == 0.8
        assert values(table, "tokens_per_target_forward")[supposed] == pytest.approx(4.2)


def test_bounds_above_a_measurement_are_not_given(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is enough: all are of one bandwidth. Measured in this process, to save time."""
    monkeypatch.setattr(benchmark, "in_own_process", lambda _, name, *arguments: resolve_name(name)(*arguments))
    plainly = benchmark.bytes_moved
    monkeypatch.setattr(
        benchmark, "bytes_moved", lambda method, *rest: 1e15 if method == "eft" else plainly(method, *rest)
    )
    pair = Pair("small", str(folders / "source"), "big", str(folders / "target"))
    table = decoding([pair], 4, 16, 1, "fp32", CPU, compiled=False)
    assert set(table["quantity"]) >= {"time_per_token", "peak_memory"}
    assert "bytes_bound" not in set(table["quantity"])
    assert "no bounds are given: some tokens were faster" in capsys.readouterr().err


def test_bandwidth_of_what_a_cache_holds() -> None:
    """Is that of the cache, which is faster than the memory: else the bound of a small model were none."""
    assert max(_reached(CPU, 2**20) for _ in range(3)) > _reached(CPU, 2**28)


def test_a_time_that_other_work_made_negative(capsys: pytest.CaptureFixture[str]) -> None:
    """Is left out, with what hangs on it; a single negative one among others is part of their mean."""
    place = ["table3", "small", "big", "prt", "static", "random"]

    def quantities(times: list[float], alone: float) -> dict[str, float]:
        return {row[6]: row[7] for row in benchmark._rows(place, benchmark.Measured(times), 0.1, alone)}

    assert set(quantities([1.0, -4.0], 2.0)) == {"bytes_bound", "peak_memory"}
    assert "no time of prt of small on big, static: other work took more" in capsys.readouterr().err
    assert quantities([5.0, -1.0], 1.0)["tokens_per_second"] == 500
    assert "relative_speed" not in quantities([5.0, -1.0], -1.0)


def test_the_time_of_a_round_where_nothing_is_accepted(table: pd.DataFrame) -> None:
    """Then a round gives one token, and what 0.8 accepted would make of it is its time over 4.2."""
    measured = benchmark.Measured([2.0, 4.0], [2.0, 4.0], 0.0, 0.0, 1.0)
    assert benchmark._supposed(measured).per_token == pytest.approx([2 / 4.2, 4 / 4.2])
    assert values(table, "acceptance")["prt_speculative", "eager"] < 0.5
    times = values(table, "time_per_token")
    assert times["prt_speculative", "eager, if 0.8 accepted"] < times["prt_speculative", "eager"]


def test_a_tuned_reward_is_measured_as_it_is(tmp_path: Path) -> None:
    """Where source and target are one model, every draft is accepted."""
    source = architecture(tmp_path / "source", 16)
    weights(source, 1)
    network = load(source, torch.float32, CPU)
    base = {"name": "small", "spec": source, "weights_sha256": weights_hash(source)}
    facts = {"method": "prt", "alpha": 0.0, "lora": None, "base": base, "dataset": {"name": "chats"}}
    more = {"fingerprint": "0", "template": "tulu", "recipe": {}, "seed": 0}
    save_tuned(tmp_path / "reward", network.model, network.tokenizer, facts | more)
    assert Pair("a", source, "b", source).weights == "pretrained"
    table = decoding([Pair("a", source, "b", source, str(tmp_path / "reward"))], 24, 17, 2, "bf16", CPU, compiled=False)
    assert set(table["weights"]) == {"tuned"} and set(table["variant"]) == {"eager", "static"}
    assert values(table, "acceptance")["prt_speculative", "eager"] > 0.9
    assert values(table, "tokens_per_target_forward")["prt_speculative", "eager"] > 4


def test_only_the_measurements_import_transformers() -> None:
    code = "import sys, prt.language.decoding_speed; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_prompt_ends_as_the_text_does(folders: Path) -> None:
    tokenizer = load_tokenizer(str(folders / "target"))
    short, long = prompt(tokenizer, 7), prompt(tokenizer, 1000)
    assert (short.shape, long.shape) == ((1, 7), (1, 1000))
    whole = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert short[0].tolist() == whole[-7:] and long[0, -len(whole) :].tolist() == whole


def test_bad_input(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    source, target = str(folders / "source"), str(folders / "target")
    pair = [Pair("small", source, "big", target)]
    with pytest.raises(InputError, match="15 new tokens are too few to time; take 16 or more"):
        decoding(pair, 24, 15, 3, "fp32", CPU)
    with pytest.raises(InputError, match="the number of repeats is 0"):
        decoding(pair, 24, 16, 0, "fp32", CPU)
    with pytest.raises(InputError, match="unknown precision 'bf61': did you mean 'bf16'"):
        decoding(pair, 24, 16, 1, "bf61", CPU)
    monkeypatch.setenv("CXX", "no-such-compiler")
    decoding([], 24, 16, 1, "fp32", CPU)
    assert "compiled steps are not measured: they need a C++ compiler" in capsys.readouterr().err
    with pytest.raises(InputError, match="136 tokens, but the context of big is 128; take fewer"):
        decoding(pair, 120, 16, 1, "fp32", CPU)
    other = architecture(tmp_path / "other", letters=LETTERS[::-1])
    with pytest.raises(InputError, match="big and other have different tokenizers"):
        decoding([Pair("other", other, "big", target)], 24, 16, 1, "fp32", CPU)
    with pytest.raises(InputError, match=r"there is no model in .*nowhere"):
        decoding([Pair("small", source, "big", str(tmp_path / "nowhere"))], 24, 16, 1, "fp32", CPU)

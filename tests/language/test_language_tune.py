"""Tuning tiny language models: the losses are Algorithm 1's, runs are resumed bit for bit, rewards are portable."""

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prt import objective
from prt.errors import InputError
from prt.language import tune as module
from prt.language.chats import IGNORED, Manifest, padded, prepare, read_manifest
from prt.language.models import Causal, load
from prt.language.reward import check_writable, load_tuned
from prt.language.reward import read_manifest as read_reward
from prt.language.tune import Lora, Recipe, Tuned, backbone, causal, check, head, tune

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


@pytest.fixture(scope="module", autouse=True)
def _imported() -> Iterator[None]:
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


Run = Callable[..., Path]


@pytest.fixture
def run(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> Run:
    """Tune with a few words; the folder of its seeds."""

    def run(out: str, method: str = "prt", base: str = "llama", **options: Any) -> Path:
        given: dict[str, Any] = {"recipe": RECIPE, "seeds": [0], **options}
        tune(
            str(bases[base]),
            name=base,
            dataset="sums",
            data=data,
            method=method,
            out=tmp_path / out,
            checkpoints=tmp_path / f"{out}-checkpoints",
            device=CPU,
            **given,
        )
        assert not (tmp_path / f"{out}-checkpoints").exists()
        return tmp_path / out

    return run


def weights(folder: Path) -> dict[str, Tensor]:
    return load_tuned(folder, torch.float32, CPU).model.state_dict()


def same(a: Path, b: Path) -> bool:
    mine, theirs = weights(a), weights(b)
    return all(torch.equal(value, theirs[name]) for name, value in mine.items())


def losses(folder: Path) -> list[float]:
    return pd.read_csv(folder / "curve.csv")["loss"].tolist()


def tokens_of(data: Manifest, split: str, tmp_path: Path) -> dict[str, Tensor]:
    tokenizer = bytes_tokenizer()
    template = module.chat_template(tokenizer, "tulu", "bytes")
    module.tokenise(data, split, tmp_path / "naive.arrow", tokenizer, template, 64)
    rows, _ = module.read_tokens(tmp_path / "naive.arrow")
    return {name: torch.tensor(values) for name, values in padded(rows, 0).items()}


@pytest.mark.parametrize(("method", "base", "alpha", "packing"), [
    ("ft", "llama", 0.0, True),
    ("ft", "qwen", 0.0, False),
    ("prt", "llama", 0.1, False),
    ("prt", "qwen", 0.0, True),
    ("prt", "qwen", 0.1, True),
])  # fmt: skip
def test_algorithm_1(
    run: Run,
    bases: dict[str, Path],
    data: Manifest,
    tmp_path: Path,
    method: str,
    base: str,
    alpha: float,
    packing: bool,
) -> None:
    """The same losses and weights as a plain loop with the naive losses, batches whole and in parts."""
    recipe = replace(RECIPE, batch=20, epochs=4, warmup=0.3, clip=1.0, weight_decay=0.1, packing=packing)
    folder = run("run", method, base, alpha=alpha, recipe=recipe) / "0"
    batch, other = (tokens_of(data, split, tmp_path) for split in ("train", "validation"))
    network, reference = (load(str(bases[base]), torch.float32, CPU).model for _ in range(2))
    matrices, vectors = ([p for p in network.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0}])

    def loss(batch: dict[str, Tensor]) -> Tensor:
        learned = batch["labels"][:, 1:] != IGNORED
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
        ours, theirs = (m(**inputs).logits[:, :-1, :TOKENS][learned] for m in (network, reference))
        truth = batch["labels"][:, 1:][learned]
        if method == "ft":
            return objective.ft_loss(ours, truth)
        return objective.prt_loss(theirs, ours, truth, alpha)

    expected = []
    for lr in (0.0, 0.5e-2, 1e-2, 0.5e-2):  # two of four steps of warm-up, then down to nought
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        expected.append(value.item())
    curve = pd.read_csv(folder / "curve.csv")
    assert curve.columns.tolist() == ["step", "epoch", "loss", "validation_loss", "lr"]
    assert curve["step"].tolist() == [1, 2, 3, 4]
    assert curve["lr"].tolist() == pytest.approx([0, 0.5e-2, 1e-2, 0.5e-2])
    assert curve["loss"].tolist() == pytest.approx(expected, rel=1e-4)
    assert curve["validation_loss"].iloc[-1] == pytest.approx(loss(other).item(), rel=1e-3)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(weights(folder)[name], value, atol=2e-3, rtol=0)  # Adam makes much of small slopes


def test_it_learns(run: Run) -> None:
    """The tuned model, reference and reward together, falls far below the reference alone."""
    start = losses(run("start", "ft", recipe=replace(RECIPE, lr=0.0, batch=20, epochs=1)) / "0")[0]  # the reference's
    whole = losses(run("whole", recipe=replace(RECIPE, epochs=10)) / "0")
    assert whole[0] > start  # the reward is not a difference: it begins as log π_pt, which then counts twice
    assert whole[-1] < 0.7 * start
    adapter = run("adapter", recipe=replace(RECIPE, epochs=10, lr=5e-2), lora=Lora(rank=4, alpha=16))
    assert losses(adapter / "0")[-1] < 0.98 * start  # of so small a network little can be learned beside its weights


def test_ways_that_change_nothing(run: Run) -> None:
    """Packing, passes and gradient checkpointing are of memory and speed alone."""
    plain = losses(run("plain") / "0")
    for name, options in {
        "padded": {"packing": False, "per_device_batch": 8},
        "checkpointing": {"gradient_checkpointing": True, "per_device_batch": 1},
    }.items():
        assert losses(run(name, recipe=replace(RECIPE, **options)) / "0") == pytest.approx(plain, rel=1e-4)


def test_packed_gradients(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    network, reference = (load(str(bases["llama"]), torch.float32, CPU).model for _ in range(2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.05)
    tuned = Tuned(network, "prt", 0.1, TOKENS, reference).train()
    assert tuned.network.training
    assert not tuned.reference.training
    tokens_of(data, "train", tmp_path)
    rows, _ = module.read_tokens(tmp_path / "naive.arrow")
    found = []
    for packing in (False, True):
        loss = tuned(**module._Collator(packing, 0)(list(rows)), items=10.0)
        found.append(torch.autograd.grad(loss, list(network.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert all(p.grad is None for p in reference.parameters())


def test_lora_shares_its_base(bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    """The reference of a LoRA reward is its own base, to the bit, and there is no second copy."""
    spec = str(bases["qwen"])
    network = module._network(spec, "qwen", Lora(rank=2, alpha=4), 0, RECIPE)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    shared, apart = Tuned(network, "prt", 0.1, TOKENS), load(spec, torch.float32, CPU).model
    adapter = sum(p.numel() for p in shared.parameters() if p.requires_grad)
    assert 0 < adapter == sum(p.numel() for p in shared.parameters()) - sum(p.numel() for p in apart.parameters())
    batch = tokens_of(data, "validation", tmp_path)
    values = []
    for tuned in (shared, Tuned(network, "prt", 0.1, TOKENS, apart)):
        loss = tuned.train()(**batch, items=10.0)
        assert network.training
        values.append((loss.detach(), *torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad])))
    for one, other in zip(*values, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad(), network.disable_adapter():
        assert torch.equal(network(batch["input_ids"]).logits, apart(batch["input_ids"]).logits)


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


def always_saved(patch: pytest.MonkeyPatch) -> None:
    """Have a checkpoint after each step."""
    patch.setattr(module, "CHECKPOINT_SECONDS", 0)
    patch.setattr(module, "SAVING_SHARE", 0)


@pytest.mark.parametrize(("options", "signalled"), [
    ({"alpha": 0.1, "seeds": [0, 1]}, signal.SIGTERM),
    ({"lora": Lora(rank=2, alpha=4)}, signal.SIGUSR1),
    ({"method": "ft"}, None),
])  # fmt: skip
def test_a_resumed_run_is_the_same(
    run: Run,
    stopped: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    signalled: signal.Signals | None,
) -> None:
    """Six steps of ten passes a seed, ended in the last seed's second epoch: by a signal, or just so."""
    seeds = options.get("seeds", [0])
    whole = run("whole", **options)
    with monkeypatch.context() as patch:
        if signalled is None:
            always_saved(patch)
        if signalled is not None:
            stopped(10 * len(seeds) - 3, lambda: os.kill(os.getpid(), signalled))
        else:
            stopped(10 * len(seeds) - 1, interrupt)
        with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
            run("again", **options)
        if signalled is not None:
            assert stop.value.code == 128 + signalled
            assert "stopped by a signal after iteration 4; run again to go on." in capsys.readouterr().err
    calls: list[int] = []
    stopped(-1, interrupt)
    forward = Tuned.forward
    monkeypatch.setattr(Tuned, "forward", lambda self, **o: calls.append(self.training) or forward(self, **o))
    again = run("again", **options)
    assert sum(calls) < 6  # only what was left
    for seed in map(str, seeds):
        assert same(whole / seed, again / seed)
        assert (whole / seed / "curve.csv").read_text() == (again / seed / "curve.csv").read_text()


def test_half_a_checkpoint_is_not_resumed_from(
    run: Run, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = run("whole")
    with monkeypatch.context() as patch:
        always_saved(patch)
        writes: list[int] = []
        before = module._Trainer._save_rng_state
        patch.setattr(
            module._Trainer,
            "_save_rng_state",
            lambda self, folder: interrupt() if len(writes) == 3 else writes.append(1) or before(self, folder),
        )
        with pytest.raises(KeyboardInterrupt):
            run("again")
    folder = tmp_path / "again-checkpoints" / "0"
    found = {path.name: (path / "whole.json").exists() for path in folder.glob("checkpoint-*")}
    assert found == {"checkpoint-2": True, "checkpoint-3": True, "checkpoint-4": False}
    assert same(whole / "0", run("again") / "0")


def test_another_configuration_starts_over(
    run: Run, stopped: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        always_saved(patch)
        stopped(4, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("again")
    stopped(-1, interrupt)
    again = run("again", alpha=0.1)
    assert "belongs to another configuration" in capsys.readouterr().err
    assert same(again / "0", run("fresh", alpha=0.1) / "0")


def test_bfloat16(run: Run) -> None:
    """Float32 weights computed with in bfloat16, and saved as that."""
    full, half = run("full") / "0", run("half", recipe=replace(RECIPE, precision="bf16")) / "0"
    assert losses(half) == pytest.approx(losses(full), rel=0.05)
    assert losses(half) != losses(full)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (full / "model.safetensors").stat().st_size
    adapter = run("adapter", recipe=replace(RECIPE, precision="bf16"), lora=Lora(rank=2, alpha=4)) / "0"
    assert losses(adapter)[0] == pytest.approx(losses(full)[0], rel=0.05)


def test_a_long_save_is_a_rare_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes longer than all the steps after it, and is due at each, is the only one but that on a signal."""
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(module, "SAVING_SHARE", 1e9)
    saves: list[int] = []
    before = module._Trainer._save_rng_state
    monkeypatch.setattr(
        module._Trainer, "_save_rng_state", lambda self, folder: saves.append(1) or before(self, folder)
    )
    run("run")
    assert len(saves) == 1


def test_nothing_of_others_is_removed(run: Run, bases: dict[str, Path], tmp_path: Path) -> None:
    """Neither in a folder of checkpoints that serves other ends or another job, too, nor beside a tuned model."""
    shared, out = tmp_path / "run-checkpoints", tmp_path / "run" / "0"
    theirs = [shared / "1" / "checkpoint-2" / "whole.json", shared / "1" / "tokens" / "train.arrow", shared / "0" / "a"]
    recipe = replace(RECIPE, epochs=1)
    theirs += [shared / "thesis.txt", out / "notes.txt", out / "older.safetensors"]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    with pytest.raises(AssertionError):  # the folder stays
        run("run", recipe=recipe, lora=Lora(rank=2, alpha=4))
    assert all(file.read_text() == "mine" for file in theirs)
    assert sorted(p.name for p in shared.rglob("*")) == [
        *("0", "1", "a", "checkpoint-2", "thesis.txt", "tokens", "train.arrow", "whole.json")
    ]
    shutil.rmtree(shared)
    assert load_tuned(out, torch.float32, CPU)
    run("run", "ft", recipe=recipe)  # whole, where an adapter was
    assert read_reward(out)["files"].keys() == {p.name for p in out.iterdir()} - {
        *("curve.csv", "manifest.json", "notes.txt", "older.safetensors")
    }
    assert not list(out.glob("adapter*"))
    assert load_tuned(out, torch.float32, CPU).name == "llama ft"


def test_a_folder_that_cannot_be_written(run: Run, stopped: Callable[..., None], tmp_path: Path) -> None:
    """It is noticed before training."""
    stopped(1, interrupt)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/run/0: .*file is a file; remove it or choose another"):
        run("file/run")
    user = os.geteuid()
    (tmp_path / "closed").mkdir(mode=0o500)
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(InputError, match=r"cannot write .*closed/run/0: .* may not be written to; choose another"):
            check_writable(tmp_path / "closed" / "run" / "0")
    finally:
        os.seteuid(user)


def test_a_loss_that_is_no_number(run: Run, tmp_path: Path) -> None:
    remedy = r"is (nan|inf) at iteration \d: lower the learning rate \(1e\+30\)"
    with pytest.raises(InputError, match=rf"the loss of prt α=0 llama sums 0 {remedy} or set 'clip'\.$"):
        run("run", recipe=replace(RECIPE, lr=1e30))
    half = rf"the loss of ft llama sums 0 {remedy}, set 'clip' or use precision fp32 \(now bf16\)\.$"
    with pytest.raises(InputError, match=half):
        run("run", "ft", recipe=replace(RECIPE, lr=1e30, precision="bf16"))
    assert not (tmp_path / "run").exists()


def test_bad_settings(run: Run, bases: dict[str, Path], tmp_path: Path) -> None:
    def refused(complaint: str, **options: Any) -> None:
        with pytest.raises(InputError, match=complaint):
            run("run", **options)
        assert not (tmp_path / "run").exists()

    refused("unknown tuning method 'fpt': did you mean 'ft'", method="fpt")
    refused("alpha is -1, but", alpha=-1)
    refused("a batch of 8 cannot be made of 'per_device_batch' 3", recipe=replace(RECIPE, per_device_batch=3))
    refused("'max_length' of the recipe is 65, but the context of llama is 64", recipe=replace(RECIPE, max_length=65))
    refused("LoRA cannot be put on llama: .*'targets'", lora=Lora(targets=["q_prog"]))
    refused("take it out of 'targets'", lora=Lora(targets=["lm_head"]), base="qwen")
    refused("LoRA cannot be put on llama: .*'targets'", lora=Lora(targets="(q_proj"))
    refused("LoRA on the input embeddings of llama would change", lora=Lora(targets=["embed_tokens", "q_proj"]))
    refused("alpha is 0.1, but ft has no entropy to maximise", method="ft", alpha=0.1)
    refused("has no chat template of its own", template="own")
    for options, complaint in (
        ({"batch": 0}, "'batch' is 0; it must be a whole number"),
        ({"epochs": 1.5}, "'epochs' is 1.5"),
        ({"lr": -1}, "'lr' of the recipe is -1"),
        ({"clip": 0}, "'clip' of the recipe is 0, which would stop all learning"),
        ({"warmup": 1}, "'warmup' of the recipe is 1; it is a share"),
        ({"packing": 1}, "'packing' of the recipe is 1; it must be true or false"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
    ):
        with pytest.raises(InputError, match=complaint):
            replace(RECIPE, **options)
    with pytest.raises(InputError, match="'rank' is 0"):
        Lora(rank=0)
    for targets in (5, [5], []):
        with pytest.raises(InputError, match=r"'targets' of the adapter is .*; it must be a list of layers' names"):
            Lora(targets=targets)  # type: ignore[arg-type]


def test_models_that_do_not_fit(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SIZE.items() if key != "num_key_value_heads"}
    scaled = CohereForCausalLM(CohereConfig(**sizes, vocab_size=TOKENS, logit_scale=0.25))
    with pytest.raises(InputError, match="the output layer of cohere does more than a product"):
        check(Causal("cohere", scaled.eval(), bytes_tokenizer()), RECIPE)
    short = LlamaForCausalLM(LlamaConfig(**SIZE, vocab_size=TOKENS - 1)).eval()
    with pytest.raises(InputError, match=f"has {TOKENS - 1} rows, but its tokenizer {TOKENS} tokens"):
        check(Causal("short", short, bytes_tokenizer()), RECIPE)


def test_the_paper_s_recipe() -> None:
    """App. B.2: lr 2e-5, batch 128, 2 epochs, Adam, warm-up ratio 0.03, linear decay."""
    recipe = Recipe()
    assert (recipe.lr, recipe.batch, recipe.epochs, recipe.warmup, recipe.weight_decay) == (2e-5, 128, 2, 0.03, 0)


def test_portable(run: Run, bases: dict[str, Path], data: Manifest, tmp_path: Path) -> None:
    """A whole model and an adapter come back as they were trained; the manifest says where from."""
    folder = run("whole", "prt", "qwen", alpha=0.1) / "0"
    loaded = load_tuned(folder, torch.bfloat16, CPU)
    assert (loaded.model.dtype, loaded.model.training, loaded.name) == (torch.bfloat16, False, "qwen prt")
    manifest = read_reward(folder)
    assert (manifest["method"], manifest["alpha"], manifest["lora"], manifest["seed"]) == ("prt", 0.1, None, 0)
    assert manifest["base"]["spec"] == str(bases["qwen"])
    assert manifest["dataset"]["fingerprint"] == data.fingerprint
    assert manifest["dataset"]["tokens"]["train"] == {"conversations": 20, "truncated": 0, "dropped": 0}
    prompt = [{"role": "user", "content": "1+1"}]
    text = loaded.tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\n1+1\n<|assistant|>\n"
    assert read_reward(run("plain", "ft") / "0")["alpha"] is None

    folder = run("adapter", "prt", "qwen", lora=Lora(rank=2, alpha=4)) / "0"
    assert read_reward(folder)["lora"] == {"rank": 2, "alpha": 4, "targets": "all-linear"}
    assert not (folder / "model.safetensors").exists()
    from peft import PeftModel

    apart = PeftModel.from_pretrained(load(str(bases["qwen"]), torch.float32, CPU).model, folder).eval()
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        expected, base = apart(ids).logits, load(str(bases["qwen"]), torch.float32, CPU).model(ids).logits
        torch.testing.assert_close(load_tuned(folder, torch.float32, CPU).model(ids).logits, expected)
    assert not torch.allclose(expected, base, atol=1e-3)
    assert causal(apart) is apart.get_base_model()
    assert head(apart) is apart.get_base_model().lm_head.weight
    assert backbone(apart) is apart.get_base_model().model

    moved = shutil.copytree(bases["qwen"], tmp_path / "moved")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["base"]["spec"] = str(tmp_path / "gone")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"is an adapter of qwen, which is not to be had .* name its folder as the base"
    ):
        load_tuned(folder, torch.float32, CPU)
    assert load_tuned(folder, torch.float32, CPU, base=str(moved))
    with pytest.raises(InputError, match=r"is an adapter of qwen, but the weights of .*llama are others"):
        load_tuned(folder, torch.float32, CPU, base=str(bases["llama"]))


def test_damage_is_refused(run: Run) -> None:
    folder = run("run", "ft") / "0"

    def refused(complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            load_tuned(folder, torch.float32, CPU)

    facts = json.loads((folder / "manifest.json").read_text())
    weights_file = folder / "model.safetensors"
    whole = weights_file.read_bytes()
    weights_file.write_bytes(whole[:-4])
    refused(r"model\.safetensors is not the one its manifest describes")
    weights_file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(r"model\.safetensors is not the one its manifest describes")
    weights_file.unlink()
    refused(r"lacks its file model\.safetensors")
    weights_file.write_bytes(whole)
    for key, value, complaint in (
        (
            "vocabulary",
            {"size": TOKENS, "sha256": "0"},
            "the tokenizer in .* is not the one that its manifest describes",
        ),
        ("vocabulary", 5, "has a damaged 'vocabulary'"),
        ("base", {"name": "llama"}, "has a damaged 'base'"),
        ("files", {}, "has a damaged 'files'"),
        ("lora", 5, "has a damaged 'lora'"),
        ("alpha", "0", "has a damaged 'alpha'"),
        ("method", "dpo", "has a damaged 'method'"),
        ("seed", "0", "has a damaged 'seed'"),
        ("kind", "vision", "holds a vision reward; use a language reward on a language model"),
    ):
        (folder / "manifest.json").write_text(json.dumps(facts | {key: value}))
        refused(complaint)
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "base"}))
    refused("lacks 'base'")
    (folder / "manifest.json").unlink()
    refused("does not exist")


def test_a_language_reward_is_refused_by_vision(run: Run) -> None:
    from prt.vision.predict import load_reward

    with pytest.raises(InputError, match="holds a language reward; use a vision reward on a vision model"):
        load_reward(run("run") / "0")

"""Using a reward, or a fine-tuned model as one: predictions of images, text, and benchmarks."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from prt.cli.options import ENGINES, Device, Downloads, begin, device_of, dtype_of, models_of
from prt.errors import InputError, known
from prt.methods import METHODS

Rewards = Annotated[
    list[Path],
    typer.Option(help="Folder of a tuned reward; with --method eft or poe, of a run of ft. May be repeated: the sum."),
]
MethodName = Annotated[str, typer.Option(help=f"{', '.join(n for n, of in METHODS.items() if of.tuned)}.")]
Strengths = Annotated[
    list[float], typer.Option(help="1/λ; the paper's is 1. Of several rewards: one for all, or one for each, in order.")
]
Spec = Annotated[str, typer.Option(help="A folder in transformers' format, or OWNER/NAME on the Hugging Face hub.")]
Bases = Annotated[
    list[str],
    typer.Option(
        help="The model that it was tuned from, where it has moved; EFT, LoRA and other tokenizers need it. Of several "
        "rewards: one for all, or one for each, in order."
    ),
]
Precision = Annotated[str, typer.Option(help="fp32 or bf16.")]


def with_bases(rewards: Sequence[Path], given: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Each reward with the model that it was tuned from, of what was ``given``: none, one for all, or as many.

    Raises:
        InputError: for another number.
    """
    if len(given) not in (0, 1, len(rewards)):
        raise InputError(
            f"{len(rewards)} reward{'s were' if len(rewards) > 1 else ' was'} given and {len(given)} bases; give none, "
            "one for all, or one for each."
        )
    bases = given if len(given) == len(rewards) else [next(iter(given), None)] * len(rewards)
    return list(zip(rewards, bases, strict=True))


def predict(
    reward: Rewards,
    target: Annotated[str, typer.Option(help="MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER.")],
    images: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders of images, and - for paths on standard input.")
    ] = None,
    lists: Annotated[list[Path], typer.Option("--list", help="A file with a path a line; may be repeated.")] = [],  # noqa: B006
    head: Annotated[
        Path | None, typer.Option(help="The target's zero-shot head; default: made of the reward's labels.")
    ] = None,
    method: MethodName = "prt",
    strength: Strengths = [],  # noqa: B006
    base: Bases = [],  # noqa: B006
    without: Annotated[bool, typer.Option(help="Print the target without the reward, too.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Predict with a reward put on a target; answers are printed as they come, what could not be read at the end."""
    from prt.progress import progress
    from prt.vision import inputs
    from prt.vision.predict import load_reward, put_on
    from prt.vision.score import BATCH

    begin()
    on = device_of(device)
    loaded = [load_reward(folder, on, method, of) for folder, of in with_bases(reward, base)]
    names = inputs.named(images or [], lists)
    model = put_on(target, loaded, strength, head)
    failed: dict[str, str] = {}  # name → sentence
    files = inputs.files_of(names, failed)
    long = len(files) > BATCH and not sys.stdout.isatty()  # else the answers show how far it is
    shown = ("with_reward", "without_reward")[: 2 if without else 1]
    count = 0
    with _array(as_json), progress("predict", len(files), "image") if long else nullcontext() as bar:
        for image, views in model.each(inputs.pictures(files, failed)):
            entry: dict[str, Any] = {"image": image}
            for view, probabilities in zip(shown, views, strict=False):
                best = probabilities.topk(min(top, len(model.classes)))
                entry[view] = [
                    {"label": model.classes[label], "probability": p}
                    for p, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
                ]
            if as_json:  # one list, of which a line can be read as soon as it is there
                print(",\n" if count else "\n", json.dumps(entry, ensure_ascii=False), sep="", end="", flush=True)
            else:
                print(image)
                for view in shown:
                    line = "  ".join(f"{x['label']} {x['probability']:.3f}" for x in entry[view])
                    print(f"  {view.replace('_', ' '):15}{line}", flush=True)
            count += 1
            if bar is not None:
                bar.update()
    if failed:
        inputs.tell(failed, count)


@contextmanager
def _array(wanted: bool) -> Iterator[None]:
    """The brackets of a JSON array around what is printed, however that ends."""
    print("[" if wanted else "", end="")
    try:
        yield
    finally:
        print("\n]\n" if wanted else "", end="")


def generate(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    reward: Rewards,
    target: Spec,
    method: MethodName = "prt",
    strength: Strengths = [],  # noqa: B006
    max_new_tokens: Annotated[int, typer.Option(min=1, max=2**31 - 1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of sampling.")] = 0,
    stop: Annotated[list[str], typer.Option(help="Text at which it ends; may be repeated.")] = [],  # noqa: B006
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a user's message, in the reward's chat template.")
    ] = False,
    top: Annotated[
        bool, typer.Option("--top", help="Print the likeliest next tokens with and without the reward, too.")
    ] = False,
    draft: Annotated[
        str | None, typer.Option(help="The model that the reward was tuned on: it drafts, the target verifies.")
    ] = None,
    base: Bases = [],  # noqa: B006
    precision: Precision = "fp32",
    device: Device = "auto",
) -> None:
    """Generate text with a reward put on a target; it is printed as it comes."""
    import torch
    from transformers import TextStreamer

    from prt.language.decode import as_text, explained, load_reward, put_on
    from prt.language.models import load
    from prt.language.text_decode import TextRewarded

    begin()
    on, dtype = device_of(device), dtype_of(precision)
    loaded = [load_reward(folder, on, dtype, of, method) for folder, of in with_bases(reward, base)]
    rewarded = put_on(target, loaded, strength)
    torch.manual_seed(seed)
    tokenizer: Any = rewarded.target.tokenizer
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    if isinstance(rewarded, TextRewarded):
        if top or draft is not None:
            raise InputError("--top and --draft need a target with the reward's tokenizer; leave them out.")
        lengths: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "stop": stop}
        rewarded.generate(prompt, chat=chat, streamer=streamer, **lengths)
        return
    ids = rewarded.encode(prompt, max_new_tokens, chat=chat)
    text = rewarded.continued(
        ids,
        max_new_tokens,
        temperature,
        stop,
        None if draft is None else load(draft, dtype, on),
        streamer,
    )
    if top:
        print(as_text(explained(rewarded, text, ids.shape[1])))


def evaluate(
    benchmark: Annotated[str, typer.Argument(help="A benchmark's name, or any name where --set gives its task.")],
    reward: Rewards,
    target: Spec,
    out: Annotated[Path, typer.Option(help="Folder for result.json and samples.jsonl.")],
    method: MethodName = "prt",
    strength: Strengths = [],  # noqa: B006
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting of the benchmark; may be repeated.")
    ] = [],  # noqa: B006
    unsafe_code: Annotated[
        bool,
        typer.Option(
            "--unsafe-code", help="Programs that it wrote may run (jailed), and a task file's Python (not jailed)."
        ),
    ] = False,
    downloads: Downloads = Path("downloads"),
    base: Bases = [],  # noqa: B006
    precision: Precision = "fp32",
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="What runs the model: transformers, or vllm.")] = "transformers",
) -> None:
    """Measure a language model with a reward put on it; the settings are those of config/README.md."""
    from prt.cell import Cell
    from prt.combine import strengths_for
    from prt.language import tasks
    from prt.language.composed import compose
    from prt.language.decode import load_reward, put_together
    from prt.language.evaluate import evaluate, ready
    from prt.language.models import load
    from prt.language.prompts import template_of
    from prt.language.reward import check_writable, read_manifest
    from prt.methods import PRETRAINED, SOURCE_PRETRAINED
    from prt.reward import check_method

    begin()
    own = _settings(settings)
    ready(benchmark, own, unsafe_code)
    strengths, based = strengths_for(len(reward), strength), with_bases(reward, base)
    manifests = [read_manifest(folder) for folder in reward]
    for folder, manifest in zip(reward, manifests, strict=True):
        check_method(folder, manifest, method)
    known(engine, ENGINES, "engine")
    if len(reward) > 1 and engine != "transformers":
        raise InputError(f"the engine {engine} measures one reward at a time; take --engine transformers for several.")
    check_writable(out)
    if not own.get("data") and (place := tasks.folder(benchmark, own, downloads)):
        tasks.fetch(benchmark, own, downloads, place.with_name(f"{place.name}.json"))
        own |= {"data": str(place)}
    dtype, on = dtype_of(precision), device_of(device)
    cells = [
        Cell(
            dataset=benchmark, source=of["base"]["name"], target=target, method=method, strength=s,
            lora=of["lora"] is not None, alpha=of["alpha"], seed=of["seed"],
            variant=of.get("variant"),
        )
        for of, s in zip(manifests, strengths, strict=True)
    ]  # fmt: skip
    options: dict[str, Any] = {"out": out, "unsafe_code": unsafe_code}
    if len(cells) == 1:
        places = {PRETRAINED: target, SOURCE_PRETRAINED: based[0][1] or manifests[0]["base"]["spec"]}
        with models_of(engine, lambda _, network: places.get(network, str(reward[0])), dtype, on) as models:
            cell = models.fitting(cells[0])
            if cell.method != method:
                tasks.check_across(benchmark, own)
            result = evaluate(models.of(cell), benchmark, own, cell=cell, **options)
    else:
        loaded = [load_reward(folder, on, dtype, of, method) for folder, of in based]
        parts = put_together(loaded, strengths)
        template = (
            template_of([reward.named for reward in loaded])
            if tasks.settings(benchmark, own)["chat_template"]
            else None
        )
        model = compose(load(target, dtype, on), parts, method)
        model.tokenizer.chat_template = template  # what was tuned knows the one it was tuned in
        result = evaluate(model, benchmark, own, cell=cells, **options)
    for metric, value in result["metrics"].items():
        print(f"{metric} {value:.4f}")


def _settings(given: list[str]) -> dict[str, Any]:
    """Settings of the form KEY=VALUE, each value in YAML, as in a configuration."""
    import yaml

    found = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except (ValueError, RecursionError, yaml.YAMLError):  # also of dates
            equals = ""
        if not equals:
            raise InputError(
                f"--set takes KEY=VALUE, such as shots=5 or 'generation={{max_gen_toks: 64}}', not {setting}."
            )
    return found

"""Using a reward: predictions of images, and text."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prt.cli.options import Device, begin, device_of, dtype_of

RewardFolder = Annotated[Path, typer.Option(help="Folder of a tuned reward.")]
Spec = Annotated[str, typer.Option(help="A folder in transformers' format, or OWNER/NAME on the Hugging Face hub.")]
Base = Annotated[str | None, typer.Option(help="The model that a LoRA reward was tuned on, where it has moved.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16.")]


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    reward: Annotated[Path, typer.Option(help="Folder of a tuned reward.")],
    target: Annotated[str, typer.Option(help="MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER.")],
    head: Annotated[
        Path | None, typer.Option(help="The target's zero-shot head; default: made of the reward's labels.")
    ] = None,
    strength: Annotated[float, typer.Option(help="1/λ; the paper's is 1.")] = 1.0,
    without: Annotated[bool, typer.Option(help="Print the target without the reward, too.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Device = "auto",
) -> None:
    """Predict with a reward put on a target."""
    from prt.vision.predict import load_reward

    begin()
    model = load_reward(reward, device_of(device)).on(target, head, strength)
    views = dict(zip(("with_reward", "without_reward"), model.both(images), strict=True))
    if not without:
        del views["without_reward"]
    result: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        entry: dict[str, Any] = {"image": str(image)}
        for view, probabilities in views.items():
            best = probabilities[i].topk(min(top, len(model.reward.classes)))
            entry[view] = [
                {"label": model.reward.classes[label], "probability": p}
                for p, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        result.append(entry)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for entry in result:
        print(entry["image"])
        for view in views:
            line = "  ".join(f"{x['label']} {x['probability']:.3f}" for x in entry[view])
            print(f"  {view.replace('_', ' '):15}{line}")


def generate(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    reward: RewardFolder,
    target: Spec,
    strength: Annotated[float, typer.Option(help="1/λ; the paper's is 1.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
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
    base: Base = None,
    precision: Precision = "fp32",
    device: Device = "auto",
) -> None:
    """Generate text with a reward put on a target; it is printed as it comes."""
    import torch
    from transformers import TextStreamer

    from prt.language.decode import as_text, explained, load_reward
    from prt.language.models import load

    begin()
    on, dtype = device_of(device), dtype_of(precision)
    rewarded = load_reward(reward, on, dtype, base).on(target, strength)
    torch.manual_seed(seed)
    tokenizer: Any = rewarded.target.tokenizer
    ids = rewarded.encode(prompt, max_new_tokens, chat=chat)
    text = rewarded.continued(
        ids,
        max_new_tokens,
        temperature,
        stop,
        None if draft is None else load(draft, dtype, on),
        TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
    )
    if top:
        print(as_text(explained(rewarded, text, ids.shape[1])))

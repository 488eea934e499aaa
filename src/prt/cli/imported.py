"""``prt import``: what others tuned, made into folders that the other commands take as a reward."""

from pathlib import Path
from typing import Annotated

import typer

from prt.atomic import must_exist
from prt.cli.options import Downloads, begin
from prt.errors import InputError

Out = Annotated[Path, typer.Option(help="Folder that is made.")]
Made = Annotated[str, typer.Option(help="What it was tuned to be: ft (fine-tuned), or prt (a reward).")]


def language(
    model: Annotated[
        str, typer.Argument(help="Folder of a model or of a PEFT LoRA adapter, or OWNER/NAME on the hub.")
    ],
    out: Out,
    base: Annotated[
        str | None, typer.Option(help="What it was tuned from: folder or OWNER/NAME; default: as the adapter says.")
    ] = None,
    method: Made = "ft",
    downloads: Downloads = Path("downloads"),
) -> None:
    """Make a run's folder of a fine-tuned language model, or of an adapter, and its base."""
    from prt.language.imported import import_model

    begin()
    import_model(model, base, out, method=method, downloads=downloads)
    print(f"ready: {out}")


def vision(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint of open_clip, folder in its format, or hf-hub:OWNER/NAME.")
    ],
    out: Out,
    base: Annotated[str, typer.Option(help="What it was tuned from: MODEL/TAG, MODEL/CHECKPOINT or local-dir:FOLDER.")],
    classes: Annotated[Path, typer.Option(help="Text file with a class name a line, in label order.")],
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt with {} for the class name; may be repeated. Default: 'a photo of a {}.'."),
    ] = None,
    method: Made = "ft",
    downloads: Downloads = Path("downloads"),
) -> None:
    """Make a run's folder of a fine-tuned CLIP and its base, for the classes given."""
    from prt.vision.imported import import_clip
    from prt.vision.sources import TEMPLATES

    begin()
    templates = template or list(TEMPLATES)
    import_clip(checkpoint, base, _lines(classes), templates, out, method=method, downloads=downloads)
    print(f"ready: {out}")


def _lines(file: Path) -> list[str]:
    """The lines of a text file, without empty ones."""
    must_exist(file, "file with class names")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class names in {file} cannot be read ({error}); write a text file in UTF-8.") from None
    return [line.strip() for line in lines if line.strip()]

"""The command line. ``prt run RULE JOB`` is a job of the pipeline; heavy imports wait inside the commands."""

import gc
import io
import sys

import typer

from prt.cli import advise, carry, fetch, imported, language, serve, show, tables, use, vision
from prt.errors import InputError

app = typer.Typer(
    help="Portable Reward Tuning: train a reward once, use it on any model with the same labels.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain complaints: a frame would break their lines in a log
    pretty_exceptions_enable=False,
)
run = typer.Typer(
    help="Run one job of a pipeline: `prt run RULE JOB --config results/EXPERIMENT/config.yaml`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(run, name="run")
for module in (fetch, vision, language, tables):
    for command in module.RULES:
        run.command(command.__name__)(command)
for command in (show.plan, show.budget, show.doctor, show.pretrainings, use.predict, use.generate, use.evaluate):
    app.command()(command)
for command in (advise.advise, carry.compose, carry.push, carry.pull):
    app.command()(command)
app.command(context_settings=serve.SETTINGS)(serve.serve)
imports = typer.Typer(
    help="Make a run's folder of a fine-tuned model or an adapter of others, for predict, generate and evaluate.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(imports, name="import")
for command in (imported.language, imported.vision):
    imports.command()(command)


def main() -> None:
    """Run the command line; bad input ends with one sentence and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may be closed
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    gc.disable()  # until all is imported: looking for garbage among what stays takes a third of the start-up
    try:
        app()
    except InputError as error:
        refusal = error
    except OSError as error:
        if error.filename is None:  # a pipe that was closed, or what is not of a file
            raise
        refusal = InputError(f"{error.filename} cannot be used ({error.strerror}); correct the path, or mend that.")
    else:
        return
    print(f"prt: error: {refusal}", file=sys.stderr)
    sys.exit(1)

"""What an experiment would do, and what came out of several."""

from pathlib import Path
from typing import Annotated

import typer

from prt.cli.options import begin
from prt.errors import InputError
from prt.hub import allow_network


def plan(
    configfile: Annotated[list[Path], typer.Option(help="A configuration; more of them go on top of the first.")],
    targets: Annotated[
        list[str] | None, typer.Argument(help="Items, data sets or benchmarks; none: everything.")
    ] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="List every job, as `prt run RULE JOB` takes it.")] = False,
) -> None:
    """List the runs, cells and jobs of an experiment, or of some of its items."""
    from prt.plan import Plan
    from prt.plan.printed import printed

    found = Plan.read(configfile)
    text = printed(found, targets or [], jobs)
    found.check_inputs()
    print(text)


def budget(
    configfile: Annotated[list[Path], typer.Option(help="A configuration; more of them go on top of the first.")],
    targets: Annotated[
        list[str] | None, typer.Argument(help="Items, data sets or benchmarks; none: everything.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that are at hand.")] = 8,
    cores: Annotated[int, typer.Option(min=1, help="CPU cores that are at hand for jobs without a GPU.")] = 8,
) -> None:
    """Reckon what an experiment costs: GPU hours, wall time, downloads, disk; after a run, beside what it took."""
    from prt.plan import Plan
    from prt.plan.budget_text import budgeted

    print(budgeted(Plan.read(configfile), targets or [], gpus, cores))


def doctor(
    configfile: Annotated[
        list[Path] | None, typer.Option(help="The experiment that says what is needed; more of them go on top.")
    ] = None,
) -> None:
    """Try what jobs use of this machine, and say of each thing in a line whether it works."""
    from prt.plan import Plan

    plan = Plan.read(configfile) if configfile else None
    allow_network(True)
    from prt.doctor.check_up import check_up

    begin()
    lacking = []
    for finding in check_up(plan):
        print(finding, flush=True)
        if finding.needed and not finding.works:
            lacking.append(finding.what)
    if lacking:
        raise InputError(f"this machine lacks what the experiment needs ({', '.join(lacking)}); see the lines above.")


def pretrainings(
    experiments: Annotated[list[Path], typer.Argument(help="Folders such as results/demo, one for each pretraining.")],
    out: Annotated[Path, typer.Option(help="The folder for the tables and pictures.")],
) -> None:
    """Put experiments together that differ in `pretraining_seed` alone: means, and how far they spread.

    Of an experiment with variants of rewards, the pictures of the portability study, too.
    """
    from prt.plan import Plan
    from prt.pretrainings import ROWS, over_pretrainings
    from prt.tables import read_table, write_table

    configs = [Plan.read([folder / "config.yaml"]).config for folder in experiments]
    other = {"experiment": "", "pretraining_seed": 0}
    if any(config.model_copy(update=other) != configs[0].model_copy(update=other) for config in configs):
        raise InputError("these experiments differ in more than pretraining_seed; make them of one configuration.")
    if len({config.pretraining_seed for config in configs}) < len(configs):
        raise InputError("two of these experiments have the same pretraining_seed; name each once.")
    halves = [half for half in ("vision", "language") if getattr(configs[0], half) is not None]
    found = {
        f"{half}/{name}.csv": over_pretrainings(
            name, [read_table(folder / half / f"{name}.csv", [*keys, number]) for folder in experiments]
        )
        for half in halves
        for name, (number, keys) in ROWS.items()
    }
    for file, table in found.items():
        write_table(out / file, table)
    from prt.figures.pooled import draw

    draw(configs[0], found, experiments, out / "figures")

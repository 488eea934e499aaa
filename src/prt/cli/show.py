"""What an experiment would do, printed."""

from pathlib import Path
from typing import Annotated

import typer


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

    print(printed(Plan.read(configfile), targets or [], jobs))

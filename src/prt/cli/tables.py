"""The rules that make tables and pictures of what was measured, in both halves."""

import sys
from pathlib import Path

from prt.cli.options import ConfigFile, JobName, begin, plan_of
from prt.errors import InputError


def check_zero_shot(job: JobName, config: ConfigFile) -> None:
    """Compare zero-shot accuracies with published ones; differences are reported, and do not fail."""
    plan = plan_of(config)
    of, vision = plan.jobs.get("check_zero_shot", job), plan.vision
    assert vision is not None
    assert vision.config.ledger is not None
    from prt.published import differences, ledger
    from prt.tables import write_table

    begin()
    scores = [Path(vision.zero_shot_folder(b, job), "test.safetensors") for b in vision.with_heads(job)]
    table = ledger(scores, Path(vision.config.ledger.published), vision.config.ledger.tolerance)
    write_table(Path(of.makes[0]), table)
    if differ := differences(table):
        print(f"prt: warning: {differ}.", file=sys.stderr)


def approve_zero_shot(job: JobName, config: ConfigFile) -> None:
    """Fail if zero-shot accuracies differ from the published ones."""
    of = plan_of(config).jobs.get("approve_zero_shot", job)
    from prt.atomic import write_text
    from prt.published import LEDGER, differences
    from prt.tables import read_table

    if differ := differences(read_table(Path(of.needs[0]), LEDGER)):
        raise InputError(f"{differ}; 'beyond: warn' in the configuration's 'ledger' lets the run go on.")
    write_text(Path(of.makes[0]), "")


def tables(job: JobName, config: ConfigFile) -> None:
    """Make the transfer tables of what was measured: of a data set and split, a benchmark, an item, or of several."""
    plan = plan_of(config)
    made = set(plan.jobs.get("tables", job).makes)
    from prt.tables import tables, write_table

    begin()
    if (vision := plan.vision) is not None:
        from prt.methods import METHODS
        from prt.vision.results import Scored

        for part in vision.parts():
            if vision.table(part, "transfer") in made:
                split, _, dataset = part.partition("/")
                cells = [c for c in vision.cells(dataset) if split == "test" or not METHODS[c.method].at]
                scored = Scored(map(Path, vision.scores(dataset, split)))
                if any(METHODS[cell.method].at for cell in cells):
                    validation = Scored(map(Path, vision.scores(dataset, "validation")))
                    scored.choose_on(validation, vision.strengths(dataset), vision.variants(dataset))
                found = tables(cells, scored.result)._asdict() | {"theory": scored.theory(cells)}
                for name, table in found.items():
                    write_table(Path(vision.table(part, name)), table)
    if (language := plan.language) is not None:
        from prt.language.results import Evaluated

        for part in language.parts:
            if language.table(part, "transfer") in made:
                evaluated = Evaluated(map(Path, language.results(part)))
                for name, table in tables(language.rows(part), evaluated.result)._asdict().items():
                    write_table(Path(language.table(part, name)), table)


def collect(job: JobName, config: ConfigFile) -> None:
    """Put the tables of all data sets, or of all benchmarks, under each other."""
    plan = plan_of(config)
    made = set(plan.jobs.get("collect", job).makes)
    from prt.tables import collected, write_table

    begin()
    for half in (plan.vision, plan.language):
        for out, files in half.collected().items() if half else ():
            if out in made:
                write_table(Path(out), collected(list(map(Path, files))))


def draw(job: JobName, config: ConfigFile) -> None:
    """Draw figures and tables of the paper as PDF and PNG, with the rows they show as CSV."""
    plan = plan_of(config)
    from prt.figures.items import draw

    begin()
    for item in plan.drawn_by(job):
        draw(plan, item)
        print(f"ready: {item.pictures[0]}.png", flush=True)


RULES = (check_zero_shot, approve_zero_shot, tables, collect, draw)

"""Two rewards on a target at once: what that item reads, and the jobs that score a reward on the other's data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prt.cell import Run
from prt.plan.jobs import Job, shared, unique
from prt.plan.vision import VisionPlan

if TYPE_CHECKING:
    import pandas as pd


def rewards(plan: VisionPlan) -> list[Run]:
    """The rewards of both data sets."""
    item = plan.config.together
    if item is None:
        return []
    facts: dict[str, Any] = {"model": item.source, "method": "prt", "alpha": 0.0, "shots": item.shots}
    return [Run(dataset=dataset, seed=seed, **facts) for dataset in item.datasets for seed in plan.config.seeds]


def carried(plan: VisionPlan) -> dict[str, Run]:
    """The folder of each reward's scores on the other data set → the reward."""
    item = plan.config.together
    return {
        f"{plan.top}/carried/{plan.path(run.model_copy(update={'dataset': other}))}": run
        for run in rewards(plan)
        for other in (item.datasets if item else [])
        if other != run.dataset
    }


def jobs(plan: VisionPlan) -> Iterator[Job]:
    """The jobs that score rewards on the data set that they were not tuned on."""
    top, found = f"{plan.top}/carried/", carried(plan)
    for name, paths in shared((folder.removeprefix(top) for folder in found), 2 if plan.few else None):
        runs = [found[f"{top}{path}"] for path in paths]
        needs = [plan.manifest(name.partition("/")[0]), *(plan.made("tuned", plan.path(run)) for run in runs)]
        gpus = 0 if plan.is_miniature(runs[0].model) else 1
        yield Job("score_rewards", name, tuple(unique(needs)), (f"{top}{name}",), sorted(paths), gpus)


def needs(plan: VisionPlan) -> list[str]:
    """What the jobs make in which all scores lie that the item reads."""
    item = plan.config.together
    if item is None:
        return []
    found = [plan.zero_shot(target, dataset) for dataset in item.datasets for target in item.targets]
    found += [plan.made("tuned", plan.path(run)) for run in rewards(plan)]
    return unique([*found, *(file for job in jobs(plan) for file in job.makes)])


def table(plan: VisionPlan) -> "pd.DataFrame":
    """Accuracy over the strengths, for each target: see :func:`prt.vision.together.measured`."""
    import pandas as pd

    from prt.scores import Scores
    from prt.together import COLUMNS
    from prt.vision.together import measured

    item = plan.config.together
    assert item is not None  # the item is its
    folders = {(run.dataset, run.dataset, run.seed): plan.folder(run) for run in rewards(plan)}
    for folder, run in carried(plan).items():
        folders[run.dataset, next(d for d in item.datasets if d != run.dataset), run.seed] = folder

    def read(folder: str, split: str) -> Scores:
        return Scores.load(Path(folder, f"{split}.safetensors"))

    def reward(of: str, dataset: str, split: str, seed: int) -> Scores:
        return read(folders[of, dataset, seed], split)

    tables = []
    for target in item.targets:

        def alone(dataset: str, split: str, target: str = target) -> Scores:
            return read(plan.zero_shot_folder(target, dataset), split)

        found = measured(alone, reward, item.datasets, plan.config.seeds, item.strengths)
        tables.append(found.assign(shots=item.shots, source=item.source, target=target))
    return pd.concat(tables, ignore_index=True)[COLUMNS]

"""The rules of the vision half."""

from pathlib import Path
from typing import TYPE_CHECKING

from prt.cli.options import ConfigFile, Device, JobName, begin, checkpoint_of, device_of, plan_of, workers_of
from prt.hub import allow_network

if TYPE_CHECKING:
    from prt.plan import Plan
    from prt.plan.jobs import Job
    from prt.plan.vision import VisionPlan


def _asked(config: Path, rule: str, job: str) -> "tuple[VisionPlan, Job]":
    plan: Plan = plan_of(config)
    of = plan.jobs.get(rule, job)
    assert plan.vision is not None  # it has this job
    return plan.vision, of


def pretrain(job: JobName, config: ConfigFile) -> None:
    """Pretrain a miniature CLIP on glyphs."""
    plan, of = _asked(config, "pretrain", job)
    from prt.miniature.pretrain import pretrain
    from prt.recipe import Recipe

    begin()
    backbone = plan.config.backbones[job]
    checkpoint = checkpoint_of(plan.top, f"pretrain/{job}.safetensors")
    recipe, out = Recipe(**(backbone.recipe or {})), Path(of.makes[0]).parent
    made_of = (str(backbone.architecture), str(backbone.corpus), recipe, plan.pretraining_seed)
    pretrain(*made_of, out, checkpoint, backbone.stop)


def prepare(job: JobName, config: ConfigFile) -> None:
    """Make a data set, of what was fetched: three splits and a manifest."""
    allow_network(False)
    plan, of = _asked(config, "prepare", job)
    from prt.vision.prepare import prepare

    begin()
    given = plan.config.datasets.get(job)
    options = given.model_dump(include={"classes", "templates", "validation", "test"}) if given else {}
    prepare(plan.source(job), Path(of.makes[0]).parent, root=Path(plan.config.downloads), **options)


def zero_shot(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Make the zero-shot heads of a backbone, and score the pretrained network with them."""
    plan, of = _asked(config, "zero_shot", job)
    from prt.vision.prepared import read_manifest
    from prt.vision.zero_shot import ZeroShot, zero_shot

    begin()
    dataset, _, alone = job.partition("/")
    manifest, on = read_manifest(Path(plan.manifest(dataset)).parent), device_of(device)
    for backbone in [alone] if alone else plan.with_heads(dataset):
        head, out = plan.head(backbone, dataset), Path(plan.zero_shot_folder(backbone, dataset))
        task = ZeroShot(dataset, manifest, head, out, make_head=dataset != plan.noisy)
        zero_shot(plan.spec(backbone), backbone, [task], device=on, workers=workers_of(of), precision=plan.precision)


def tune(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Fine-tune a backbone and tune its rewards, and score the results."""
    plan, of = _asked(config, "tune", job)
    from prt.plan.jobs import within
    from prt.vision.prepared import read_manifest
    from prt.vision.tune import Further, Tuning, tune

    begin()
    on = device_of(device)
    runs = [run for run in plan.runs(job.partition("/")[0]) if within(plan.path(run), job)]
    tune(
        plan.spec(runs[0].model),
        [
            Tuning(
                run,
                plan.recipe(run),
                out=Path(plan.folder(run)),
                checkpoint=checkpoint_of(plan.top, f"{plan.path(run)}.safetensors"),
                every=plan.every(run),
                initial=Path(begun) if (begun := plan.initial(run)) else None,
                references=tuple(Further(*of) for of in plan.further(run)),
            )
            for run in runs
        ],
        data=read_manifest(Path(plan.manifest(runs[0].dataset)).parent),
        head=plan.head(runs[0].model, runs[0].dataset),
        device=on,
        workers=workers_of(of),
    )


def score_rewards(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Score rewards on a data set that they were not tuned on; it has the same labels."""
    plan, of = _asked(config, "score_rewards", job)
    from prt.plan import together
    from prt.plan.jobs import within
    from prt.vision.predict import score_rewards
    from prt.vision.prepared import read_manifest

    begin()
    on = job.partition("/")[0]
    found = {plan.carried_folder(run): run for run in plan.carried()} | together.carried(plan)
    runs = {out: plan.folder(run) for out, run in found.items()}
    chosen = {Path(out): Path(run) for out, run in runs.items() if within(out, of.makes[0])}
    manifest = read_manifest(Path(plan.manifest(on)).parent)
    rewards, outs, workers = list(chosen.values()), list(chosen), workers_of(of)
    score_rewards(rewards, on, manifest, outs, device=device_of(device), workers=workers)


def merge(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Score a target with the difference of a source's fine-tuned and pretrained weights added to its own."""
    plan, of = _asked(config, "merge", job)
    from prt.vision.merge import Merged, merge
    from prt.vision.prepared import read_manifest

    begin()
    dataset, source, target = job.split("/")
    found = {out: c for out, c in plan.merged(dataset).items() if (c.source, c.target) == (source, target)}
    runs = map(plan.folder, plan.fine_tuned(list(found.values())))
    merged = [Merged(cell, Path(run), Path(out)) for (out, cell), run in zip(found.items(), runs, strict=True)]
    merge(
        plan.spec(source),
        plan.spec(target),
        plan.head(target, dataset),
        merged,
        data=read_manifest(Path(plan.manifest(dataset)).parent),
        precision=plan.precision,
        device=device_of(device),
        workers=workers_of(of),
    )


def measure_training(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Time and memory of an iteration of fine-tuning and reward tuning (Table 1); the weights are random."""
    plan, of = _asked(config, "measure_training", job)
    from prt.tables import write_table
    from prt.vision.speed import training

    begin()
    costs = plan.config.costs
    assert costs is not None  # the job is theirs
    networks = {name: plan.network(name) for name in costs.training}
    table = training(networks, costs.batch, device_of(device), plan.precision, costs.repeats)
    write_table(Path(of.makes[0]), table, digits=6)


def measure_inference(job: JobName, config: ConfigFile, device: Device = "auto") -> None:
    """Time and memory of a batch through a target alone, EFT and PRT (Table 2); the weights are random."""
    plan, of = _asked(config, "measure_inference", job)
    from prt.tables import write_table
    from prt.vision.speed import inference

    begin()
    costs = plan.config.costs
    assert costs is not None  # the job is theirs
    pairs = [(source, target) for source, target in costs.inference]
    networks = {name: plan.network(name) for pair in pairs for name in pair}
    table = inference(networks, pairs, costs.batch, device_of(device), costs.repeats, costs.compile)
    write_table(Path(of.makes[0]), table, digits=6)


RULES = (pretrain, prepare, zero_shot, tune, score_rewards, merge, measure_training, measure_inference)

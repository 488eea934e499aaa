# Needs: the configuration. Makes: nothing; checks the configuration and answers questions about it.
import json
import re
from operator import attrgetter
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from prt.config import check
from prt.errors import InputError
from prt.atomic import write_text

try:
    check(
        config,
        yaml.safe_load(
            Path(
                workflow.basedir, "workflow", "schemas", "config.schema.yaml"
            ).read_text()
        ),
    )
except InputError as error:
    raise WorkflowError(str(error)) from None

# What is fetched is fetched by rules of its own; every other job runs without a network.
shell.prefix("export HF_HUB_OFFLINE=1; ")

EXPERIMENT = config["experiment"]
FIGURES = f"results/{EXPERIMENT}/figures"


def as_json(value):
    """A value on a command line; equal values, equal text, so that only a real change reruns a job."""
    return json.dumps(value, sort_keys=True)


def slug(text):
    """A source's or a tag's name as a file's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", text)


def cores_of(gpus):
    """CPU cores of a job: more than one only with GPUs to keep busy (slurm/config.yaml counts on it)."""
    return 8 * gpus or 1


def growing(amount):
    """A resource that grows with each attempt, so that a job killed for want of it succeeds when it is tried again."""
    return lambda wildcards, attempt: amount * attempt


def alone(gpus):
    """Cores of a job that measures time: all that this run has, so that no other of its jobs disturbs it.

    On a cluster there is no such number, and the other jobs on the node are anyone's.
    """

    def cores(wildcards):
        executor = workflow.executor_plugin  # none where only a report is made
        here = executor is None or executor.name in ("local", "dryrun")
        return workflow.resource_settings.cores or 1 if here else cores_of(gpus)

    return cores


def drawn(stem, **about):
    """Outputs of a figure: PNG (shown in the report, which ``about`` describes), PDF and the rows it shows."""
    stem = f"{FIGURES}/{stem}"
    return [report(f"{stem}.png", **about), f"{stem}.pdf", f"{stem}.csv"]


def write_configuration():
    """Keep the configuration in force beside the results."""
    try:
        write_text(
            f"results/{EXPERIMENT}/config.yaml", yaml.safe_dump(config, sort_keys=False)
        )
    except InputError as error:
        raise WorkflowError(str(error)) from None


def refuse_taken_name(name, what, rules):
    """What is a target of its own needs a name that no rule has."""
    if name in map(attrgetter("name"), rules):
        raise WorkflowError(
            f"a {what} cannot be called '{name}', as a target is called so; choose another name."
        )

# Needs: the configuration. Makes: the plan, which every rule asks, and results/EXPERIMENT/config.yaml.
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from prt import slurm
from prt.atomic import write_text
from prt.errors import InputError
from prt.plan import Plan
from prt.plan.rules import Rules, growing

try:
    PLAN = Plan.of(config)
except InputError as error:
    raise WorkflowError(str(error)) from None

ASK = Rules(PLAN)
TOP = f"results/{PLAN.config.experiment}"
VISION, LANGUAGE = f"{TOP}/vision", f"{TOP}/language"
LOGS, COSTS = f"{TOP}/logs", f"{TOP}/benchmarks"
CONFIG = f"{TOP}/config.yaml"  # the configuration in force, which every job reads

# What is fetched is fetched by rules of its own; every other job runs without a network.
shell.prefix("export HF_HUB_OFFLINE=1; ")


def start():
    """Ask SLURM, where it is used, whether it would take the jobs; keep the configuration beside the results."""
    try:
        if workflow.executor_plugin.name == "slurm":
            slurm.check(workflow.dag.needrun_jobs())
        write_text(CONFIG, yaml.safe_dump(config, sort_keys=False))
    except InputError as error:
        raise WorkflowError(str(error)) from None

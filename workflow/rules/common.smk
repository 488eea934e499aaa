# Needs: the configuration. Makes: the plan, which every rule asks, and results/EXPERIMENT/config.yaml.
import signal
import sys
from pathlib import Path
from threading import Thread

import yaml
from snakemake.exceptions import WorkflowError

from prt.atomic import write_text
from prt.errors import InputError, last_words
from prt.plan import Plan, ahead
from prt.plan.rules import Rules

try:
    PLAN = Plan.of(config)
    PLAN.check_inputs()
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
    """Refuse what could not succeed; keep the configuration beside the results."""
    try:
        ASK.limits = ahead.check(
            PLAN, workflow.dag.needrun_jobs(), workflow.executor_plugin.name
        )
        write_text(CONFIG, yaml.safe_dump(config, sort_keys=False))
    except InputError as error:
        raise WorkflowError(str(error)) from None
    signal.signal(signal.SIGTERM, end_soon)


def end_soon(*_):
    """Let running jobs end, and start no others, as Snakemake does when it gets SIGTERM.

    Its own handler waits for a lock that the very thread which it interrupts may hold, and then for ever.
    """
    Thread(target=workflow.scheduler.exit_gracefully).start()


def complain():
    """Say in the end, of each job that failed, what it said itself."""
    for failed in workflow.scheduler.failed:
        jobs = failed.jobs if failed.is_group() else [failed]
        said = [
            f"{job.name} {job.wildcards.get('job', '')}: {words}"
            for job in jobs
            for words in last_words(job.log)
        ]
        print(
            *said
            or [f"{failed}: ended without a word, so it was killed or did not start"],
            sep="\n",
            file=sys.stderr,
        )

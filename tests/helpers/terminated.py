"""Snakemake as it is, but that SIGTERM reaches it at the worst time: while it chooses the first jobs, under a lock."""

import os
import signal
import sys
from typing import Any

from snakemake.cli import main
from snakemake.scheduling.job_scheduler import JobScheduler

update = JobScheduler.update_available_resources


def interrupted(self: JobScheduler, selected: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    update(self, selected)


JobScheduler.update_available_resources = interrupted
sys.argv[0] = "snakemake"
main()

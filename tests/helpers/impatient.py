"""Snakemake as it is, but for the seconds between two looks at SLURM, which grow by ten and have no option."""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(_: RemoteExecutor) -> None:
    await asyncio.sleep(0.5)


RemoteExecutor.sleep = sleep
sys.argv[0] = "snakemake"
main()

"""Running the pipeline as users do."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def invocation(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run Snakemake on ``folder/config.yaml``, with results in ``folder``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(folder / "config.yaml"), "--cores", "2", *arguments]
    return command, os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; what it said, dry runs on one stream and real runs on the other, is all in ``stdout``."""
    command, environment = invocation(folder, *arguments)
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def counts(said: str) -> dict[str, int]:
    """How many jobs of each rule a dry run counts; rules that are made for each job go under their plan's rule."""
    lines = said.rpartition("Job stats:")[2].partition("total")[0].splitlines()
    found: dict[str, int] = {}
    for rule, number in (line.split() for line in lines[3:] if line.strip()):
        name = next((of for of in ("tables", "collect", "draw") if rule.startswith(f"{of}_")), rule)
        found[name] = found.get(name, 0) + int(number)
    return found

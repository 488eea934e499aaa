"""The plan's answers, in the form in which Snakemake's rules ask: functions of a job's wildcard and attempt."""

import re
from collections.abc import Callable
from typing import Any

from prt.plan import Plan
from prt.plan.jobs import Job
from prt.slurm import Limits

NONE = "(?!)"  # no name: a rule without jobs


class Rules:
    """What a rule is told of its jobs; each is looked up by the wildcard ``job``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.limits: Limits = {}  # once a cluster was asked

    def names(self, rule: str) -> str:
        """The wildcard's constraint: the names of the rule's jobs."""
        return "|".join(map(re.escape, self.plan.jobs.names(rule))) or NONE

    def _of(self, rule: str, value: Callable[[Job], Any]) -> Callable[[Any], Any]:
        return lambda wildcards: value(self.plan.jobs.get(rule, wildcards.job))

    def needs(self, rule: str) -> Callable[[Any], list[str]]:
        """What a job reads."""
        return self._of(rule, lambda job: list(job.needs))

    def about(self, rule: str) -> Callable[[Any], str]:
        """What of the configuration a job hangs on: where it changes, Snakemake runs the job again."""
        return self._of(rule, lambda job: job.fingerprint)

    def state(self, wildcards: Any) -> str:
        """What a user's own image folder holds: where files in it change, its data set is prepared again."""
        return self.plan.vision.state(wildcards.job) if self.plan.vision else ""

    def cores(self, rule: str) -> Callable[[Any], int]:
        """CPU cores of a job."""
        return self._of(rule, lambda job: job.cores)

    def gpus(self, rule: str) -> Callable[[Any], int]:
        """GPUs of a job."""
        return self._of(rule, lambda job: job.gpus)

    def device(self, rule: str) -> Callable[[Any], str]:
        """What a job computes on."""
        return self._of(rule, lambda job: job.device)

    def _growing(self, kind: str, amount: Callable[[Any], int]) -> Callable[..., int]:
        """A resource that grows with each attempt, so that a job killed for want of it succeeds when tried again.

        It does not grow beyond what the job's partition gives: there SLURM refuses a job, or never starts it.
        """

        def grown(wildcards: Any, attempt: int, threads: int, rulename: str) -> int:
            first, most = amount(wildcards), self.limits.get((rulename, threads))
            return max(first, int(min(attempt * first, getattr(most, kind)))) if most else attempt * first

        return grown

    def megabytes(self, amount: int) -> Callable[..., int]:
        """MB of a job; more with each attempt."""
        return self._growing("mem_mb", lambda _: amount)

    def memory(self, rule: str, base: int, per_billion: int, small: int | None = None) -> Callable[..., int]:
        """MB of a job, by the billions of parameters that each of its processes holds; more with each attempt.

        ``small``: of a job without a GPU, whose model is a miniature. What would else be in a GPU's memory, in bf16,
        is three times as much: in fp32 a tuning holds 20 bytes a parameter (weights, gradients, moments, pretrained).
        """

        def first(job: Job) -> int:
            least = base if small is None or job.gpus else small
            return int(least + per_billion * (job.gpus or 3) * job.billions)

        return self._growing("mem_mb", self._of(rule, first))

    def time(self, amount: int) -> Callable[..., int]:
        """Minutes that a job may take; more with each attempt."""
        return self._growing("runtime", lambda _: amount)

    def minutes(self, rule: str) -> Callable[..., int]:
        """Minutes that a job may take, as the plan has it; more with each attempt."""
        return self._growing("runtime", self._of(rule, lambda job: job.minutes))

    def launch(self, rule: str) -> Callable[[Any, Any, int], str]:
        """What starts a job on GPUs: one process for each, with its share of the cores."""

        def launched(wildcards: Any, resources: Any, threads: int) -> str:
            gpus = resources.get("gpu", 0)
            if not gpus:
                return ""
            share = max(1, threads // gpus)
            return f"OMP_NUM_THREADS={share} torchrun --standalone --nproc-per-node {gpus} --no-python"

        return launched

    def alone(self, rule: str, workflow: Any) -> Callable[[Any], int]:
        """Cores of a job that measures time: all that this run has, so that no other of its jobs disturbs it.

        On a cluster there is no such number, and the other jobs on the node are anyone's.
        """

        def cores(wildcards: Any) -> int:
            executor = workflow.executor_plugin  # none where only a report is made
            here = executor is None or executor.name in ("local", "dryrun")
            own = self.plan.jobs.get(rule, wildcards.job).cores
            return workflow.resource_settings.cores or 1 if here else own

        return cores

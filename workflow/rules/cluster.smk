# Needs: the DAG. Makes: nothing; asks SLURM, where it is used, whether it would take the jobs.
import subprocess

from snakemake.exceptions import WorkflowError


def submission(job):
    """What SLURM is asked for a job, as options of sbatch."""
    given = job.resources
    kind = [given.get("gpu_model"), str(given.get("gpu"))]
    options = {
        "account": given.get("slurm_account"),
        "partition": given.get("slurm_partition"),
        "gpus": given.get("gpu") and ":".join(filter(None, kind)),
        "cpus-per-task": job.threads,
        "mem": given.get("mem_mb"),
        "time": given.get("runtime"),
    }
    return tuple(f"--{option}={value}" for option, value in options.items() if value)


def check_cluster():
    """Let SLURM say what it would refuse, before the first job is submitted."""
    if workflow.executor_plugin.name != "slurm":
        return
    jobs = {
        submission(job): job.rule.name
        for job in workflow.dag.needrun_jobs()
        if not job.is_local
    }
    for options, name in sorted(jobs.items()):
        try:
            answer = subprocess.run(
                ["sbatch", "--test-only", *options, "--wrap=true"],
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise WorkflowError(
                "this machine has no sbatch: start the pipeline on a login node of the cluster."
            ) from None
        if answer.returncode != 0:
            reason = answer.stderr.strip().rpartition("\n")[2].rpartition(": ")[2]
            raise WorkflowError(
                f"SLURM refuses jobs of '{name}' ({' '.join(options)}): {reason}; name what your cluster has "
                "at the top of slurm/config.yaml, or give the rule other resources with --set-resources."
            )

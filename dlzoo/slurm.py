"""What SLURM says of this job, from its environment variables."""

from collections.abc import Mapping


def slurm_job(environment: Mapping[str, str]) -> str | None:
    """SLURM's number of this job, with the task's of an array; None outside SLURM."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment.get('SLURM_ARRAY_TASK_ID', '0')}"
    return environment.get("SLURM_JOB_ID")

"""The same training on one process and on two, by every strategy: what differs, what it takes. Writes results/devices.json.

    python scripts/devices.py            two processes of the CPU, over gloo
    python scripts/devices.py --gpu      all GPUs of the machine; a large network as well, for the memory of each stage

The network has no batch norm: its statistics are each process's own, and torch's synchronised batch norm is for GPUs alone.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = 20
# uneven on purpose: 180 and 360 images in batches of 101, shared by two
WORDS = (
    *("experiment=digits_resnet", "model=mlp", "model.side=8", "model.hidden=[64,64,64]", "optimizer.lr=0.05"),
    *("trainer.max_epochs=-1", f"trainer.max_steps={STEPS + 1}", "trainer.log_every_n_steps=1", "data.eval_batch_size=101"),
)
SHARDED = ("fsdp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3", "deepspeed_stage_3_offload")
CPU = ("cpu", "ddp_cpu", *(f"{name}_cpu" for name in SHARDED))
GPU = ("gpu", "ddp", *SHARDED)
LARGE = ("model.hidden=[8192,8192,8192,8192,8192,8192,8192,8192]", "optimizer=adamw", "optimizer.lr=1e-4", "test=false")


def train(folder: Path, *words: str, timeout: float = 900) -> dict[str, float]:
    """Trains in `folder` as a user would, in processes of its own.

    Returns:
        seconds, the number of processes and the largest process's peak memory: MB of the machine's, and of a GPU's.

    Raises:
        RuntimeError: it failed; the text is what it said.
    """
    command = [sys.executable, str(ROOT / "train.py"), *words, f"run_dir={folder}"]
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env=_environment())
        peak: dict[int, float] = {}
        gpu: dict[int, float] = {}
        while process.poll() is None:
            if time.perf_counter() - began > timeout:
                process.kill()
            for pid in _processes(folder):
                peak[pid] = max(peak.get(pid, 0.0), _peak_memory(pid))
            for pid, megabytes in _gpu_memory().items():
                gpu[pid] = max(gpu.get(pid, 0.0), megabytes)
            time.sleep(0.2)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit code {process.returncode}\n{said.read()[-3000:]}")
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processes": json.loads((folder / "summary.json").read_text())["devices"],
        "memory_mb": round(max(peak.values(), default=0.0)),
        "gpu_memory_mb": round(max(gpu.values(), default=0.0)),
    }


def differences(one: Path, other: Path) -> dict[str, float]:
    """The largest relative difference of the losses of the first steps, and of the metrics of validation and test."""
    mine, theirs = column(one, "train/loss")[:STEPS], column(other, "train/loss")[:STEPS]
    if len(mine) != STEPS or len(theirs) != STEPS:
        raise RuntimeError(f"expected {STEPS} losses, found {len(mine)} and {len(theirs)}: {other}")
    found = {"train/loss": max(abs(a - b) / abs(a) for a, b in zip(mine, theirs, strict=True))}
    before, after = (json.loads((run / "summary.json").read_text())["metrics"] for run in (one, other))
    for name, value in sorted(before.items()):
        if name.startswith(("val/", "test/")):
            found[name] = abs(value - after[name]) / (abs(value) if name.endswith("loss") else 1)
    return found


def column(run: Path, name: str) -> list[float]:
    """One column of a run's metrics.csv, without its gaps."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def measure(trainers: tuple[str, ...], folder: Path, precision: str = "32", words: tuple[str, ...] = ()) -> list[dict]:
    """One row for each trainer, compared with the first."""
    rows = []
    for trainer in trainers:
        run = folder / f"{trainer}-{precision}"
        row = {"trainer": trainer, "precision": precision}
        try:
            row |= train(run, *WORDS, *words, f"trainer={trainer}", f"trainer.precision={precision}")
            row |= differences(folder / f"{trainers[0]}-{precision}", run)
        except RuntimeError as error:
            row["error"] = str(error)[-600:]
        rows.append(row)
        print(
            *(f"{key} {value:.2e}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()), flush=True
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="on the GPUs of the machine")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "devices.json")
    parser.add_argument("--only", nargs="*", default=[], help="trainers, beside the first")
    args = parser.parse_args()
    trainers = GPU if args.gpu else CPU
    trainers = tuple(name for name in trainers if name == trainers[0] or not args.only or name in args.only)
    with tempfile.TemporaryDirectory(prefix="devices-") as temporary:
        folder = Path(temporary)
        found = {"parity": measure(trainers, folder)}
        if args.gpu:
            plain = ("optimizer.fused=false",)
            for precision in ("16-mixed", "bf16-mixed"):
                found[precision] = measure(trainers, folder, precision, plain)
            found["memory"] = measure(trainers, folder / "large", "32", LARGE)
    before = json.loads(args.out.read_text()) if args.out.is_file() else {}
    from dlzoo.rundir import environment

    found |= {"machine": environment(), "steps": STEPS, "words": " ".join(WORDS)}
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(before | {"gpu" if args.gpu else "cpu": found}, indent=2) + "\n", encoding="utf-8")
    print(args.out)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONUNBUFFERED": "1"}


def _processes(folder: Path) -> list[int]:
    """The processes that train in a folder: its name is among their words."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"run_dir={folder}".encode() in words:
            found.append(int(place.name))
    return found


def _peak_memory(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _gpu_memory() -> dict[int, float]:
    try:
        query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {int(pid): float(memory) for pid, memory in (line.split(", ") for line in said.splitlines() if ", " in line)}


if __name__ == "__main__":
    main()

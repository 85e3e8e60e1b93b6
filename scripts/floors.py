"""What CI demands of real training: each job ends above a floor that was measured, or this exits 1.

python scripts/floors.py
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# overrides, metric, floor. The floors lie below what three seeds gave by more than their spread (RESULTS.md).
JOBS = [
    (["experiment=digits_resnet"], "test/acc", 0.97),
    (["experiment=cifar10_resnet", "trainer=cpu_fast", "trainer.max_epochs=1"], "test/acc", 0.40),
]


def main() -> int:
    failed = 0
    for overrides, metric, floor in JOBS:
        if any("cifar10" in override for override in overrides) and not Path(os.environ.get("DLZOO_DATA", "")).is_dir():
            print(f"left out: {' '.join(overrides)}: DLZOO_DATA names no folder of data sets")
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            done = subprocess.run([sys.executable, str(ROOT / "train.py"), *overrides, f"run_dir={run}"], cwd=folder)
            if done.returncode:
                return done.returncode
            summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        value = summary["metrics"][metric]
        verdict = "ok" if value >= floor else "BELOW THE FLOOR"
        print(
            f"{' '.join(overrides)}: {metric} {value:.4f}, floor {floor}, {summary['training_seconds']} s: {verdict}",
            flush=True,
        )
        failed += value < floor
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

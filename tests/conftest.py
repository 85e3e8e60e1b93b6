"""What the tests share: where the real data are, and a process to try the command line in."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish():
    """What was imported stays to the end: the garbage collector need not go through millions of objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch):
    """No test reaches the network, an account, or the terminal's settings."""
    monkeypatch.setenv("DLZOO_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("DLZOO_DEBUG", raising=False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets; a test that needs them is skipped where they are absent (.ci/run has them)."""
    path = os.environ.get("DLZOO_DATA")
    if not path or not Path(path).is_dir():
        pytest.skip("DLZOO_DATA does not name a folder of real data sets")
    return Path(path)


@pytest.fixture(scope="session")
def cli():
    """Runs a command line of the project as a user would: cli("train.py", "seed=1", cwd=...) -> CompletedProcess."""

    def run(*words, cwd=ROOT, timeout=300, **variables):
        program = [sys.executable, "-m", "dlzoo", *words]
        if words and str(words[0]).endswith(".py"):
            program = [sys.executable, str(ROOT / words[0]), *words[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in variables.items()}}
        environment.pop("PYTHONWARNINGS", None)
        return subprocess.run(
            [str(word) for word in program], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return run

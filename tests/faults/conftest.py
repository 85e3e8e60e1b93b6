"""What the fault tests share: processes that start in milliseconds, and a run that nobody disturbs to compare with."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "scripts")]

import kill_test  # noqa: E402
import processes  # noqa: E402
from short_runs import SHORT, STEPS, summary  # noqa: E402


@pytest.fixture(scope="session")
def server():
    """Starts `dlzoo ...` as processes of their own; see scripts/processes.py."""
    with processes.processes() as found:
        yield found


@pytest.fixture(scope="session")
def straight(server, tmp_path_factory):
    """Every number of the run of SHORT that nothing happens to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    code, job = server.run(*SHORT, f"run_dir={folder}")
    assert code == 0, job.errors
    assert summary(folder)["steps"] == STEPS
    return kill_test.fingerprint(folder)

"""Runs the command line in processes of its own without importing torch and Lightning each time.

One process imports everything and computes nothing; each job is a fork of it, with its own session, directory and environment,
that can be killed like any other. For tests that start hundreds of runs: a start takes milliseconds in place of eight seconds.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# what a run imports
IMPORTED = (
    *("lightning.pytorch.callbacks", "lightning.pytorch.loggers", "matplotlib.backends.backend_agg", "matplotlib.figure"),
    *("torchvision.transforms.v2", "dlzoo.callbacks.checkpoint", "dlzoo.callbacks.ema", "dlzoo.callbacks.faulty"),
    *("dlzoo.callbacks.finite", "dlzoo.callbacks.loggers", "dlzoo.callbacks.report", "dlzoo.callbacks.sam"),
    *("dlzoo.callbacks.screen", "dlzoo.cli", "dlzoo.datamodules.cifar", "dlzoo.datamodules.digits", "dlzoo.optim.schedules"),
    *("dlzoo.datamodules.image_folder", "dlzoo.models.vision.mlp", "dlzoo.models.vision.resnet", "dlzoo.run"),
    *("dlzoo.tasks.classification", "dlzoo.verbs"),
)


@dataclass
class Job:
    """A process that has been started.

    Args:
        pid: its number; it leads a process group of its own.
        folder: of its output.
    """

    pid: int
    folder: Path

    @property
    def output(self) -> str:
        """What it has written to the screen so far."""
        return (self.folder / "stdout").read_text(errors="replace")

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def send(self, number: int) -> None:
        """Sends it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Processes:
    """Starts jobs and waits for them, one after the other."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
        )
        assert self._ask({}) == {"ready": True}

    def start(self, *words: object, cwd: Path | str | None = None, **variables: object) -> Job:
        """Starts `dlzoo words...` and returns at once."""
        folder = Path(tempfile.mkdtemp(prefix="job-"))
        for name in ("stdout", "stderr"):
            (folder / name).touch()
        answer = self._ask(
            {
                "words": [str(word) for word in words],
                "cwd": str(cwd or folder),
                "folder": str(folder),
                "variables": {key: str(value) for key, value in variables.items()},
            }
        )
        return Job(answer["pid"], folder)

    def wait(self, job: Job) -> int:
        """Its exit code; negative where a signal ended it."""
        return self._ask({"wait": job.pid})["code"]

    def run(self, *words: object, cwd: Path | str | None = None, **variables: object) -> tuple[int, Job]:
        """Starts one and waits for it."""
        job = self.start(*words, cwd=cwd, **variables)
        return self.wait(job), job

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait(timeout=30)
        self.server.stdout.close()

    def _ask(self, question: dict) -> dict:
        self.server.stdin.write(json.dumps(question) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The server, for as long as it is open."""
    server = Processes()
    try:
        yield server
    finally:
        server.close()


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        elif "words" in question:
            pid = os.fork()
            if pid == 0:
                _become(question)
            answer = {"pid": pid}
        else:
            answer = {"ready": True}
        print(json.dumps(answer), flush=True)


def _become(question: dict) -> None:
    """The forked process: its own session, files and variables, then the command line; it never returns."""
    import dlzoo.cli

    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    folder = Path(question["folder"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    os.environ.update(question["variables"])
    os.chdir(question["cwd"])
    words: Sequence[str] = question["words"]
    sys.argv = ["dlzoo", *words]
    code = 1
    try:
        code = dlzoo.cli.main(list(words))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()

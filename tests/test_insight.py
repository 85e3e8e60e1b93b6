"""`dlzoo explain`: each picture is there and none is empty; what can not be done is said in a few lines."""

import json
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

import dlzoo
from dlzoo import cli, insight, insight_pictures
from dlzoo.errors import ConfigError, DataError

QUICK = (
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "callbacks.checkpoint.keep_every_n_epochs=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("insight") / "run"
    return dlzoo.train(dlzoo.compose(*QUICK, f"run_dir={folder}"))


@pytest.fixture
def say(capsys):
    def run(*words):
        capsys.readouterr()
        code = cli.main(["explain", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_all_pictures_of_a_run(run, say):
    from PIL import Image

    code, out, err = say(run.dir, "--points", 3, "--samples", 16)
    assert code == 0, err
    names = {*insight_pictures.KINDS, "landscape_way"}
    assert {path.stem for path in (run.dir / "explain").glob("*.png")} == names
    for name in names:
        assert f"{name}.png" in out
        with Image.open(run.dir / "explain" / f"{name}.png") as image:
            assert image.convert("L").getextrema() != (255, 255) and image.size[0] > 300
    for kind, line in insight_pictures.KINDS.items():
        assert line in out, kind
    assert "left out" not in out and "keep_every" not in out


def test_one_picture_of_a_file_and_a_layer(run, say):
    for path in (run.dir / "explain").glob("gradcam.png"):
        path.unlink()
    words = ("gradcam", "--picture", run.dir / "example.png", "--layer", "stages.0.2", "--json")
    code, out, err = say(run.dir, *words, "data_dir=/nowhere")  # a picture of one's own needs no data
    assert code == 0, err
    assert json.loads(out) == [str(run.dir / "explain" / "gradcam.png")]


def test_with_a_picture_of_ones_own_what_needs_data_is_left_out(run, monkeypatch):
    def missing(look):
        raise DataError("the data are not here")

    monkeypatch.setattr(insight_pictures.Look, "data", property(missing))
    said = []
    options = insight.Options(str(run.dir / "example.png"), "stages.1")
    written = insight.explain(run.dir, "all", options, said.append)
    assert [path.stem for path in written] == ["gradcam", "features", "visualize", "occlusion", "receptive_field"]
    left = {line.partition(":")[0] for line in said if "left out" in line}
    assert left == {"filters", "landscape", "confusion", "mistakes"}  # a stage has no filters of its own
    with pytest.raises(DataError, match="not here"):
        insight.explain(run.dir)
    with pytest.raises(ConfigError, match="no layer 'stage'"):
        insight.explain(run.dir, "all", insight.Options(layer="stage"))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("model=resnet56",), "resnet56, val/loss 0.250"),
        (("model=resnet56", "model.shortcut=none"), "resnet56, shortcut=none, val/loss 0.250"),
        (("model=resnet20", "model.shortcut=none"), "plain20, val/loss 0.250"),  # which has a name of its own
    ],
    ids=["as it is", "changed", "named"],
)
def test_a_landscape_is_called_by_what_was_changed(words, name):
    config = OmegaConf.to_container(dlzoo.compose(*words), resolve=True)
    assert (
        insight_pictures._model(SimpleNamespace(config=config, summary={"metrics": {"val/loss": 0.25}, "model": "?"})) == name
    )


def test_two_runs_beside_each_other(run, say):
    code, out, err = say(run.dir, "landscape", "--beside", run.dir, "--points", 2, "--samples", 8)
    assert code == 0 and "landscape.png" in out, err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gradcm"], ["there is no picture 'gradcm'", "did you mean 'gradcam'"]),
        (["gradcam", "filters"], ["one kind of picture at a time"]),
        (["gradcam", "--layer", "stages.2.9"], ["there is no layer 'stages.2.9'", "did you mean"]),
        (["features", "--layer", "head"], ["no map"]),
        (["gradcam", "--picture", "nothing.png"], ["there is no picture nothing.png"]),
        (["landscape", "--points", "1"], ["--points must be at least 2"]),
        (["landscape", "--beside", "nothing"], ["not the directory of a run"]),
        (["--pictures", "x"], ["did you mean '--picture'"]),
        (["next"], ["there is no picture 'next' of this kind of run", "gradcam, filters"]),
        (["--text", "x"], ["the run is of pictures, and --text is not"]),
        (["--top", "0"], ["--top must be at least 1"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_a_few_lines(run, say, words, expected):
    code, out, err = say(run.dir, *words)
    assert code in (2, 3) and out == "" and len(err.strip().splitlines()) <= 8
    for word in expected:
        assert word in err, err


def test_what_does_not_apply_is_left_out_and_said(run, monkeypatch, tmp_path):
    """A network that gives maps of labels has filters, maps and fields, and no scores to ask for."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 10, 1))
    monkeypatch.setattr(insight_pictures.verbs, "load", lambda *_: net)
    said = []
    written = insight.explain(run.dir, "all", insight.Options(points=2, samples=4), said.append)
    assert [path.stem for path in written] == ["filters", "features", "receptive_field"]
    left = {line.partition(":")[0] for line in said if "left out" in line}
    assert left == {"gradcam", "visualize", "occlusion", "landscape", "confusion", "mistakes"}
    assert all("one score for each class" in line for line in said if "left out" in line)


def test_test_pictures_are_of_all_classes():
    labels = [0] * 300 + [1] * 300 + [2] * 5
    order = insight_pictures._one_of_each(labels)
    assert [labels[index] for index in order[:6]] == [0, 1, 2, 0, 1, 2]
    assert len(set(order)) == len(order) == insight_pictures.LOOKED_AT
    assert sum(labels[index] == 2 for index in order) == 5
    assert insight_pictures._one_of_each([1, 0, 1]) == [1, 0, 2]

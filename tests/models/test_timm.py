"""Any model of timm trains, goes on, is measured and exported like one of ours; what is wrong with a name is said in a line."""

import json

import pytest
import timm as library
import torch
from torch import nn

import dlzoo
from dlzoo import cli, rundir, verbs
from dlzoo import run as runs
from dlzoo.errors import ConfigError, DataError
from dlzoo.models.timm import timm

TINY = ("model=timm", "model.timm_name=test_resnet", "trainer=cpu", "trainer.limit_train_batches=4", "data.batch_size=32")


def test_it_is_timms_own_network():
    torch.manual_seed(0)
    ours = timm("test_resnet", num_classes=5, in_channels=1)
    torch.manual_seed(0)
    theirs = library.create_model("test_resnet", num_classes=5, in_chans=1)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(ours.eval()(x), theirs.eval()(x)) and ours(x).shape == (2, 5)


def test_sizes_and_depths_are_passed_on():
    net = timm("test_vit", num_classes=5, image_size=32)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    rates = [
        module.drop_prob for module in timm("test_convnext", stochastic_depth=0.3).modules() if hasattr(module, "drop_prob")
    ]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timm_name": "test_resnt"}, "timm has no model 'test_resnt': did you mean 'test_resnet'"),
        ({"timm_name": "convnext-tiny"}, "did you mean .*'convnext_tiny'"),
        ({"timm_name": "hf-hub:somebody/something"}, "timm has no model 'hf-hub:somebody/something'"),
        ({"timm_name": "local-dir:/tmp"}, "timm has no model"),
        ({"timm_name": ""}, "timm has no model ''"),
        ({"timm_name": "resnet18.nothing"}, "timm has no weights 'nothing' of resnet18, only: .*a1_in1k"),
        ({"timm_name": "test_resnet", "image_size": 32}, "test_resnet can not be built with .*img_size=32"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
    ],
)
def test_what_timm_has_not_is_a_mistake_of_the_config(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dlzoo.create_model("timm", **arguments)
    assert caught.value.exit_code == 2


def test_a_wrong_name_on_the_command_line_is_a_few_lines(tmp_path, capsys):
    words = ["model=timm", "model.timm_name=convnext_tny", "trainer=cpu", f"run_dir={tmp_path}/run"]
    assert cli.main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'convnext_tiny'" in said and "Traceback" not in said and len(said.splitlines()) <= 6
    assert not (tmp_path / "run").exists()


# --- published weights


def test_weights_offline_are_data_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("DLZOO_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        dlzoo.create_model("timm", pretrained=True, timm_name="test_resnet")
    text = str(caught.value)
    assert caught.value.exit_code == 3 and "DLZOO_OFFLINE" in text and "huggingface.co/timm/test_resnet" in text
    assert "model.pretrained=false" in text


def test_a_download_that_fails_says_why(monkeypatch):
    def broken(*_, **__):
        raise OSError("the cable is out\nand more")

    monkeypatch.delenv("DLZOO_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(DataError, match=r"could not be downloaded: the cable is out\n") as caught:
        dlzoo.create_model("timm", pretrained=True, timm_name="test_resnet")
    assert caught.value.exit_code == 3


@pytest.fixture
def published(monkeypatch, tmp_path):
    """The published file of test_resnet, as the hub's cache would hold it: made here, and the path that is given for it."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    net = library.create_model("test_resnet")
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def cached(repository, file):
        asked.append((repository, file))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    return net, asked


def test_weights_that_are_there_are_used_and_a_head_of_other_classes_is_new(published):
    theirs, asked = published
    whole = dlzoo.create_model("timm", pretrained=True, timm_name="test_resnet")
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in whole.state_dict().items())
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    grey = dlzoo.create_model("timm", pretrained=True, timm_name="test_resnet", num_classes=7, in_channels=1)
    assert grey(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert torch.equal(grey.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)


def test_a_run_begins_with_them_and_what_follows_asks_for_nothing(published, tmp_path, monkeypatch):
    _, asked = published
    words = [*TINY, "model.pretrained=true", "trainer.max_epochs=1", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert len(asked) == 1 and run.config["model"]["pretrained"] is True
    dlzoo.load(run.dir), verbs.evaluate(run.dir), runs.go_on(run, ["trainer.max_epochs=2"])
    assert len(asked) == 1


# --- like one of ours


@pytest.mark.slow
def test_trains_goes_on_is_measured_predicts_and_exports(tmp_path):
    """One run straight through, and one that is stopped after its first epoch: the same weights, bit by bit."""
    straight, halves = ([*TINY, f"run_dir={tmp_path}/{name}"] for name in ("straight", "halves"))
    whole = dlzoo.train(dlzoo.compose(*straight, "trainer.max_epochs=2", "scheduler=constant"))
    dlzoo.train(dlzoo.compose(*halves, "trainer.max_epochs=1", "scheduler=constant"))
    run = runs.go_on(rundir.find(tmp_path / "halves"), ["trainer.max_epochs=2"])
    assert run.summary["model"] == "test_resnet" and run.summary["status"] == "finished"
    for one, other in zip(dlzoo.load(whole.dir, "last").parameters(), dlzoo.load(run.dir, "last").parameters(), strict=True):
        assert torch.equal(one, other)
    assert verbs.evaluate(run.dir)["test/acc"] == pytest.approx(run.metrics["test/acc"])
    (prediction,) = verbs.predict(run.dir, run.dir / "example.png")
    assert len(prediction.labels) == 3 and 0 < prediction.probabilities[0] <= 1
    path, report = verbs.export(run.dir)
    assert path.is_file() and max(batch["max_rel"] for batch in report["batches"]) <= 1e-4
    assert json.loads(path.with_name("model.onnx.json").read_text())["classes"] == list("0123456789")
    assert isinstance(dlzoo.load(run.dir).get_classifier(), nn.Linear)

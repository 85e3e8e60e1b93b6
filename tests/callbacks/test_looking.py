"""Callbacks that look at the network while it trains: their pictures are there, and the training is the same without them."""

import logging

import pytest
import torch
from torch import nn

import dlzoo
from dlzoo.callbacks.gradcam import GradCam
from dlzoo.callbacks.landscape import Landscape
from dlzoo.checkpoints import read_checkpoint
from dlzoo.errors import ConfigError

QUICK = (
    "trainer=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "data.eval_batch_size=32",
    "test=false",
)
LOOK = ("callbacks=[gradcam,feature_maps,landscape]", "callbacks.landscape.points=3", "callbacks.landscape.samples=16")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run with and one without them, whose networks draw random numbers in training."""
    found = {}
    for name, words in {"with": LOOK, "without": ()}.items():
        folder = tmp_path_factory.mktemp("looking") / name
        found[name] = dlzoo.train(dlzoo.compose(*QUICK, "task.mixup=0.2", *words, f"run_dir={folder}"))
    return found


def test_their_pictures_are_in_the_run_directory(runs):
    from PIL import Image

    for name in ("gradcam.png", "feature_maps.png", "landscape.png"):
        with Image.open(runs["with"].dir / name) as image:
            assert min(image.size) > 150
        assert not (runs["without"].dir / name).exists()
    kept = sorted(path.name for path in (runs["with"].dir / "explain" / "trajectory").iterdir())
    assert kept == [f"step_{step:08d}.safetensors" for step in (0, 2, 4)]


def test_the_training_is_the_same_bit_for_bit(runs):
    one, other = (read_checkpoint(run.dir / "checkpoints" / "last.ckpt") for run in runs.values())
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    assert torch.equal(one["random"][0]["torch"], other["random"][0]["torch"])
    assert torch.equal(one["random"][0]["python"][1], other["random"][0]["python"][1])
    assert torch.equal(one["random"][0]["numpy"][1], other["random"][0]["numpy"][1])
    assert runs["with"].metrics["val/loss"] == runs["without"].metrics["val/loss"]


class Draws(nn.Module):
    """Draws random numbers when it is asked, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(nn.functional.dropout(self.norm(self.conv(x)), 0.5, training=True).mean((2, 3)))


def test_the_copy_takes_everything_upon_itself(tmp_path):
    """Even of a network that draws random numbers when asked, in the mode and with the gradients that it had."""
    torch.manual_seed(0)
    net = Draws()
    net(torch.randn(4, 1, 8, 8)).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    state = torch.get_rng_state()
    look = GradCam(str(tmp_path))
    with torch.inference_mode(), look.aside(net) as copy:
        out = copy(torch.randn(4, 1, 8, 8))
        out.sum().backward()  # gradients can be taken, though validation is in inference mode
        copy.conv.weight.data.zero_()
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(parameter.grad, old) for parameter, old in zip(net.parameters(), gradients, strict=True))


def test_what_does_not_apply_is_said_once(tmp_path, caplog):
    words = (*QUICK, "model=mlp", "callbacks=gradcam", f"run_dir={tmp_path / 'run'}")
    with caplog.at_level(logging.WARNING, logger="dlzoo"):
        run = dlzoo.train(dlzoo.compose(*words))
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    said = said or [line for line in (run.dir / "train.log").read_text().splitlines() if "left out" in line]
    assert len(said) == 1 and "no layer whose output is a map" in said[0]
    assert run.status == "finished" and not (run.dir / "gradcam.png").exists()


def test_weights_of_lost_steps_are_dropped(tmp_path):
    """A run that goes on from step 4 has not been at step 6 yet."""
    from types import SimpleNamespace

    look = Landscape(str(tmp_path))
    for step in (2, 4, 6):
        look.look(SimpleNamespace(global_step=step), nn.Linear(2, 2))
    look.on_train_start(SimpleNamespace(global_step=4, is_global_zero=True), SimpleNamespace(net=nn.Linear(2, 2)))
    assert [path.stem for path in look._files()] == ["step_00000002", "step_00000004"]


def test_shares_of_a_network_are_refused(tmp_path):
    from types import SimpleNamespace

    from lightning.pytorch.strategies import FSDPStrategy

    with pytest.raises(ConfigError, match="no device holds the whole network"):
        GradCam(str(tmp_path)).setup(SimpleNamespace(strategy=FSDPStrategy()), None, "fit")


WRONG = [(lambda: GradCam("x", 0), "samples must be at least 1"), (lambda: Landscape("x", 8, 1), "points must be at least 2")]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

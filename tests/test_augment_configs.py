"""The recipes of configs/augment: they do what they say, together too, and a run that was stopped in them goes on exactly."""

import pytest
import torch

import dlzoo
from dlzoo import checkpoints, config, rundir
from dlzoo import run as runs
from dlzoo.errors import ConfigError

SHORT = (
    *("trainer=cpu", "model=resnet20", "trainer.limit_train_batches=5", "trainer.limit_val_batches=1", "test=false"),
    *("trainer.max_epochs=3", "data.batch_size=16", "callbacks.checkpoint.every_n_steps=3", "seed=4"),
)


def test_recipes_add_up():
    plain = config.check(dlzoo.compose("augment=[randaugment,cutmix,progressive]", "data=cifar10"))
    assert (plain["data"]["randaugment"], plain["data"]["grow_from"], plain["data"]["grow_epochs"]) == (9, 0.5, 10)
    assert (plain["task"]["mixup"], plain["task"]["cutmix"]) == (0.0, 1.0)
    changed = dlzoo.compose("augment=strong", "data.randaugment=5", "task.mixup=0.1")
    assert (changed.data.randaugment, changed.task.mixup, changed.task.cutmix) == (5, 0.1, 1.0)


def test_what_is_typed_beats_the_experiment():
    assert dlzoo.compose("experiment=cifar10_resnet18").task.label_smoothing == 0.1
    assert dlzoo.compose("experiment=cifar10_vit", "augment=mixup").task.mixup == 0.2


def test_a_wrong_name_gets_the_right_one():
    with pytest.raises(ConfigError, match="randaugment"):
        dlzoo.compose("augment=randaugmen")
    with pytest.raises(ConfigError, match="randaugment must be from 0 to 30, got 31"):
        runs.build(config.check(dlzoo.compose("data.randaugment=31", "trainer=cpu")))


def _batches(words, epoch):
    _, data, _ = runs.build(config.check(dlzoo.compose("trainer=cpu", *words)))
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))


def test_images_change_and_labels_stay():
    plain, changed = _batches([], 3), _batches(["augment=randaugment"], 3)
    assert torch.equal(plain[1], changed[1]) and not torch.equal(plain[0], changed[0])
    assert _batches(["augment=progressive"], 0)[0].shape[2:] == (4, 4)
    assert torch.equal(_batches(["augment=progressive"], 10)[0], _batches([], 10)[0])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["[strong,progressive]"])
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_bits(recipe, tmp_path, monkeypatch):
    words = [*SHORT, f"augment={recipe}", "data.grow_epochs=2"]
    whole = dlzoo.train(dlzoo.compose(*words, f"run_dir={tmp_path}/whole"))
    monkeypatch.setenv("DLZOO_FAULT", "exception@step=8")  # in the second epoch, which has another size than the first
    with pytest.raises(RuntimeError, match="DLZOO_FAULT"):
        dlzoo.train(dlzoo.compose(*words, f"run_dir={tmp_path}/half"))
    monkeypatch.delenv("DLZOO_FAULT")
    half = runs.go_on(rundir.find(tmp_path / "half"))
    one, other = (checkpoints.read_checkpoint(run.dir / "checkpoints" / "last.ckpt") for run in (whole, half))
    assert one["global_step"] == other["global_step"] == 15
    for key, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][key]), key
    plain = dlzoo.train(dlzoo.compose(*SHORT, f"run_dir={tmp_path}/plain"))
    without = checkpoints.read_checkpoint(plain.dir / "checkpoints" / "last.ckpt")["state_dict"]
    assert not all(torch.equal(tensor, without[key]) for key, tensor in one["state_dict"].items())

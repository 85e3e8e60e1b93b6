"""Transfer: who is frozen when, what a frozen batch norm does, and that a run which goes on freezes the same."""

import functools

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from dlzoo.callbacks.transfer import Transfer, evaluate_frozen
from dlzoo.errors import ConfigError
from dlzoo.optim.groups import parameter_groups


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.stages = nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2)))
        self.head = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


class Task(L.LightningModule):
    """A network and an optimizer that is still to be built, as the zoo's tasks have them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()
        self.optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)

    def training_step(self, batch):
        return F.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch):
        assert not any(module.training for module in self.net.modules())

    def configure_optimizers(self):
        return self.optimizer(parameter_groups(self.net))


class Notes(L.Callback):
    """After each step: the state of the network, which parameters are trained, and which modules train."""

    def __init__(self):
        self.states, self.free, self.modes = [], [], []

    def on_train_batch_end(self, trainer, task, *_):
        self.states.append({name: value.clone() for name, value in task.net.state_dict().items()})
        self.free.append({name.split(".")[0] for name, p in task.net.named_parameters() if p.requires_grad})
        self.modes.append({name for name, module in task.net.named_modules() if module.training})


def _loader():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)) + 2
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :2]), batch_size=4)


class Ordered:
    """A loader that goes on after the batches that were given before, as the zoo's do."""

    def __init__(self):
        self.batches, self.given = list(_loader()), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        first, self.given = self.given % len(self.batches), 0
        yield from self.batches[first:]

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def _fit(callback, epochs, task=None, ckpt_path=None, more=(), **options):
    task, notes = task or Task(), Notes()
    plain = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[callback, notes, *more], **plain, **options)
    trainer.fit(task, Ordered(), _loader(), ckpt_path=ckpt_path, weights_only=True)
    return task, notes, trainer


def _moved(before, after, prefix):
    return [name for name in before if name.startswith(prefix) and not torch.equal(before[name], after[name])]


def test_the_head_learns_and_what_is_frozen_stays_as_it_was_with_its_statistics():
    start = {name: value.clone() for name, value in Task().net.state_dict().items()}
    _, notes, _ = _fit(Transfer("frozen"), 3, val_check_interval=2)  # a validation in the middle puts nothing back
    assert all(free == {"head"} for free in notes.free)
    for state in notes.states:
        assert not _moved(start, state, "stem") and not _moved(start, state, "stages")
    assert len(_moved(start, notes.states[-1], "head")) == 7, "weights, biases and the statistics of its own norm"
    assert all(modes == {"", "head", "head.0", "head.1"} for modes in notes.modes)


def test_then_all_is_trained_at_smaller_rates():
    callback = Transfer("finetune", unfreeze_at=1, rate_decay=0.5)
    _, notes, trainer = _fit(callback, 2)
    start, frozen, free = (notes.states[index] for index in (0, 2, 5))
    assert not _moved(start, frozen, "stem") and not _moved(start, frozen, "stages")
    assert "stem.0.weight" in _moved(frozen, free, "stem") and "stem.1.running_mean" in _moved(frozen, free, "stem")
    assert len(notes.modes[5]) == len(list(Net().modules()))
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_statistics_stay_frozen_after_unfreezing_where_that_is_wanted():
    _, notes, _ = _fit(Transfer("finetune", unfreeze_at=1, keep_statistics=True), 2)
    moved = _moved(notes.states[2], notes.states[5], "st")
    assert "stem.0.weight" in moved and "stages.1.1.weight" in moved, "scale and shift of a norm are weights"
    assert not [name for name in moved if "running" in name or "num_batches" in name]
    assert "head.0" in notes.modes[5], "the head's own norm is new"


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"unfreeze_at": 2}, [1, 1, 4, 4, 4]),
        ({"unfreeze_at": 0}, [4, 4, 4, 4, 4]),
        ({"unfreeze_at": 1, "unfreeze_every": 1}, [1, 2, 3, 4, 4]),
        ({"unfreeze_at": 0, "unfreeze_every": 2}, [2, 2, 3, 3, 4]),
        ({"mode": "frozen"}, [1, 1, 1, 1, 1]),
    ],
)
def test_how_many_stages_are_trained_in_each_epoch(options, counts):
    callback = Transfer(**options)
    _fit(callback, 0)  # it learns what the stages are
    assert [len(callback.trained(epoch)) for epoch in range(5)] == counts
    assert callback.trained(0)[-1] == "head"


def test_gradual_unfreezing_goes_from_the_last_stage_to_the_first():
    _, notes, _ = _fit(Transfer(unfreeze_at=1, unfreeze_every=1), 4)
    first = [notes.states[3 * epoch] for epoch in range(4)]
    last = [notes.states[3 * epoch + 2] for epoch in range(4)]
    for stage, epoch in {"stages.1": 1, "stages.0": 2, "stem": 3}.items():
        assert not _moved(first[0], last[epoch - 1], stage), stage
        assert _moved(first[epoch], last[epoch], stage), stage


def test_what_is_frozen_is_neither_decayed_nor_moved_by_momentum():
    task, _, trainer = _fit(Transfer("frozen"), 2)
    held = {id(p) for p, state in trainer.optimizers[0].state.items() if state}
    assert held == {id(p) for p in task.net.head.parameters()}
    assert sum(len(group["params"]) for group in trainer.optimizers[0].param_groups) == len(list(task.net.parameters()))


def test_from_scratch_is_as_without_it():
    _, with_it, trainer = _fit(Transfer("scratch"), 2)
    _, without, _ = _fit(L.Callback(), 2)
    assert len(trainer.optimizers[0].param_groups) == 1
    for one, other in zip(with_it.states, without.states, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("options", [{"unfreeze_at": 1}, {"unfreeze_at": 1, "unfreeze_every": 1}, {"mode": "frozen"}])
@pytest.mark.parametrize("stopped", [2, 4, 5])  # steps; an epoch has 3: within the frozen epoch, after it, within the next
def test_a_run_that_goes_on_is_the_same(options, stopped, tmp_path):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer, task, *_):
            if trainer.global_step == stopped:
                trainer.train_dataloader.given = trainer.fit_loop.epoch_loop.batch_idx + 1
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.train_dataloader.given = 0

    def task():  # without dropout: its masks are random numbers, which are another callback's to keep
        made = Task()
        made.net.stem[2].p = 0.0
        return made

    _, whole, _ = _fit(Transfer(**options), 3, task(), more=[Save()])
    _, resumed, _ = _fit(Transfer(**options), 3, task(), ckpt_path=tmp_path / "half.ckpt")
    assert len(resumed.states) == 9 - stopped
    for name, value in whole.states[-1].items():
        assert torch.equal(value, resumed.states[-1][name]), name
    assert whole.modes[stopped:] == resumed.modes and whole.free[stopped:] == resumed.free


def test_afterwards_the_network_and_the_task_are_as_they_were():
    task = Task()
    before = task.optimizer
    _fit(Transfer("frozen"), 1, task)
    assert task.optimizer is before and all(parameter.requires_grad for parameter in task.net.parameters())


def test_what_was_frozen_before_is_not_freed():
    task = Task()
    task.net.stem[0].requires_grad_(False)
    _, notes, _ = _fit(Transfer(unfreeze_at=0), 1, task)
    assert not _moved(notes.states[0], notes.states[2], "stem.0") and _moved(notes.states[0], notes.states[2], "stem.1")
    assert not task.net.stem[0].weight.requires_grad


def test_evaluation_mode_reaches_what_has_no_parameters():
    net = Net()
    net.stem.requires_grad_(False)
    evaluate_frozen(net)
    assert not any(module.training for module in net.stem.modules()), "its dropout too"
    assert net.head[0].training and net.stages[0][1].training


def test_a_norm_without_parameters_waits_until_all_is_trained():
    """It is in no stage of its own, and in front of the head all the same."""
    task = Task()
    task.net.stem[1] = nn.BatchNorm1d(3, affine=False)
    task.net.head[0] = nn.BatchNorm1d(3, affine=False)
    task.net.stem = nn.Sequential(nn.Sequential(task.net.stem[0]), task.net.stem[1])
    _, notes, _ = _fit(Transfer(unfreeze_at=1, unfreeze_every=1), 4, task)
    assert ["stem.1" in modes for modes in notes.modes[::3]] == [False, False, False, True]
    assert not _moved(notes.states[0], notes.states[8], "stem.1") and _moved(notes.states[9], notes.states[11], "stem.1")
    assert all("head.0" in modes for modes in notes.modes)


@pytest.mark.parametrize("strategy", [DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_shard_are_refused(strategy):
    trainer = type("Trainer", (), {"strategy": strategy.__new__(strategy)})()
    with pytest.raises(ConfigError, match="shards"):
        Transfer().setup(trainer, Task(), "fit")


def test_a_network_without_stages_is_refused():
    task = Task()
    task.net = nn.Linear(4, 2)
    with pytest.raises(ConfigError, match="no stages in front of a head"):
        _fit(Transfer(), 1, task)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "frosen"}, "mode must be"),
        ({"unfreeze_at": -1}, "0 or above"),
        ({"unfreeze_every": -1}, "0 or above"),
        ({"rate_decay": 0.0}, "rate_decay must be"),
        ({"rate_decay": 1.5}, "rate_decay must be"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Transfer(**options)

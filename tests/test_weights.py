"""What a run begins with: another run's weights or a published file's; the head where it fits, and nothing unsafe."""

import pytest
import torch

import dlzoo
from dlzoo import rundir, weights, zoo
from dlzoo.errors import CheckpointError, ConfigError, UnsafeError

SMOKE = ("trainer=cpu", "debug=smoke", "test=false", "data.val_size=100")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: a tiny ResNet-20 on the digits, ten classes."""
    words = [*SMOKE, f"run_dir={tmp_path_factory.mktemp('runs')}/digits"]
    return dlzoo.train(dlzoo.compose(*words), words)


def _net(**options):
    torch.manual_seed(7)
    node = {"_target_": "dlzoo.models.vision.resnet.resnet20", "num_classes": 10, "in_channels": 1} | options
    return zoo.build(node), node


def test_a_run_gives_its_best_weights_and_a_head_of_the_same_shape(run):
    net, node = _net()
    line = weights.begin_with(net, str(run.dir), node)
    for name, value in dlzoo.load(run.dir).state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    assert line == f"weights of {run.dir}/checkpoints/best.ckpt; new: nothing"


def test_a_head_of_another_shape_stays_new_and_the_line_says_so(run):
    net, node = _net(num_classes=3)
    fresh = {name: value.clone() for name, value in net.state_dict().items()}
    line = weights.begin_with(net, str(run.dir), node)
    theirs, ours = dlzoo.load(run.dir).state_dict(), net.state_dict()
    for name in ours:
        assert torch.equal(ours[name], fresh[name] if name.startswith("head.") else theirs[name]), name
    assert not torch.equal(ours["stem.0.weight"], fresh["stem.0.weight"])
    assert line.endswith("new: head.weight (3, 64), there (10, 64); head.bias (3,), there (10,)") and "\n" not in line


def test_a_checkpoint_can_be_named_itself(run):
    net, node = _net()
    path = run.dir / "checkpoints" / "last.ckpt"
    assert weights.begin_with(net, str(path), node) == f"weights of {path}; new: nothing"


@pytest.mark.parametrize(
    ("target", "options", "words", "fix"),
    [
        ("resnet.resnet32", {}, "holds another model than resnet32: resnet20", "model=resnet20"),
        ("resnet.resnet20", {"in_channels": 3}, "holds another resnet20", "config.yaml"),
    ],
)
def test_another_model_is_refused(run, target, options, words, fix):
    net, node = _net(_target_=f"dlzoo.models.vision.{target}", **options)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as caught:
        weights.begin_with(net, str(run.dir), node)
    assert fix in caught.value.fix and "tensors differ" in caught.value.where
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_where_there_is_no_run_the_message_says_so(tmp_path):
    net, node = _net()
    with pytest.raises(ConfigError, match="is not the directory of a run"):
        weights.begin_with(net, str(tmp_path), node)


def test_a_checkpoint_that_would_run_something_is_refused(run, tmp_path):
    import shutil

    class Bad:
        def __reduce__(self):
            return (print, ("it ran",))

    shutil.copytree(run.dir, tmp_path / "bad")
    torch.save({"state_dict": {}, "more": Bad()}, tmp_path / "bad" / "checkpoints" / "best.ckpt")
    net, node = _net()
    with pytest.raises(UnsafeError, match="more than tensors"):
        weights.begin_with(net, str(tmp_path / "bad"), node)


def test_published_weights_leave_the_head_new(monkeypatch, tmp_path):
    """The file that torchvision publishes, here with random numbers in it."""
    import torchvision

    from dlzoo.data import download

    torch.manual_seed(1)
    published = torchvision.models.resnet18().state_dict()
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "fetch", lambda urls, path, **_: torch.save(published, path))
    node = {"_target_": "dlzoo.models.vision.resnet.resnet18", "num_classes": 2, "in_channels": 3}
    net = zoo.build(node)
    assert weights.begin_with(net, "published", node) == "published weights of resnet18; new: head.weight, head.bias"
    assert torch.equal(net.stages[3][1].conv2.weight, published["layer4.1.conv2.weight"])


def test_a_model_without_published_weights_is_told(run):
    net, node = _net(_target_="dlzoo.models.vision.resnet.resnet18_cifar")
    with pytest.raises(ConfigError, match="no published weights for resnet18_cifar") as caught:
        weights.begin_with(net, "published", node)
    assert "init_from=RUN" in caught.value.fix


# --- in a run


def _transfer(run, folder, *words):
    words = [*SMOKE, f"init_from={run.dir}", "callbacks=transfer", f"run_dir={folder}", *words]
    return dlzoo.train(dlzoo.compose(*words), words)


def _moved(before, run, which="last"):
    after = dlzoo.load(run.dir, which).state_dict()
    return {name for name in after if not torch.equal(before.state_dict()[name], after[name])}


def test_a_run_begins_with_another_and_trains_the_head_alone(run, tmp_path):
    found = _transfer(run, tmp_path / "run", "callbacks.transfer.mode=frozen")
    assert _moved(dlzoo.load(run.dir), found) == {"head.weight", "head.bias"}
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"weights of {run.dir}/checkpoints/best.ckpt; new: nothing" in log
    assert "epoch 1: head is trained, 650 parameters" in log


def test_from_scratch_leaves_the_other_run_alone(run, tmp_path):
    found = _transfer(run, tmp_path / "run", "callbacks.transfer.mode=scratch")
    assert "weights of" not in (tmp_path / "run" / "train.log").read_text()
    words = [*SMOKE, f"run_dir={tmp_path}/plain"]
    plain = dlzoo.train(dlzoo.compose(*words), words)
    assert not _moved(dlzoo.load(plain.dir, "last"), found), "the same as without the callback and the key"


def test_freezing_random_weights_is_said_to_be_that(tmp_path):
    words = [*SMOKE, "callbacks=transfer", f"run_dir={tmp_path}/run"]
    dlzoo.train(dlzoo.compose(*words), words)
    assert "there is nothing to transfer from, and random weights are frozen" in (tmp_path / "run" / "train.log").read_text()


def test_a_run_that_goes_on_does_not_begin_again(run, tmp_path):
    from dlzoo.run import go_on

    found = _transfer(run, tmp_path / "run", "callbacks.transfer.unfreeze_at=0", "optimizer.lr=0.5")
    trained = dlzoo.load(found.dir, "last")
    again = go_on(rundir.find(found.dir), ["trainer.max_epochs=2", "callbacks.transfer.mode=frozen"])
    assert again.summary["epochs"] == 2
    assert _moved(trained, again) <= {"head.weight", "head.bias"}
    assert (tmp_path / "run" / "train.log").read_text().count("weights of") == 1

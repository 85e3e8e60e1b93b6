"""The loss landscape: directions as long as the filters, a grid that is the loss, a way that keeps its distances."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dlzoo
from dlzoo.explain.landscape import batch_statistics, filter_normalised, mean_loss, surface, way
from dlzoo.explain.pictures import surface_terrain, way_picture


@pytest.fixture
def net():
    torch.manual_seed(0)
    return dlzoo.create_model("resnet20", num_classes=3, in_channels=1)


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    return torch.randn(12, 1, 8, 8, generator=random), torch.randint(0, 3, (12,), generator=random)


def test_each_filter_of_a_direction_is_as_long_as_the_networks(net):
    one, two = filter_normalised(net)
    for name, weight in net.named_parameters():
        if weight.ndim == 1:
            assert not one[name].any() and not two[name].any()
            continue
        for index in range(len(weight)):
            assert one[name][index].norm().item() == pytest.approx(weight[index].norm().item(), rel=1e-5)
    first = torch.cat([one[name].flatten() for name in one])
    second = torch.cat([two[name].flatten() for name in two])
    assert abs(float(F.cosine_similarity(first, second, 0))) < 0.01  # so many dimensions that random ones are at right angles


def test_the_scale_of_a_filter_does_not_matter():
    """A relu network whose filters are twice as long before a norm computes the same, and has the same landscape."""
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-12), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    )
    large = copy.deepcopy(small)
    with torch.no_grad():
        large[0].weight.mul_(2)
    loss = mean_loss(torch.randn(10, 1, 8, 8), torch.arange(10) % 2)
    steps = torch.linspace(-1, 1, 3)
    losses = [surface(each, loss, filter_normalised(each), steps, steps).losses for each in (small, large)]
    assert losses[0].std() > 0.01
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)


def test_the_grid_is_the_loss_of_the_moved_weights(net, batch):
    x, y = batch
    directions = filter_normalised(net, seed=3)
    found = surface(net, mean_loss(x, y), directions, torch.tensor([-0.5, 0.0, 1.0]), torch.tensor([0.0, 0.7]))
    assert found.losses.shape == (3, 2)
    for i, one in enumerate((-0.5, 0.0, 1.0)):
        for j, two in enumerate((0.0, 0.7)):
            moved = copy.deepcopy(net).train()  # no dropout in it: training mode is the batch's statistics
            for name, parameter in moved.named_parameters():
                parameter.data += one * directions[0][name] + two * directions[1][name]
            wanted = F.cross_entropy(moved(x), y).item()
            assert found.losses[i, j].item() == pytest.approx(wanted, rel=1e-4)


def test_weights_statistics_and_modes_are_as_before(net, batch):
    net.stages[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]

    def breaks(net):
        raise RuntimeError("in the middle")

    steps = torch.linspace(-1, 1, 2)
    surface(net, mean_loss(*batch), filter_normalised(net), steps, steps)
    with pytest.raises(RuntimeError, match="in the middle"):
        surface(net, breaks, filter_normalised(net), steps, steps)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes


def test_norms_take_the_batchs_statistics(net, batch):
    x, _ = batch
    with torch.no_grad():
        with batch_statistics(net):
            found = net(x)
        assert torch.allclose(found, copy.deepcopy(net).train()(x), atol=1e-5)
        assert not torch.allclose(found, copy.deepcopy(net).eval()(x), atol=1e-2)


def test_a_way_in_a_plane_is_found_with_its_distances():
    random = torch.Generator().manual_seed(0)
    names = {"a": (20, 3), "b": (7,)}
    one, two, middle = ({name: torch.randn(shape, generator=random) for name, shape in names.items()} for _ in range(3))
    coordinates = [(4.0, 1.0), (3.0, -1.0), (2.0, -1.5), (0.5, -0.5), (0.0, 0.0)]
    checkpoints = [{name: middle[name] + a * one[name] + b * two[name] for name in names} for a, b in coordinates]
    for checkpoint in checkpoints:
        checkpoint["norm.running_mean"] = torch.randn(3, generator=random)  # no parameter: no part of the way
    found = way(checkpoints, list(names))
    assert sum(found.explained) == pytest.approx(1, abs=1e-5) and found.explained[0] >= found.explained[1]
    flat = torch.stack([torch.cat([checkpoint[name].flatten() for name in names]) for checkpoint in checkpoints])
    torch.testing.assert_close(torch.cdist(found.places, found.places), torch.cdist(flat, flat), atol=1e-3, rtol=1e-3)
    assert found.places[-1].abs().max() < 1e-4
    units = [torch.cat([direction[name].flatten() for name in names]) for direction in found.directions]
    assert [float(unit.norm()) for unit in units] == pytest.approx([1, 1], abs=1e-4)
    assert abs(float(units[0] @ units[1])) < 1e-4
    for place, checkpoint in zip(found.places, checkpoints, strict=True):  # and back again
        for name in names:
            back = middle[name] + place[0] * found.directions[0][name] + place[1] * found.directions[1][name]
            torch.testing.assert_close(back, checkpoint[name], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="at least 3 checkpoints, got 2"):
        way(checkpoints[:2], list(names))


def test_a_training_walks_downhill_in_its_picture(net, batch):
    x, y = batch
    climb = torch.optim.SGD(net.parameters(), lr=0.02)
    checkpoints, losses = [], []
    for _ in range(5):
        checkpoints.append({name: value.detach().clone() for name, value in net.state_dict().items()})
        losses.append(F.cross_entropy(net.train()(x), y).item())
        for _ in range(2):
            climb.zero_grad()
            F.cross_entropy(net(x), y).backward()
            climb.step()
    assert losses[-1] < losses[0]
    figure = way_picture(net, mean_loss(x, y), checkpoints, "way", points=3)
    flat = figure.axes[1]
    walked = flat.lines[-1].get_xydata()
    assert walked.shape == (5, 2) and np.abs(walked[-1]).max() < 1e-4
    low, high = flat.get_xlim()
    assert low < walked[:, 0].min() and walked[:, 0].max() < high
    assert "%" in flat.get_xlabel()
    # at the last checkpoint the loss of the picture is that of the training
    here = surface(net, mean_loss(x, y), filter_normalised(net), torch.zeros(1), torch.zeros(1)).losses.item()
    assert here == pytest.approx(losses[-1], rel=1e-3)


def test_a_terrain_has_its_networks_loss_in_the_middle(net, batch):
    terrain = surface_terrain(net, mean_loss(*batch), "resnet20", 3)
    middle = surface(net, mean_loss(*batch), filter_normalised(net), torch.zeros(1), torch.zeros(1)).losses.item()
    assert terrain.losses[1, 1].item() == pytest.approx(middle, rel=1e-5) and terrain.losses.shape == (3, 3)

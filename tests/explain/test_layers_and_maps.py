"""First filters, feature maps, occlusion and receptive fields, each against what they must be by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dlzoo
from dlzoo.errors import ConfigError
from dlzoo.explain.features import feature_maps, liveliest
from dlzoo.explain.filters import first_layer, first_layer_filters
from dlzoo.explain.layers import as_map, recording
from dlzoo.explain.occlusion import occlusion
from dlzoo.explain.receptive_field import Field, by_formula, by_gradient, effective, half_width


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return dlzoo.create_model("resnet20", num_classes=5).eval()


# --- layers


def test_a_recorded_output_is_not_overwritten_by_what_follows():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True))
    x = torch.randn(1, 1, 4, 4)
    with recording(net, ["0"]) as found:
        out = net(x)
    assert torch.equal(found["0"], net[0](x)) and (found["0"] < 0).any() and torch.equal(out, found["0"].relu())


def test_tokens_are_put_back_where_they_were_cut():
    maps = torch.randn(2, 5, 3, 3)
    tokens = torch.cat([torch.randn(2, 1, 5), maps.flatten(2).transpose(1, 2)], 1)  # the class's token, then row by row
    assert torch.equal(as_map(tokens, nn.LayerNorm(5)), maps)
    assert torch.equal(as_map(maps.permute(0, 2, 3, 1), nn.LayerNorm(5)), maps)
    with pytest.raises(ConfigError, match="no map"):
        as_map(torch.randn(2, 7), nn.Linear(1, 1))


# --- filters


def test_filters_are_the_weights_as_colours(resnet):
    filters = first_layer_filters(resnet, (3, 32, 32))
    weight = resnet.stem[0].weight.detach()
    assert filters.shape == (16, 3, 3, 3) and first_layer(resnet) == "stem.0"
    assert filters.amin() >= 0 and filters.amax() <= 1
    for picture, own in zip(filters, weight, strict=True):  # grey is 0, and the strongest weight is black or white
        assert torch.allclose((picture - 0.5) * 2 * own.abs().max(), own, atol=1e-6)
        assert (picture - 0.5).abs().max() == pytest.approx(0.5)


def test_the_rows_of_a_linear_layer_are_pictures():
    net = dlzoo.create_model("mlp", num_classes=4, in_channels=1)
    net(torch.randn(1, 1, 6, 8))  # a layer may be made at the first picture
    linear = next(module for module in net.modules() if isinstance(module, nn.Linear))
    if linear.in_features == 48:
        assert first_layer_filters(net, (1, 6, 8)).shape == (linear.out_features, 1, 6, 8)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    assert torch.allclose(
        first_layer_filters(net, (1, 6, 8))[1, 0].flatten() - 0.5, net[1].weight[1] / net[1].weight[1].abs().max() / 2
    )


def test_deeper_filters_are_grey_means(resnet):
    assert first_layer_filters(resnet, (3, 32, 32), "stages.1.0.conv1").shape == (32, 1, 3, 3)
    with pytest.raises(ConfigError, match="no filters"):
        first_layer_filters(resnet, (3, 32, 32), "head")


# --- feature maps


def test_feature_maps_are_the_last_of_each_size(resnet):
    x = torch.randn(2, 3, 32, 32)
    maps = feature_maps(resnet, x)
    assert {name: tuple(found.shape[1:]) for name, found in maps.items()} == {
        "stages.0.2": (16, 32, 32),
        "stages.1.2": (32, 16, 16),
        "stages.2.2": (64, 8, 8),
    }
    with torch.no_grad():
        assert torch.equal(maps["stages.2.2"], resnet.features(x))
        assert torch.equal(maps["stages.0.2"], resnet.stages[0](resnet.stem(x)))


def test_the_liveliest_channels_come_first():
    maps = torch.randn(6, 5, 5) * torch.tensor([1.0, 5, 0, 3, 2, 4]).view(6, 1, 1)
    assert liveliest(maps, 4).tolist()[:2] == [1, 5] and len(liveliest(maps, 99)) == 6


# --- occlusion


@pytest.mark.parametrize(("patch", "stride"), [(4, 2), (3, 3), (5, 4), (1, 1)])
def test_occlusion_is_the_mean_drop_over_the_patches_that_cover_a_pixel(resnet, patch, stride):
    image = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(0))
    heat = occlusion(resnet, image, target=2, patch=patch, stride=stride, batch_size=5)
    wanted = torch.zeros(9, 8)
    tops = sorted({min(top, 9 - patch) for top in range(0, 9, stride)})
    lefts = sorted({min(left, 8 - patch) for left in range(0, 8, stride)})
    with torch.no_grad():
        before = F.softmax(resnet(image[None]), 1)[0, 2]
        for row in range(9):
            for column in range(8):
                drops = []
                for top in tops:
                    for left in lefts:
                        if top <= row < top + patch and left <= column < left + patch:
                            mask = torch.ones(9, 8)
                            mask[top : top + patch, left : left + patch] = 0
                            drops.append(before - F.softmax(resnet((image * mask)[None]), 1)[0, 2])
                wanted[row, column] = torch.stack(drops).mean()
    assert wanted.abs().max() > 1e-5
    torch.testing.assert_close(heat, wanted, atol=1e-6, rtol=1e-4)


def test_occlusion_finds_what_a_class_hangs_on():
    class Corner(nn.Module):
        def forward(self, x):
            light = x[:, 0, :4, 4:].mean((1, 2))
            return torch.stack([5 * light, torch.zeros_like(light)], 1)

    heat = occlusion(Corner(), torch.ones(1, 8, 8), patch=2, stride=1)
    assert heat[:4, 4:].min() > 0.005 and heat[5:].abs().max() < 1e-6 and heat[:, :3].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("patch", "stride", "message"), [(9, 1, "from 1 to 8, got 9"), (3, 4, "from 1 to the patch's side, 3")]
)
def test_a_patch_that_does_not_fit_is_refused(resnet, patch, stride, message):
    with pytest.raises(ValueError, match=message):
        occlusion(resnet, torch.randn(3, 8, 8), patch=patch, stride=stride)


# --- receptive fields

STACKS = [
    [(3, 1, 1)] * 4,
    [(3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1)],
    [(7, 2, 1), (3, 2, 1), (3, 1, 2), (5, 1, 1)],
    [(3, 1, 1), (3, 1, 2), (3, 1, 4), (3, 1, 8)],
    [(1, 1, 1), (5, 3, 1), (1, 1, 1)],
]


@pytest.mark.parametrize("pool", [None, nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_the_gradient_reaches_as_far_as_the_formula_says(stack, pool):
    torch.manual_seed(0)
    layers, channels = [], 2
    for kernel, stride, dilation in stack:
        layers += [nn.Conv2d(channels, 4, kernel, stride, dilation * (kernel // 2), dilation), nn.BatchNorm2d(4), nn.ReLU()]
        channels = 4
    sizes = list(stack)
    if pool is not None:
        layers.insert(3, pool(2, 2))
        sizes.insert(1, (2, 2, 1))
    net = nn.Sequential(*layers)
    field = by_gradient(net, str(len(layers) - 1), (2, 101, 99))
    assert field.size == (by_formula(sizes),) * 2


def test_residual_networks_see_as_far_as_their_longest_path(resnet):
    one = [(3, 1, 1)]
    stages = [one + 6 * one, one + 6 * one + [(3, 2, 1)] + 5 * one, one + 6 * one + 2 * ([(3, 2, 1)] + 5 * one)]
    for index, stack in enumerate(stages):
        assert by_gradient(resnet, f"stages.{index}.2", (3, 129, 129)).size == (by_formula(stack),) * 2
    assert [by_formula(stack) for stack in stages] == [15, 37, 81]


def test_a_field_stops_at_the_edge_of_the_picture(resnet):
    assert by_gradient(resnet, "stages.2.2", (3, 16, 24)) == Field(0, 0, 16, 24)


def test_the_effective_field_is_a_bell_inside_of_the_field():
    torch.manual_seed(0)
    net = nn.Sequential(
        *[layer for index in range(8) for layer in (nn.Conv2d(3 if not index else 8, 8, 3, padding=1), nn.ReLU())]
    )
    field = by_gradient(net, "15", (3, 41, 41))
    heat = effective(net, "15", torch.randn(16, 3, 41, 41))
    assert field == Field(12, 12, 29, 29) and heat.max() == 1
    inside = torch.zeros(41, 41, dtype=torch.bool)
    inside[12:29, 12:29] = True
    assert not heat[~inside].any() and heat[20, 20] > 5 * heat[13, 13]
    assert 3 < half_width(heat) < 17  # Luo et al. 2016: much smaller than what it can see


def test_a_layer_that_sees_everything():
    class Squeeze(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)
            self.out = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return self.out(x * self.gate(x.mean((2, 3)))[:, :, None, None].sigmoid())

    assert by_gradient(Squeeze(), "out", (3, 30, 20)) == Field(0, 0, 30, 20)
    with pytest.raises(ConfigError, match="does not take a picture"):
        by_gradient(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), "1", (3, 30, 20))

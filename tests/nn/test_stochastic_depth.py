import pytest
import torch
import torchvision

from dlzoo.nn.stochastic_depth import StochasticDepth


def test_evaluation_and_probability_0_are_the_sum():
    x, branch = torch.randn(2, 3, 5, 4, 4)
    for layer in (StochasticDepth(0.7).eval(), StochasticDepth(0.0).train()):
        assert torch.equal(layer(branch.clone(), x), branch + x)


def test_equals_torchvision_with_the_same_random_numbers():
    x, branch = torch.randn(2, 64, 5, 2, 2)
    torch.manual_seed(3)
    expected = torchvision.ops.StochasticDepth(0.4, "row").train()(branch) + x
    torch.manual_seed(3)
    assert torch.equal(StochasticDepth(0.4)(branch.clone(), x), expected)


def test_an_image_has_its_branch_whole_or_not_at_all_and_the_mean_stays():
    torch.manual_seed(0)
    x, branch = torch.zeros(20_000, 2), torch.ones(20_000, 2)
    out = StochasticDepth(0.2)(branch, x)
    assert torch.equal(out[:, 0], out[:, 1]) and set(out.unique().tolist()) == {0.0, 1.25}
    assert out.mean().item() == pytest.approx(1, abs=0.02)


def test_the_shortcut_and_the_kept_branch_get_their_gradients():
    torch.manual_seed(0)
    x, branch = torch.randn(50, 3, requires_grad=True), torch.randn(50, 3, requires_grad=True)
    StochasticDepth(0.5)(branch * 1, x).sum().backward()
    assert torch.equal(x.grad, torch.ones(50, 3))
    assert set(branch.grad.unique().tolist()) == {0.0, 2.0}


def test_another_type_keeps_the_wider_one():
    x, branch = torch.randn(2, 3), torch.randn(2, 3, dtype=torch.bfloat16)
    assert StochasticDepth()(branch, x).dtype == torch.float32
    assert StochasticDepth()(branch, branch * 2).dtype == torch.bfloat16


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_refuses(probability):
    with pytest.raises(ValueError, match=rf"probability must be at least 0 and below 1, got {probability}"):
        StochasticDepth(probability)

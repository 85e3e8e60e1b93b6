"""The check of an export: it passes what is equal, and nothing else."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from dlzoo.errors import ConfigError, NumericalError
from dlzoo.export.onnx import export_onnx
from dlzoo.export.verify import Difference, Report, verify_onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 6)).eval()
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    export_onnx(net, torch.zeros(1, 1, 7, 7), path, metadata={})
    return net, path


def batches(*sizes: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    return [torch.randn(size, 1, 7, 7, generator=random) for size in sizes]


def test_resnet18_at_other_batch_sizes_than_the_traced(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10)
    nn.init.normal_(net.fc.weight, std=0.3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training: a fresh norm would be the identity
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    path = tmp_path / "resnet18.onnx"
    export_onnx(net, torch.zeros(1, 3, 32, 32), path, metadata={})
    report = verify_onnx(net, path, [torch.randn(size, 3, 32, 32) for size in (1, 5, 16)])
    assert [batch.batch_size for batch in report.batches] == [1, 5, 16]
    assert min(batch.scale for batch in report.batches) > 0.5  # not 0 = 0
    assert report.max_rel < 1e-5
    assert report.top1 == 1.0


def test_the_report_is_json(exported):
    net, path = exported
    report = verify_onnx(net, path, batches(1, 4), tolerance=1e-5)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["runtime"].startswith("onnxruntime ")
    assert content["tolerance"] == 1e-5
    assert content["max_rel"] == max(batch["max_rel"] for batch in content["batches"]) <= 1e-5
    assert [batch["batch_size"] for batch in content["batches"]] == [1, 4]


def test_top1_weighs_batches_by_their_size():
    report = Report("runtime 1", 1.0, (Difference(1, 2.0, 0.1, 0.05, 0.0), Difference(3, 1.0, 0.2, 0.2, 1.0)))
    assert (report.top1, report.max_abs, report.max_rel) == (0.75, 0.2, 0.2)


def test_a_changed_weight_is_found(exported):
    net, path = exported
    with torch.no_grad():
        net[3].weight[2, 50] += 0.01
    try:
        with pytest.raises(NumericalError, match="differ by up to") as caught:
            verify_onnx(net, path, batches(1, 8))
        assert caught.value.exit_code == 4
        assert str(path) in str(caught.value)
        verify_onnx(net, path, batches(1, 8), tolerance=0.5)  # the bound is the caller's
    finally:
        with torch.no_grad():
            net[3].weight[2, 50] -= 0.01


def test_the_bound_is_relative_to_the_outputs(exported, tmp_path):
    """A file whose outputs are all a thousandth too large is as wrong for small outputs as for large ones."""
    net, path = exported
    for factor in (1e-6, 1e6):
        scaled, model = nn.Sequential(net, Scale(factor)), onnx.load(path)
        _wrap_output(model, factor * 1.001)
        onnx.save(model, tmp_path / "scaled.onnx")
        with pytest.raises(NumericalError, match=r"0\.001 of the largest output"):
            verify_onnx(scaled, tmp_path / "scaled.onnx", batches(3))


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def _wrap_output(model: onnx.ModelProto, factor: float, op: str = "Mul") -> None:
    """Appends one operation to the graph."""
    output = model.graph.output[0]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(onnx.helper.make_node(op, [output.name, "factor"], ["changed"]))
    output.name = "changed"


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_file_that_gives_no_numbers(exported, tmp_path, factor):
    net, path = exported
    model = onnx.load(path)
    _wrap_output(model, factor)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(NumericalError, match="it gives 6 of 6 outputs that are not finite"):
        verify_onnx(net, tmp_path / "net.onnx", batches(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_gives_no_numbers_is_never_equal(tmp_path, value):
    """NaN on both sides is not agreement."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 2))
    nn.init.constant_(net[1].bias, value)
    export_onnx(net, torch.zeros(1, 1, 7, 7), tmp_path / "net.onnx", metadata={})
    with pytest.raises(NumericalError, match="the trained network gives 2 of 2 outputs that are not finite"):
        verify_onnx(net, tmp_path / "net.onnx", batches(1))


def test_zero_output_is_equal_only_to_zero(exported, tmp_path):
    net, path = exported
    silent = nn.Sequential(net, Scale(0.0))
    model = onnx.load(path)
    _wrap_output(model, 0.0)
    onnx.save(model, tmp_path / "zero.onnx")
    report = verify_onnx(silent, tmp_path / "zero.onnx", batches(2))
    assert (report.max_rel, report.batches[0].scale) == (0.0, 0.0)
    with pytest.raises(NumericalError, match="inf of the largest output"):
        verify_onnx(silent, path, batches(2))


def test_another_shape_is_a_difference(exported):
    _, path = exported
    other = nn.Sequential(nn.Flatten(), nn.Linear(49, 2))
    with pytest.raises(NumericalError, match=r"shape \(3, 6\), the network's \(3, 2\)"):
        verify_onnx(other, path, batches(3))


def test_a_file_with_a_fixed_batch_is_found(exported, tmp_path):
    net, path = exported
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(NumericalError, match="cannot run it on a batch of 3"):
        verify_onnx(net, tmp_path / "fixed.onnx", batches(2, 3))


def test_a_file_that_is_no_onnx(exported, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a graph")
    with pytest.raises(NumericalError, match="onnxruntime cannot load it"):
        verify_onnx(exported[0], tmp_path / "net.onnx", batches(1))


def test_float64_is_compared_as_such(tmp_path):
    """A difference of 1e-12 would vanish in float32."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 3)).double()
    export_onnx(net, torch.zeros(1, 1, 7, 7, dtype=torch.float64), tmp_path / "net.onnx", metadata={})
    images = [batch.double() for batch in batches(4)]
    assert verify_onnx(net, tmp_path / "net.onnx", images, tolerance=1e-14).max_rel <= 1e-14
    with torch.no_grad():
        net[1].bias += 1e-12
    with pytest.raises(NumericalError, match="differ"):
        verify_onnx(net, tmp_path / "net.onnx", images, tolerance=1e-14)


def test_no_batch_is_no_check(exported):
    net, path = exported
    for empty in ([], [torch.zeros(0, 1, 7, 7)]):
        with pytest.raises(ValueError, match="batches must hold at least one sample"):
            verify_onnx(net, path, empty)


def test_missing_onnxruntime_is_told_with_its_remedy(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="onnxruntime") as caught:
        verify_onnx(*exported, batches(1))
    assert caught.value.exit_code == 2
    assert "pip install 'dlzoo[onnx]'" in str(caught.value)

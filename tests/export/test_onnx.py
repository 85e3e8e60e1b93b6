"""The file an export writes: what is in it, what is not, and what it leaves alone."""

import json
import logging
import sys
import warnings

import onnx
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ConfigError, StorageError
from dlzoo.export.onnx import export_onnx
from dlzoo.export.verify import verify_onnx


class SmallNet(nn.Module):
    """A convolution, a norm, dropout and a head: what behaves otherwise in training is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.conv(x)).relu().mean((2, 3))))


@pytest.fixture
def net() -> SmallNet:
    torch.manual_seed(0)
    net = SmallNet()
    for _ in range(3):  # so that the statistics of the norm are not 0 and 1
        net(3 * torch.randn(4, 3, 9, 9) + 1)
    return net


EXAMPLE = torch.zeros(1, 3, 9, 9)


def parity(net: nn.Module, path) -> float:
    torch.manual_seed(1)
    return verify_onnx(net, path, [torch.randn(n, 3, 9, 9) for n in (1, 3, 8)]).max_rel


def test_any_batch_size_and_named_ends(net, tmp_path):
    export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={})
    graph = onnx.load(tmp_path / "net.onnx").graph
    ends = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert ends == {"images": ["batch", 3, 9, 9], "logits": ["batch", 7]}
    assert parity(net, tmp_path / "net.onnx") < 1e-5


def test_metadata_is_text_or_json(net, tmp_path):
    metadata = {"model": "small", "classes": ["cat", "dög"], "preprocess": {"mean": [0.5], "resize": None}}
    export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata=metadata)
    stored = {entry.key: entry.value for entry in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert stored.keys() == metadata.keys()
    assert stored["model"] == "small"
    assert json.loads(stored["classes"]) == metadata["classes"]
    assert json.loads(stored["preprocess"]) == metadata["preprocess"]


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_metadata_that_is_not_json_is_refused(net, tmp_path, value):
    with pytest.raises(ValueError, match=r"metadata\['mean'\] must be a string or JSON"):
        export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={"mean": value})
    assert not (tmp_path / "net.onnx").exists()


def test_one_file_without_traces_of_this_machine_and_repeatable(net, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        export_onnx(net, EXAMPLE, tmp_path / name, metadata={"model": "small"})
    content = (tmp_path / "a.onnx").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.onnx", "b.onnx"]  # weights inside
    assert b".py" not in content  # the exporter writes source lines into every node
    assert not onnx.load(tmp_path / "a.onnx").graph.value_info
    assert content == (tmp_path / "b.onnx").read_bytes()


def test_a_net_in_training_is_exported_for_inference_and_comes_back_as_it_was(net, tmp_path):
    net.train()
    net.norm.eval()  # a frozen part stays frozen
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={})
    assert [net.training, net.conv.training, net.norm.training, net.dropout.training] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), random)
    assert parity(net, tmp_path / "net.onnx") < 1e-5
    assert net.training and not net.norm.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_channels_last(net, tmp_path):
    net = net.to(memory_format=torch.channels_last)
    export_onnx(net, EXAMPLE.to(memory_format=torch.channels_last), tmp_path / "net.onnx", metadata={})
    assert parity(net, tmp_path / "net.onnx") < 1e-5
    assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_an_autocast_around_the_export_does_not_reach_the_graph(net, tmp_path):
    """Weights trained under bf16 autocast are float32, and are exported as that."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.randn(4, 3, 9, 9)).float().square().mean().backward()
        optimizer.step()
        export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={})
        assert parity(net, tmp_path / "net.onnx") < 1e-5
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert {tensor.data_type for tensor in graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    assert "Cast" not in {node.op_type for node in graph.node}


def test_inside_inference_mode(net, tmp_path):
    with torch.inference_mode():
        export_onnx(net, torch.zeros(1, 3, 9, 9), tmp_path / "net.onnx", metadata={})
        assert parity(net, tmp_path / "net.onnx") < 1e-5


def test_nothing_reaches_the_screen(net, tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={})
        parity(net, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    logging.getLogger("mine").info("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_told_with_its_remedy(net, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=missing) as caught:
        export_onnx(net, EXAMPLE, tmp_path / "net.onnx", metadata={})
    assert caught.value.exit_code == 2
    assert "pip install 'dlzoo[onnx]'" in str(caught.value)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.ones(2, 1, 1, 1)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(FixedBatch(), ".*single batch size"), (Branching(), "cannot be exported"), (Pair(), "returns tuple")],
)
def test_a_net_that_is_no_graph_is_refused_in_a_few_lines(broken, reason, tmp_path, capfd):
    with pytest.raises(ConfigError, match=f"{type(broken).__name__} {reason}") as caught:
        export_onnx(broken, EXAMPLE, tmp_path / "net.onnx", metadata={})
    assert len(str(caught.value).splitlines()) <= 3
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "net.onnx").exists()


def test_too_large_for_one_file(tmp_path):
    with torch.device("meta"):
        net = nn.Linear(2**15, 2**14, bias=False)  # 2 GiB, allocated nowhere
    with pytest.raises(ConfigError, match=r"2\.0 GiB of weights"):
        export_onnx(net, torch.zeros(1, 2**15), tmp_path / "net.onnx", metadata={})


def test_a_path_that_cannot_be_written(net, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written") as caught:
        export_onnx(net, EXAMPLE, tmp_path / "file" / "net.onnx", metadata={})
    assert caught.value.exit_code == 7

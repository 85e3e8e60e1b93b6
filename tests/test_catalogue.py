"""The same checks over every file of configs/model, at tiny size; and the face of the catalogue."""

import builtins
import copy
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dlzoo
from dlzoo import schema, zoo
from dlzoo.errors import CheckpointError, ConfigError, DataError, UnsafeError

MODELS = zoo.list_models()
CLASSES = 7


@dataclass(frozen=True)
class Row:
    """What these tests must know of the models of one file. A file without a row is one of images with a fast first member.

    Args:
        fast: the members that are tested each time; the others have one slow test.
        tiny: instead of them, a small network of the same blocks: the class and its arguments.
        arguments: of every member, where its own defaults are for larger inputs.
        input: the shape of one sample.
        published: the same, as large as it was published for: one slow export of one member. None: 224x224 for a thousand
            classes, else `input`.
        dense: whether every pixel has an answer of its own, or every series.
        classes: the arguments that say how many numbers an answer has.
        tokens: whether it reads whole numbers (B, T), the number of which `classes` says, and answers each with one for each.
        pair: whether it reads two of them, a source and a target; here, both are the same.
        heavy: members whose gradients would fill the memory; they are tested without any, for shapes and who gets one.
        settled: whether the norms see eight images before the export at full size. With untouched ones EfficientNet-V2-M and L
            blow up: torch's own logits in float32 and float64 differ there by 0.6 of the largest.
    """

    fast: tuple[str, ...] = ()
    tiny: tuple[str, dict[str, Any]] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    input: tuple[int, ...] = (3, 32, 32)
    published: tuple[int, ...] | None = None
    dense: bool = False
    classes: tuple[str, ...] = ("num_classes",)
    tokens: bool = False
    pair: bool = False
    heavy: tuple[str, ...] = ()
    settled: bool = False

    def case(self, net):
        """The network in evaluation mode, as one of a single input."""
        return Case((_Twice(net) if self.pair else net).eval(), self)


class _Twice(nn.Module):
    """A translator that is given the same as source and as target."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, tokens):
        return self.net(tokens, tokens)


def _stage(expansion, kernel_size, stride, fused):
    """Two blocks of an EfficientNet."""
    words = {"expansion": expansion, "kernel_size": kernel_size, "stride": stride, "channels": 8, "blocks": 2, "fused": fused}
    return {"_target_": "dlzoo.models.vision.efficientnet.Stage", **words}


def _size(target, **words):
    """What some models take in place of so many numbers."""
    return {"_target_": f"dlzoo.models.{target}", **words}


ROWS = {
    "audio.m5": Row(
        tiny=("WaveformCNN", {"widths": [8, 8, 16], "blocks": [1, 2], "residual": True}),
        fast=("m5",),
        input=(1, 2000),
        published=(1, 8000),
    ),
    "audio.melresnet": Row(fast=("melresnet8_narrow",), input=(1, 4000), published=(1, 16_000)),
    "language.gpt": Row(
        tiny=("GPT", {"size": _size("language.gpt.GPTSize", width=12, depth=2, heads=3)}),
        heavy=("gpt2_medium", "gpt2_large", "gpt2_xl"),
        input=(5,),
        classes=("vocab_size",),
        tokens=True,
    ),
    "language.llama": Row(input=(5,), classes=("vocab_size",), tokens=True),
    "language.transformer": Row(
        tiny=("Transformer", {"size": _size("language.transformer.TransformerSize", width=12, depth=2, heads=3, hidden=16)}),
        input=(5,),
        classes=("source_vocab_size", "target_vocab_size"),
        tokens=True,
        pair=True,
    ),
    "sequence.char_rnn": Row(fast=("char_lstm",), input=(5,), classes=("vocab_size",), tokens=True),
    "sequence.forecaster": Row(input=(12, 1), classes=("horizon",), dense=True),
    "sequence.seq2seq": Row(
        tiny=("Seq2Seq", {"size": _size("sequence.seq2seq.Seq2SeqSize", embedding=8, width=12, layers=1)}),
        input=(5,),
        classes=("source_vocab_size", "target_vocab_size"),
        tokens=True,
        pair=True,
    ),
    "sequence.tcn": Row(input=(12, 1), classes=("horizon",), dense=True),
    "timm": Row(arguments={"timm_name": "test_efficientnet"}),  # small; timm's residual networks begin with branches of zero
    "vision.convnext": Row(tiny=("ConvNeXt", {"depths": [1, 2, 1], "widths": [8, 12, 16]}), arguments={"stochastic_depth": 0}),
    "vision.vit": Row(arguments={"stochastic_depth": 0}, fast=("vit_lite7",)),
    "vision.efficientnet": Row(
        tiny=(
            "EfficientNet",
            {
                "stages": [_stage(1, 3, 1, True), _stage(2, 3, 2, True), _stage(1, 3, 1, False), _stage(2, 5, 2, False)],
                "stem_channels": 8,
                "last_channels": 16,
                "stochastic_depth": 0,
            },
        ),
        arguments={"stochastic_depth": 0},
        settled=True,
    ),
    "vision.attention_cnn": Row(fast=("se_resnet20", "cbam_resnet20", "aa_resnet20"), published=(3, 32, 32)),
    "vision.deeplab": Row(fast=("deeplabv3_resnet18",), input=(3, 64, 64), dense=True),
    "vision.unet": Row(tiny=("UNet", {"width": 4, "depth": 2}), input=(1, 32, 32), published=(1, 256, 256), dense=True),
    "vision.densenet": Row(tiny=("DenseNet", {"layers_per_block": [2, 2], "growth": 4, "stem": "small"})),
    "vision.lenet": Row(input=(1, 28, 28)),
    "vision.mobilenet": Row(
        tiny=("MobileNetV2", {"width": 0.35, "stem": "small", "stages": [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]}),
        input=(3, 64, 64),  # two images of 32 end as two numbers a channel: a norm makes them 1 and -1, whatever they were
    ),
    "vision.vgg": Row(tiny=("VGG", {"convolutions": [1, 2], "norm": True, "width": 8, "hidden": 16})),
    "vision.resnet": Row(fast=("resnet20", "resnet50")),
}


def _file(name):
    """vision.resnet, for resnet20"""
    return dlzoo.model_info(name).target.removeprefix("dlzoo.models.").rsplit(".", 1)[0]


def _members():
    """The names of each file's models, in order."""
    files = {}
    for name in MODELS:
        files.setdefault(_file(name), []).append(name)
    return files


def _published(name):
    """The shape of the images that a model was published for."""
    row = ROWS.get(_file(name), Row())
    return row.published or ((3, 224, 224) if dlzoo.model_info(name).arguments.get("num_classes") == 1000 else row.input)


def _fast(file, names):
    row = ROWS.get(file, Row())
    return [f"{file}, tiny"] if row.tiny else list(row.fast or names[:1])


CASES = [case for file, names in _members().items() for case in _fast(file, names)]
OTHERS = [name for name in MODELS if name not in CASES]
# one of each file, with the largest images; DLZOO_EVERY_SIZE=1 takes them all
LARGEST = [max(names, key=lambda name: _published(name)[-1]) for names in _members().values()]
LARGE = MODELS if os.environ.get("DLZOO_EVERY_SIZE") else LARGEST


@dataclass(frozen=True)
class Case:
    """A network of the catalogue with seven classes, in evaluation mode, and the row of its file."""

    net: nn.Module
    row: Row

    def inputs(self, count=2, shape=None):
        shape, random = (count, *(shape or self.row.input)), torch.Generator().manual_seed(0)
        return torch.randint(CLASSES, shape, generator=random) if self.row.tokens else torch.randn(shape, generator=random)

    def answer(self, count, shape=None):
        shape = shape or self.row.input
        return (count, *shape, CLASSES) if self.row.tokens else (count, CLASSES, *(shape[1:] if self.row.dense else ()))


def _case(name):
    file = name.removesuffix(", tiny")
    torch.manual_seed(0)
    if name != file:
        row = ROWS[file]
        kind, arguments = row.tiny
        net = zoo.build({"_target_": f"dlzoo.models.{file}.{kind}", **arguments, **dict.fromkeys(row.classes, CLASSES)})
    else:
        row = ROWS.get(_file(name), Row())
        net = dlzoo.create_model(name, **dict.fromkeys(row.classes, CLASSES), **row.arguments)
    return row.case(net)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Every model of the catalogue; a test that changes the network takes a copy."""
    made = _case(request.param)
    for module in made.net.modules():  # fresh statistics would hide a batch norm that evaluation forgets
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.9, 1.1)
    return made


def _logits(net, x):
    with torch.inference_mode():
        return net(x)


def test_every_row_is_of_a_file():
    files = {_file(name) for name in MODELS}
    assert set(ROWS) <= files
    assert all(_file(name) == file for file, row in ROWS.items() for name in row.fast)


def test_forward_is_finite_and_evaluation_repeats_itself(case):
    x = case.inputs()
    logits = _logits(case.net, x)
    assert logits.shape == case.answer(2) and logits.isfinite().all()
    assert torch.equal(logits, _logits(case.net, x))


def test_every_parameter_gets_a_finite_gradient(case):
    _learns(case)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_member_learns(name):
    """Each is of the blocks of one above, and is compared with its reference in tests/models."""
    if name in ROWS.get(_file(name), Row()).heavy:
        with torch.device("meta"):
            case = _case(name)
        logits = case.net(case.inputs().to("meta"))
        logits.sum().backward()
        assert logits.shape == case.answer(2) and all(parameter.grad is not None for parameter in case.net.parameters())
        return
    case = _case(name)
    logits = _logits(case.net, case.inputs())
    assert logits.shape == case.answer(2) and logits.isfinite().all()
    _learns(case)


def _learns(case):
    net = copy.deepcopy(case.net).train()
    torch.manual_seed(0)  # of dropout
    logits = net(case.inputs())
    if case.row.tokens:
        logits = logits.transpose(1, 2)  # the classes where cross_entropy looks for them
    labels = torch.arange(logits[:, 0].numel()).view_as(logits[:, 0]) % 2 * (CLASSES - 1)
    nn.functional.cross_entropy(logits, labels).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


def test_safetensors_keep_every_bit(case, tmp_path):
    from safetensors.torch import load_model, save_model

    save_model(case.net, tmp_path / "model.safetensors")
    other = copy.deepcopy(case.net)
    for tensor in other.state_dict().values():
        tensor.zero_()
    load_model(other, tmp_path / "model.safetensors")
    for (name, one), two in zip(case.net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    assert torch.equal(_logits(case.net, case.inputs()), _logits(other, case.inputs()))


def test_a_sample_does_not_see_its_neighbours(case):
    x = case.inputs(3)
    together = _logits(case.net, x)
    alone = torch.cat([_logits(case.net, x[i : i + 1]) for i in range(3)])
    assert (together - alone).abs().max() <= 1e-3 * together.abs().max()


def test_channels_last_computes_the_same(case):
    x = case.inputs()
    if x.ndim != 4:
        return  # of images alone
    other = copy.deepcopy(case.net).to(memory_format=torch.channels_last)
    logits = _logits(case.net, x)
    difference = (_logits(other, x.contiguous(memory_format=torch.channels_last)) - logits).abs().max()
    assert difference <= 1e-3 * logits.abs().max()  # 152 layers of rounding in another order


def test_bf16_autocast_is_finite_and_near(case):
    x = case.inputs()
    with torch.autocast("cpu", torch.bfloat16):
        logits = _logits(case.net, x)
    whole = _logits(case.net, x)
    assert logits.isfinite().all()
    assert (logits.float() - whole).abs().max() <= 0.1 * whole.abs().max() + 0.05  # 8 bits of mantissa through 152 layers


def test_a_copy_is_the_same_and_its_own(case):
    other = copy.deepcopy(case.net)
    assert torch.equal(_logits(other, case.inputs()), _logits(case.net, case.inputs()))
    theirs = {tensor.data_ptr() for tensor in other.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in case.net.state_dict().values()}


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_is_a_parameter_or_a_buffer(name):
    """Built without memory and then given it: a tensor that `to_empty` does not know stays behind on meta."""
    with torch.device("meta"):
        case = _case(name)
    net = case.net.to_empty(device="cpu")
    for tensor in net.state_dict().values():
        tensor.zero_()
    logits = _logits(net, case.inputs())
    assert logits.device.type == "cpu" and logits.shape == case.answer(2)
    known = {id(tensor) for tensor in (*net.parameters(), *net.buffers())}
    for module in net.modules():
        for name, value in vars(module).items():
            assert not isinstance(value, torch.Tensor) or id(value) in known, name


def _export(case, path, counts, shape=None):
    from dlzoo.export.onnx import export_onnx
    from dlzoo.export.verify import verify_onnx

    free = {1: "length"} if case.row.tokens and not case.row.pair else {}
    export_onnx(case.net, case.inputs(1, shape), path, metadata={}, free=free)
    batches = [case.inputs(count, shape) for count in counts]
    if free:
        batches += [case.inputs(2, (length,)) for length in (1, 3, 2 * batches[0].shape[1])]
    report = verify_onnx(case.net, path, batches)
    assert report.max_rel <= 1e-4
    assert case.row.tokens or report.top1 == 1.0  # it looks for the classes in the second dimension
    return report.max_rel


@pytest.mark.parametrize("name", CASES)
def test_the_export_computes_the_same(name, tmp_path):
    _export(_case(name), tmp_path / "model.onnx", (1, 2, 5))


def _settle(case, shape):
    """Norms that know their inputs."""
    for module in case.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # all of the batch
    with torch.no_grad():
        case.net.train()(case.inputs(8, shape))
    case.net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_export_computes_the_same_at_full_size(name, tmp_path, record_property):
    torch.manual_seed(0)
    case = ROWS.get(_file(name), Row()).case(dlzoo.create_model(name))
    if case.row.settled:
        _settle(case, _published(name))
    record_property("max_rel", _export(case, tmp_path / "model.onnx", (1, 2), _published(name)))  # with --junitxml FILE


# --- the face


def test_each_file_says_what_it_is():
    for name in MODELS:
        info = dlzoo.model_info(name)
        assert info.name == name and info.path.stem == name
        made_by = info.target.rsplit(".", 1)[-1]
        assert info.target.startswith("dlzoo.models.")
        # a second file for one function has other arguments: plain20 is resnet20 without its shortcuts
        assert made_by == name or dlzoo.model_info(made_by).arguments != info.arguments
        assert len(info.summary) > 30 and "\n" not in info.summary
        known = schema.parameters_of(info.target)
        assert known is not None and set(info.arguments) == set(known), (
            "a file sets every argument, so that each can be overridden"
        )


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet20", 0.27), ("resnet110", 1.7), ("resnet18", 11.7), ("resnet152", 60.2)]
)
def test_the_parameters_are_those_of_the_summary(name, millions):
    info = dlzoo.model_info(name)
    assert f"{millions} M" in info.summary
    assert info.parameters / 1e6 == pytest.approx(millions, rel=0.02)


def test_lists_are_in_the_order_of_their_numbers():
    assert dlzoo.list_models("resnet*") == [
        *("resnet18", "resnet18_cifar", "resnet20", "resnet32", "resnet34", "resnet44", "resnet50", "resnet56"),
        *("resnet101", "resnet110", "resnet152"),
    ]
    assert dlzoo.list_models("resnet18_*") == ["resnet18_cifar"]
    assert dlzoo.list_models("nothing*") == []
    assert sorted(["a10", "a9", "a", "b1", "1a"], key=zoo._natural) == ["1a", "a", "a9", "a10", "b1"]


def test_unknown_names_and_arguments_are_mistakes():
    with pytest.raises(ConfigError, match="'resnet20'"):
        dlzoo.create_model("resnet_20")
    with pytest.raises(ConfigError, match="'resnet50'"):
        dlzoo.model_info("resnet5O")
    with pytest.raises(ConfigError, match="num_classes"):
        dlzoo.create_model("resnet20", num_clases=3)
    with pytest.raises(ConfigError, match="num_classes"):
        dlzoo.create_model("resnet20", num_classes="ten")
    with pytest.raises(ConfigError):
        dlzoo.create_model("resnet20", num_classes=0)
    with pytest.raises(ConfigError, match="pad"):
        dlzoo.create_model("resnet20", shortcut="nothing")
    for name in ("", "../model/resnet20", "/etc/passwd", "resnet20.yaml", "*"):
        with pytest.raises(ConfigError):
            dlzoo.create_model(name)


def test_the_catalogue_is_read_without_torch():
    code = (
        "import sys, dlzoo\nassert 'resnet20' in dlzoo.list_models('*20')\nassert dlzoo.model_info('resnet20').arguments\n"
        "sys.exit(str({'torch', 'hydra', 'numpy'} & set(sys.modules) or 0).replace('0', ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "", done.stderr


def test_the_face_has_what_it_lists():
    for name in dlzoo.__all__:
        assert getattr(dlzoo, name) is not None
    with pytest.raises(AttributeError, match="'nothing'"):
        dlzoo.nothing  # noqa: B018
    # the modules behind the face are imported by now, and must not have taken its names
    assert callable(dlzoo.compose) and callable(dlzoo.train) and callable(dlzoo.load) and callable(dlzoo.create_model)


def test_a_folder_of_ones_own_comes_first(tmp_path, monkeypatch):
    (tmp_path / "configs" / "model").mkdir(parents=True)
    text = "# Mine.\n_target_: dlzoo.models.vision.resnet.resnet20\nnum_classes: 3\nin_channels: 1\nshortcut: project\n"
    (tmp_path / "configs" / "model" / "resnet_mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert "resnet_mine" in dlzoo.list_models() and "resnet20" in dlzoo.list_models()
    assert dlzoo.create_model("resnet_mine").head.out_features == 3


# --- what a config may not call

UNSAFE = [
    "os.system",
    "posix.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "torch.load",
    "torch.hub.load",
    "torch.optim",
    "torch.optim.sgd.SGD",
    "lightning.pytorch.callbacks.ModelCheckpoint.load_state_dict",
    "lightning.Trainer.fit",
    "logging.os.system",
    "pdb.Pdb._getval",
    "os._exit",
    "pickle.loads",
    "shutil.rmtree",
    "pathlib.Path.unlink",
    "dlzoo.zoo.os.system",
    "dlzoo.zoo.build",
    "dlzoo.cli.main",
    "dlzoo.run.train",
    "dlzoo.rundir.subprocess.run",
    "dlzoo.data.download.fetch",
    "dlzoo.data.download.os.replace",
    "dlzoo.data.unpickle.unpickle",
    "dlzoo.export.onnx.require",
    "dlzoo.pretrained.convert",
    "dlzoo.models.vision.resnet.torch.load",
    "dlzoo.models.vision.resnet.torch",
    "dlzoo.models.vision.resnet.nn.Linear",
    "dlzoo.models.vision.resnet.ResNet.load_state_dict",
    "dlzoo.tasks.classification.torch.hub.load",
    "dlzoo.tasks.classification._mixers",
    "dlzoo.tasks.classification.F.cross_entropy",
    "dlzoo.callbacks.report.Path",
    "dlzoo.callbacks.loggers.os.system",
    "dlzoo.callbacks.loggers.importlib.util.find_spec",
    "dlzoo.callbacks.loggers._has_account",
    "dlzoo.datamodules.digits.gzip.open",
    "dlzoo.datamodules.mnist.fetch",
    "dlzoo.optim.schedules.math.exp",
    "dlzoo",
    "dlzoo.models",
    "",
    ".",
    "..",
    "eval",
    "__import__",
]


@pytest.fixture
def nothing_runs(monkeypatch):
    """Whatever could do harm is replaced by something that only says so."""

    def alarm(*_, **__):
        raise AssertionError("a config ran it")

    import dlzoo.callbacks.loggers
    import dlzoo.callbacks.report
    import dlzoo.datamodules.digits
    import dlzoo.datamodules.mnist
    import dlzoo.tasks.classification  # noqa: F401, libraries call eval when they are imported

    for owner, name in [
        (os, "system"),
        (os, "_exit"),
        (builtins, "eval"),
        (torch, "load"),
        (torch.hub, "load"),
        (subprocess, "run"),
    ]:
        monkeypatch.setattr(owner, name, alarm)


@pytest.mark.parametrize("target", UNSAFE)
def test_a_config_may_not_call(target, nothing_runs, tmp_path):
    node = {"_target_": target, "command": f"touch {tmp_path}/here"}
    for wrapped in (node, {"deep": [{"down": node}]}, {**node, "_partial_": True}):
        with pytest.raises((UnsafeError, ConfigError)) as caught:
            zoo.build(wrapped)
        # what is not even a name in a module is a mistake of the user's
        assert caught.value.exit_code == 9 or "there is no" in caught.value.what, str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", [None, 3, ["os.system"], {"a": 1}])
def test_a_target_that_is_no_text_is_refused(target):
    with pytest.raises((UnsafeError, ConfigError)):
        zoo.build({"_target_": target})


@pytest.mark.parametrize("target", ["os.system", "dlzoo.cli.main", "torch.load"])
def test_an_unsafe_target_is_refused_before_torch_is_imported(target):
    with pytest.raises(UnsafeError) as caught:
        dlzoo.compose(f"model._target_={target}")
    assert caught.value.exit_code == 9 and target in caught.value.what


@pytest.mark.parametrize("target", ["dlzoo.models.vision.resnet.resnet21", "dlzoo.models.vision.nothing.at_all"])
def test_a_name_that_the_zoo_has_not_is_a_mistake(target):
    with pytest.raises(ConfigError, match="there is no"):
        zoo.build({"_target_": target})


def test_a_yaml_cannot_name_a_class(tmp_path, monkeypatch):
    import yaml

    (tmp_path / "configs" / "model").mkdir(parents=True)
    text = f"_target_: !!python/object/apply:os.system ['touch {tmp_path}/here']\n"
    (tmp_path / "configs" / "model" / "evil.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, UnsafeError, yaml.YAMLError)):
        dlzoo.create_model("evil")
    with pytest.raises((ConfigError, UnsafeError)):
        dlzoo.compose("model=evil")
    assert not (tmp_path / "here").exists()


# --- published weights


def test_published_weights_offline_are_data_that_is_missing(tmp_path, monkeypatch):
    from dlzoo import pretrained

    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path))
    with pytest.raises(DataError) as caught:
        dlzoo.create_model("resnet20", pretrained=True)
    text, source = str(caught.value), pretrained.source("resnet20")
    assert caught.value.exit_code == 3
    assert source.url in text and str(tmp_path / "weights" / source.url.rsplit("/", 1)[-1]) in text
    assert "DLZOO_OFFLINE" in text and len(text.splitlines()) <= 12


def test_a_model_without_published_weights_says_so():
    with pytest.raises(ConfigError, match="resnet18_cifar"):
        dlzoo.create_model("resnet18_cifar", pretrained=True)


def _plant(monkeypatch, tmp_path, state_dict, name="resnet18"):
    """Puts a state dict where the published file would lie, and its hash where the published one stands."""
    import dataclasses

    from dlzoo import pretrained

    source = pretrained.source(name)
    path = tmp_path / "weights" / Path(source.url).name
    path.parent.mkdir(exist_ok=True)
    torch.save(state_dict, path)
    right = dataclasses.replace(source, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)
    monkeypatch.setattr(pretrained, "source", lambda _: right)
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path))
    return path


def _images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def theirs():
    import torchvision

    torch.manual_seed(1)
    return torchvision.models.resnet18()


def test_a_file_with_the_right_hash_is_loaded(tmp_path, monkeypatch, theirs):
    _plant(monkeypatch, tmp_path, theirs.state_dict())
    x = _images()
    ours = dlzoo.create_model("resnet18", pretrained=True).eval()
    torch.testing.assert_close(_logits(ours, x), _logits(theirs.eval(), x), rtol=1e-4, atol=1e-5)


def test_other_classes_and_channels_keep_their_own_ends(tmp_path, monkeypatch, theirs):
    _plant(monkeypatch, tmp_path, theirs.state_dict())
    ours = dlzoo.create_model("resnet18", pretrained=True, num_classes=3, in_channels=1)
    published = dlzoo.create_model("resnet18", pretrained=True).state_dict()
    differ = [name for name, tensor in ours.state_dict().items() if tensor.shape != published[name].shape]
    same = [name for name in published if name not in differ and torch.equal(ours.state_dict()[name], published[name])]
    assert len(same) + len(differ) == len(published), "all that fits is the published one"
    assert len({name.rsplit(".", 1)[0] for name in differ}) == 2, differ
    assert ours.head.out_features == 3


def test_a_file_with_another_hash_is_not_loaded(tmp_path, monkeypatch, theirs):
    path = _plant(monkeypatch, tmp_path, theirs.state_dict())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not the published file"):
        dlzoo.create_model("resnet18", pretrained=True)
    assert path.is_file(), "a file of the user's is not thrown away"


def test_a_file_of_another_model_is_refused(tmp_path, monkeypatch):
    import torchvision

    with torch.device("meta"):
        other = torchvision.models.resnet34()
    _plant(monkeypatch, tmp_path, {name: torch.zeros(tensor.shape) for name, tensor in other.state_dict().items()})
    with pytest.raises(CheckpointError):
        dlzoo.create_model("resnet18", pretrained=True)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/here",)

    _plant(monkeypatch, tmp_path, {"weight": Evil()})
    with pytest.raises((CheckpointError, UnsafeError)):
        dlzoo.create_model("resnet18", pretrained=True)
    assert not (tmp_path / "here").exists()

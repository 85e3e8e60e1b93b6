"""The types of a config, and the words in which a mistake is answered. Nothing here imports torch."""

import random
import string
import subprocess
import sys

import pytest

import dlzoo
from dlzoo import config, schema, zoo
from dlzoo.errors import ConfigError, suggest

EXPERIMENTS = [name for name in zoo.list_configs("experiment") if not name.startswith("imagefolder")]

# annotation: values that it takes, values that it does not
ANNOTATIONS = {
    "int": ([0, -3, 7], [1.0, "1", True, None, [1], {}]),
    "float": ([0, 1.5, -2e-4], ["1.5", True, None, [0.1], float("nan"), float("inf")]),
    "bool": ([True, False], [0, 1, "true", None, []]),
    "str": (["", "a"], [1, None, True, ["a"], {}]),
    "Path": (["a/b"], [1, None, ["a"]]),
    "str | Path": (["a/b"], [1, None, ["a"]]),
    "dict": ([{}, {"a": 1}], [[], "a", 1, None]),
    "dict[str, int]": ([{"a": 1}], [[], "a"]),
    "list": ([[], [1]], ["a", {}, 1, None]),
    "list[int]": ([[], [1, 2]], [[1.5], ["1"], [True], 1, "12", {}, [None]]),
    "Sequence[float]": ([[0.1, 1], (0.5,)], [["a"], 0.5, "0.5", [[0.5]], [None]]),
    "tuple[float, float]": ([[0.9, 0.999]], [["a", "b"], 0.9, "0.9"]),
    "tuple[int, ...]": ([[1, 2, 3]], [[1.5], 1]),
    "list[Fraction]": ([[0, 1, 0.5]], [[1.5], [-0.1], ["a"]]),
    "list[str]": ([["a"], []], ["a", [1], [None]]),
    "Literal['min', 'max']": (["min", "max"], ["mean", "", None, 1, ["min"], {}]),
    "Literal[32, '32-true']": ([32, "32-true"], ["32", 32.0, 16, True, None]),
    "Literal[1]": ([1], [True, 1.0, "1"]),
    "int | None": ([None, 3], ["a", 1.5, True, []]),
    "bool | Literal['warn']": ([True, "warn"], ["yes", 1, None]),
    "int | str | list[int]": ([1, "auto", [0, 1]], [1.5, None, True, ["a"], {}]),
    "PositiveInt": ([1, 10**9], [0, -1, 1.5, "1", True, None]),
    "NonNegativeInt": ([0, 1], [-1, 0.5, False, None]),
    "PositiveFloat": ([1e-9, 3], [0, -0.1, "a", True, None, float("nan"), float("inf")]),
    "NonNegativeFloat": ([0, 0.0, 3.5], [-1e-9, None, float("nan"), float("inf")]),
    "Fraction": ([0, 1, 0.9], [1.0001, -0.1, "0.5", True, None, float("nan")]),
}


@pytest.mark.parametrize(
    ("annotation", "value", "right"),
    [
        (text, value, right)
        for text, sides in ANNOTATIONS.items()
        for right, side in zip((True, False), sides, strict=True)
        for value in side
    ],
)
def test_an_annotation_takes_what_it_says(annotation, value, right):
    assert schema._type(annotation)(value) is right


@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_an_annotation_has_words_for_a_message(annotation):
    words = schema.in_words(annotation)
    assert words and words != "anything" and "[" not in words and "lambda" not in words


@pytest.mark.parametrize("annotation", ["Any", "nn.Module", "Callable[[int], str]", "'Forward'", "Tensor | nn.Module"])
def test_what_a_config_cannot_write_is_left_to_the_call(annotation):
    assert schema._type(annotation)({"_target_": "x"}) and schema.in_words(annotation).startswith("anything")


def _leaves(node, prefix=""):
    for name, value in node.items():
        key = f"{prefix}.{name}".lstrip(".")
        yield from _leaves(value, key) if isinstance(value, dict) else [(key, value)]


def _with(node, key, value):
    first, _, rest = key.partition(".")
    return {**node, first: _with(node[first], rest, value) if rest else value}


@pytest.fixture(scope="module")
def plain():
    return config.check(dlzoo.compose())


def test_the_default_config_is_right(plain):
    assert list(schema.faults(plain)) == []


def test_every_value_of_the_default_config_has_a_type(plain):
    """A wrong value of any key whatsoever is noticed, and named by its dotted key."""
    untouched = [key for key, _ in _leaves(plain) if not key.endswith(("_target_", "_partial_"))]
    assert len(untouched) > 60
    missed = [key for key in untouched if key not in {fault.key for fault in schema.faults(_with(plain, key, {"x": 1}))}]
    assert missed == ["trainer.strategy"], "a mapping is right there alone: one of dlzoo.strategies"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("optimizer.lr", 0),
        ("optimizer.lr", -0.1),
        ("optimizer.lr", float("nan")),
        ("optimizer.momentum", 1.5),
        ("optimizer.weight_decay", -1e-4),
        ("trainer.max_epochs", 0),
        ("trainer.max_epochs", "ten"),
        ("trainer.precision", "fp8"),
        ("trainer.accelerator", "tpu"),
        ("trainer.devices", 0),
        ("trainer.accumulate_grad_batches", 0),
        ("trainer.gradient_clip_val", -1),
        ("trainer.limit_train_batches", -1),
        ("trainer.log_every_n_steps", 0),
        ("optimized_mode", "maximum"),
        ("test", "yes"),
        ("compile", 1),
        ("tags", "one"),
        ("scheduler.peak", "high"),
        ("task.label_smoothing", "some"),
        ("model.shortcut", "nothing"),
        ("model.num_classes", 10.5),
        ("data.batch_size", 12.5),
        ("data.flip", "no"),
        ("callbacks.checkpoint.mode", "up"),
        ("callbacks.report.mistakes", "many"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(plain, key, value):
    (fault,) = schema.faults(_with(plain, key, value))
    assert fault.key == key and repr(value) in fault.text and "expected" in fault.text


@pytest.mark.parametrize(
    "key", ["trainer.max_epoch", "model.clases", "optimizer.leraning_rate", "callbacks.checkpoint.monitr", "sed"]
)
def test_a_key_that_no_call_takes_is_a_fault(plain, key):
    group, _, leaf = key.rpartition(".")
    node = plain
    for part in group.split(".") if group else ():
        node = node[part]
    changed = _with(plain, group, {**node, leaf: 1}) if group else {**plain, leaf: 1}
    (fault,) = schema.faults(changed)
    assert fault.key == key and "no key" in fault.text


def test_a_missing_argument_is_a_fault(plain):
    node = {name: value for name, value in plain["callbacks"]["report"].items() if name != "title"}
    (fault,) = schema.faults(_with(plain, "callbacks.report", node))
    assert "lacks 'title'" in fault.text
    for group in schema.BUILT:
        found = [fault.text for fault in schema.faults({name: value for name, value in plain.items() if name != group})]
        assert f"{group} names nothing to build" in found


# --- signatures


def test_signatures_are_read_without_importing():
    code = (
        "import sys\nfrom dlzoo import schema\n"
        "known = schema.parameters_of('dlzoo.models.vision.resnet.resnet20')\n"
        "assert list(known)[:2] == ['num_classes', 'in_channels'], known\n"
        "assert schema.parameters_of('dlzoo.datamodules.cifar.Cifar10')['flip'].annotation == 'bool'\n"
        "loaded = {'torch', 'lightning', 'dlzoo.models.vision.resnet', 'dlzoo.datamodules.cifar'} & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_signature_is_the_functions_own():
    """For every target of every config: what is read from the text is what Python says of the object."""
    import inspect

    targets = {node["_target_"] for node in map(_yaml, _files()) for node in _targets(node)}
    own = sorted(target for target in targets if target.startswith("dlzoo."))
    assert len(own) > 20
    for target in own:
        known = schema.parameters_of(target)
        assert known is not None, f"{target} could take anything: its config is not checked"
        for name, parameter in inspect.signature(zoo.locate(target)).parameters.items():
            assert name in known, f"{target}: {name}"
            assert known[name].required == (parameter.default is inspect.Parameter.empty), f"{target}: {name}"


@pytest.mark.parametrize("target", schema.FOREIGN)
def test_what_goes_to_other_libraries_is_taken_by_them(target):
    """The dataclasses are written by hand: each name must be an argument of the real thing."""
    import inspect

    real = inspect.signature(zoo.locate(target)).parameters
    assert set(schema.parameters_of(target)) <= set(real)


def _files():
    return sorted(zoo.config_dir().rglob("*.yaml"))


def _yaml(path):
    return zoo.read_yaml(path.read_text(encoding="utf-8")) or {}


def _targets(node):
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _targets(value)


def test_every_target_of_a_config_may_be_called():
    for path in _files():
        for node in _targets(_yaml(path)):
            assert callable(zoo.locate(node["_target_"])), path


def test_a_class_without_an_init_takes_its_parents_from_the_module_that_it_is_imported_from():
    known = schema.parameters_of("dlzoo.datamodules.mnist._IdxImages")
    assert known == schema.parameters_of("dlzoo.datamodules.in_memory_images.InMemoryImages")
    assert known["batch_size"].required and "self" not in known


def test_a_class_without_an_init_whose_parent_is_another_librarys_is_not_checked():
    assert schema.parameters_of("dlzoo.nowhere.Nothing") is None
    assert schema.parameters_of("torch.nn.Linear") is None


# --- did you mean


def _typo(word, rng):
    """One edit: a letter lost, doubled by another, replaced, or swapped with the next."""
    at = rng.randrange(len(word))
    letter = rng.choice(string.ascii_lowercase)
    kind = rng.choice(["lost", "added", "replaced", "swapped"])
    if kind == "lost" and len(word) > 2:
        return word[:at] + word[at + 1 :]
    if kind == "added":
        return word[:at] + letter + word[at:]
    if kind == "swapped" and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + letter + word[at + 1 :]


@pytest.fixture(scope="module")
def keys():
    return [key for key in config.config_keys(config.check(dlzoo.compose())) if not key.endswith(("_target_", "_partial_"))]


def test_a_typo_of_one_edit_gets_the_right_key(keys, monkeypatch):
    """200 typos of real keys: 95 % find the key among the suggestions."""
    from hydra.errors import ConfigCompositionException

    whole = config._load([], None)
    monkeypatch.setattr(config, "_load", lambda overrides, folder: whole)  # the config without the typo is always the same
    rng = random.Random(0)
    wrong = []
    for _ in range(200):
        key = rng.choice(keys)
        head, _, leaf = key.rpartition(".")
        typo = f"{head}.{_typo(leaf, rng)}".lstrip(".")
        while typo in keys:
            typo = f"{head}.{_typo(leaf, rng)}".lstrip(".")
        error = config._explain(ConfigCompositionException(f"Could not override '{typo}'."), [f"{typo}=1"], None)
        assert error.exit_code == 2 and repr(typo) in error.what
        if repr(key) not in error.fix and f"'{leaf}'" not in error.fix:
            wrong.append((typo, key, error.fix))
    assert len(wrong) <= 10, f"{len(wrong)} of 200: {wrong}"


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("data.batchsize=8", "data.batch_size"),
        ("optimizer.learning_rate=1", None),  # three words apart: a hint is not owed, a message is
        ("optimiser.lr=1", "optimizer.lr"),
        ("optimiser=adamw", "optimizer"),
        ("sede=1", "seed"),
        ("trianer.max_epochs=2", "trainer.max_epochs"),
        ("experimen=cifar10_resnet", "experiment"),
        ("+trainer.max_epohcs=3", "max_epochs"),
        ("callbacks.report.mistakes=3", "+callbacks.report.mistakes=3"),  # an argument that no config sets
        ("Trainer.Max_Epochs=2", "trainer.max_epochs"),
    ],
)
def test_a_wrong_key_through_the_whole_of_hydra(override, right):
    with pytest.raises(ConfigError) as caught:
        dlzoo.compose(override)
    assert caught.value.exit_code == 2 and caught.value.where
    if right:
        assert right in caught.value.fix, str(caught.value)


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("experiment=cifar10_resne", "cifar10_resnet"),
        ("experiment=cifar_resnet", "cifar10_resnet"),
        ("model=resnt20", "resnet20"),
        ("model=resnet2O", "resnet20"),
        ("model=ResNet50", "resnet50"),
        ("data=cifar1O", "cifar10"),
        ("data=mnst", "mnist"),
        ("optimizer=adamww", "adamw"),
        ("scheduler=onecycle", "one_cycle"),
        ("trainer=cpu_fats", "cpu_fast"),
        ("logger=csvv", "csv"),
        ("logger=[csv,tensorbord]", "tensorboard"),
        ("debug=smok", "smoke"),
        ("callbacks=defaults", "default"),
        ("task=clasification", "classification"),
    ],
)
def test_a_wrong_name_of_a_group_is_answered_with_the_right_one(override, right):
    with pytest.raises(ConfigError) as caught:
        dlzoo.compose(override)
    error = caught.value
    assert repr(right) in error.fix, str(error)
    assert error.where == override


@pytest.mark.parametrize("name", [name for group in ("experiment", "model") for name in zoo.list_configs(group)])
def test_names_survive_one_edit(name):
    known = zoo.list_models() if name in zoo.list_models() else zoo.list_configs("experiment")
    rng = random.Random(name)
    typos = [_typo(name, rng) for _ in range(30)]
    found = [typo for typo in typos if typo in known or repr(name) in suggest(typo, known)]
    assert len(found) >= 27, sorted(set(typos) - set(found))


def test_a_name_that_is_like_nothing_lists_what_there_is():
    with pytest.raises(ConfigError, match="scheduler can be: constant, cosine, inverse_sqrt, multistep"):
        dlzoo.compose("scheduler=zzzzzz")


def test_a_message_says_where_the_value_was_set(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"the command line, optimizer\.lr=-1"):
        dlzoo.compose("optimizer.lr=-1")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  max_epochs: ten\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"trainer.max_epochs, experiment/mine.yaml line 3"):
        dlzoo.compose("experiment=mine", config_dir=tmp_path)


def test_several_mistakes_are_counted():
    with pytest.raises(ConfigError, match=r"\(1 more like it\)"):
        dlzoo.compose("optimizer.lr=-1", "trainer.max_epochs=ten")


@pytest.mark.parametrize(
    "override",
    ["trainer", "=3", "seed=", "tags=[a", "optimizer.lr={", "seed=${nothing}", "name=${oc.env:NOT_THERE}", "trainer=null"],
)
def test_what_is_no_override_at_all_is_a_mistake_and_no_crash(override):
    with pytest.raises(ConfigError) as caught:
        dlzoo.compose(override)
    assert len(str(caught.value).splitlines()) <= 4


def test_a_value_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        dlzoo.compose("optimizer.lr=???")


def test_a_folder_of_configs_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        dlzoo.compose(config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("override", "have"), [("model.num_classes=5", 10), ("model.in_channels=3", 1), ("task.num_classes=100", 10)]
)
def test_a_network_that_does_not_fit_the_data_is_refused_at_once(override, have):
    """On a GPU it would be a device assert in the first step."""
    with pytest.raises(ConfigError) as caught:
        dlzoo.compose(override)
    key, value = override.split("=")
    assert f"{key} is {value}, and the data have {have}" in caught.value.what
    assert override in caught.value.where


@pytest.mark.parametrize("group", ["model", "data", "optimizer", "scheduler", "trainer"])
def test_a_part_that_was_taken_out_is_missed(group):
    with pytest.raises(ConfigError, match=group):
        dlzoo.compose(f"~{group}")


def test_a_name_may_be_made_of_other_values():
    assert dlzoo.compose("name=mine_${seed}", "seed=3").name == "mine_3"
    assert dlzoo.compose("experiment=mnist_resnet").name == "mnist_resnet"

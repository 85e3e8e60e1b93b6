"""The config tree: every choice composes, every experiment builds and trains a batch, and every claimed command is one."""

import gzip
import itertools
import pickle
import re
import shlex
import string
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import dlzoo
from dlzoo import config, verbs, zoo
from dlzoo import run as runs
from dlzoo.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent
CHOICES = [(group, name) for group in config.GROUPS for name in zoo.list_configs(group)]
EXPERIMENTS = zoo.list_configs("experiment")
FORECAST = {"data": "melbourne", "model": "forecaster_lstm", "task": "forecasting"}  # what goes with one of its kind
LANGUAGE = {"data": "tiny_shakespeare", "model": "gpt_char", "task": "language_modeling"}  # what goes with one of its kind
TRANSLATION = {"data": "multi30k", "model": "transformer_small", "task": "seq2seq"}
# one batch of eight of everything, on the CPU; enough of a picture for what is drawn
TINY = ("trainer=cpu", "data.batch_size=8", "data.eval_batch_size=8", "debug=smoke", "trainer.limit_train_batches=1")

TINY_PAIRS = ("trainer=cpu", "debug=smoke", "trainer.limit_train_batches=1", "data.batch_tokens=200", "task.max_length=9")
TINY_PAIRS += ("data.source_vocab_size=300", "data.target_vocab_size=300", "data.eval_batch_tokens=200")


def _is_of_language(group, name):
    """Whether a choice is for texts: data and models that have a vocabulary, and their task."""
    text = (zoo.config_dir() / group / f"{name}.yaml").read_text()
    return name == LANGUAGE["task"] if group == "task" else "\nvocab_size:" in text and group in LANGUAGE


def _is_of_translation(group, name):
    """Whether a choice is for pairs of sentences: data and models that have two vocabularies, and their task."""
    text = (zoo.config_dir() / group / f"{name}.yaml").read_text()
    return name == TRANSLATION["task"] if group == "task" else "\nsource_vocab_size:" in text and group in TRANSLATION


def _is_of_series(group, name):
    """Whether a choice is for series: data and models that have a horizon, and their task."""
    text = (zoo.config_dir() / group / f"{name}.yaml").read_text()
    return name == FORECAST["task"] if group == "task" else "\nhorizon:" in text and group in FORECAST


def _pictures(root, classes, count, side, seed=0):
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (len(classes), count, side, side + 3, 3), dtype=np.uint8)
    for name, images in zip(classes, pixels, strict=True):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.jpg")


def _recordings(folder, names, rate):
    import soundfile

    noise = np.random.default_rng(0).normal(size=(len(names), rate // 4)) * 0.1
    for name, wave in zip(names, noise, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, wave, rate)


def _masked(root, folders, images, labels):
    from PIL import Image

    masks = np.random.default_rng(1).integers(0, labels, images.shape[:3])
    for folder, pixels in zip(folders, (images, masks), strict=True):
        (root / folder).mkdir(parents=True)
        for number, each in enumerate(pixels.astype(np.uint8)):
            Image.fromarray(each).save(root / folder / f"{number}.png", compress_level=0)


def _captions(folder):
    """Sentences of which each has its number and its language in it, as many as words make it."""
    folder.mkdir()
    for language, start in {"de": "Ein Mann liest Zeile", "en": "A man reads line", "fr": "Un homme lit la ligne"}.items():
        for split, count in {"train": 60, "val": 12, "test_2016_flickr": 10}.items():
            lines = "".join(f"{start} {number}{' ja' * (number % 7)}.\n" for number in range(count))
            (folder / f"{split}.{language}.gz").write_bytes(gzip.compress(lines.encode()))


def _idx(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


def _series(folder):
    """Noise of the published lengths, with the published columns; a step lasts as long, and two values are missing."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    hours = np.datetime64("2010-01-01T00", "s") + np.arange(43_824) * np.timedelta64(3_600, "s")
    noise = [",".join(map(str, row)) for row in random.integers(0, 100, (43_824, 7)).tolist()]
    moments = [str(hour).replace("T", " ") for hour in hours]
    rows = [f"{moment},{row}" for moment, row in zip(moments, noise[:17_420], strict=False)]
    (folder / "ETTh1.csv").write_text("\n".join(["date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", *rows]))
    days = [day for day in np.datetime64("1981-01-01") + np.arange(3_652) if not str(day).endswith(("84-12-31", "88-12-31"))]
    rows = [f"{day},{row.split(',')[0]}" for day, row in zip(days, noise, strict=False)]
    (folder / "daily-min-temperatures.csv").write_text("\n".join(["Date,Temp", *rows]))
    parts = [f"{int(day[:4])},{int(day[5:7])},{int(day[8:10])},{int(day[11:13])}" for day in moments]
    rows = [f"{part},{row},NW" for part, row in zip(parts, noise, strict=True)]
    (folder / "pollution.csv").write_text("\n".join(["year,month,day,hour,pm2.5,DEWP,TEMP,PRES,Iws,Is,Ir,cbwd", *rows]))


def _cifar100(folder, counts):
    """Pickles as they are published: rows of bytes, fine and coarse labels, the names of the classes."""
    from dlzoo.data.cifar import CIFAR100_CLASSES

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in counts.items():
        rows, fine = random.integers(0, 256, (count, 3072), dtype=np.uint8), [index % 100 for index in range(count)]
        batch = {"data": rows, "fine_labels": fine, "coarse_labels": [label // 5 for label in fine]}
        (folder / split).write_bytes(pickle.dumps(batch, 4))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CIFAR100_CLASSES)}, 4))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small data sets in the published formats: 64 training (one of each class, of a hundred) and 16 test samples each."""
    from PIL import Image

    from dlzoo.data.cifar import CIFAR10_CLASSES

    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, (prefix, count) in itertools.product(("mnist", "fashion_mnist"), {"train": 64, "t10k": 16}.items()):
        _idx(folder / name / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        _idx(folder / name / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    for split, count in {"train": 64, "test": 16}.items():
        for number in range(count):
            place = folder / "cifar10" / split / CIFAR10_CLASSES[number % 10]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.jpg")
    _cifar100(folder / "cifar100" / "cifar-100-python", {"train": 100, "test": 16})
    _pictures(folder / "images", ("ant", "bee", "cat"), 8, 40)
    for split in ("train", "val"):
        _pictures(folder / "hymenoptera" / split, ("ants", "bees"), 10, 40)
        _pictures(folder / "tiny_imagenet_subset" / split, [f"n{number:02}" for number in range(100)], 1, 40)
    for split, count in {"train": 16, "val": 8, "test": 8}.items():
        _masked(folder / "camvid_small", (split, f"{split}annot"), rng.integers(0, 256, (count, 180, 240, 3)), 12)
    _masked(folder / "isbi_membrane", ("image", "label"), rng.integers(0, 256, (30, 512, 512)), 256)
    takes = [(number % 10, number // 10 + 5 * (number >= 20)) for number in (*range(16), *range(20, 84))]  # 16 test
    _recordings(folder / "free_spoken_digits", [f"{digit}_ann_{take}.wav" for digit, take in takes], 8_000)
    words = [f"{('yes', 'no')[number % 2]}/{number}_nohash_0.wav" for number in range(80)]
    _recordings(folder / "speech_commands", words, 16_000)
    for name, part in (("testing", words[:16]), ("validation", words[16:32])):
        (folder / "speech_commands" / f"{name}_list.txt").write_text("\n".join(part))
    letters = "\n !$&',-.3:;?" + string.ascii_letters  # the 65 of Shakespeare
    (folder / "tiny_shakespeare").mkdir()
    (folder / "tiny_shakespeare" / "input.txt").write_text(letters * 50)
    _captions(folder / "multi30k")
    _series(folder / "weather")
    (folder / "library").mkdir()
    for number in range(60):
        (folder / "library" / f"module{number}.py").write_text(f"NUMBER = {number}\n" * 20)
    return folder


@pytest.fixture
def small(monkeypatch, data):
    """The data sets as large as the files above; their real sizes are a part of what is checked when they are read."""
    from dlzoo.datamodules.camvid_small import CamvidSmall
    from dlzoo.datamodules.cifar import Cifar10, Cifar100
    from dlzoo.datamodules.mnist import FashionMnist, Mnist
    from dlzoo.datamodules.multi30k import Multi30k
    from dlzoo.datamodules.speech_commands import SpeechCommands
    from dlzoo.datamodules.spoken_digits import SpokenDigits
    from dlzoo.datamodules.stdlib import Stdlib
    from dlzoo.datamodules.tiny_shakespeare import TinyShakespeare

    for kind in (Cifar10, Mnist, FashionMnist, SpokenDigits, SpeechCommands):
        monkeypatch.setattr(kind, "published", (64, 16))
    monkeypatch.setattr(SpeechCommands, "validation", 16)
    monkeypatch.setattr(Cifar100, "published", (100, 16))
    monkeypatch.setattr(CamvidSmall, "published", (16, 8, 8))
    monkeypatch.setattr(TinyShakespeare, "published", 65 * 50)
    monkeypatch.setattr(Stdlib, "folder", data / "library")
    monkeypatch.setattr(Multi30k, "published", {"train": 60, "val": 12, "test": 10})


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=lambda value: value)
def test_every_choice_composes_and_passes_the_check(group, name, data):
    words = [f"{group}={name}", f"data_dir={data}"]
    words += [f"{key}={value}" for key, value in LANGUAGE.items() if key != group and _is_of_language(group, name)]
    words += [f"{key}={value}" for key, value in TRANSLATION.items() if key != group and _is_of_translation(group, name)]
    words += [f"{key}={value}" for key, value in FORECAST.items() if key != group and _is_of_series(group, name)]
    plain = config.check(dlzoo.compose(*words))
    assert "???" not in str(plain) and "${" not in str(plain)


@pytest.mark.parametrize("name", zoo.list_models())
def test_a_model_takes_its_ends_from_the_data(name):
    if _is_of_language("model", name):
        for data, size in (("tiny_shakespeare", 65), ("stdlib", 101)):
            words = (f"model={name}", f"data={data}", "task=language_modeling")
            assert config.check(dlzoo.compose(*words))["model"]["vocab_size"] == size
        return
    if _is_of_translation("model", name):
        words = (f"model={name}", "data=multi30k", "task=seq2seq", "data.source_vocab_size=900", "data.joint=false")
        words += ("model.tied=head",) * name.startswith("transformer")  # one table for all would need joint tokens
        model = config.check(dlzoo.compose(*words))["model"]
        assert (model["source_vocab_size"], model["target_vocab_size"], model["padding"]) == (900, 8000, 0)
        return
    if _is_of_series("model", name):
        for data, shape in (("melbourne", (3, 1, 1)), ("etth1", (11, 24, 1)), ("beijing", (14, 24, 1))):
            model = config.check(dlzoo.compose(f"model={name}", f"data={data}", "task=forecasting"))["model"]
            assert (model["features"], model["horizon"], model["targets"]) == shape
        return
    plain = config.check(dlzoo.compose(f"model={name}", "data=mnist"))
    assert (plain["model"]["num_classes"], plain["model"]["in_channels"], plain["task"]["num_classes"]) == (10, 1, 10)
    plain = config.check(dlzoo.compose(f"model={name}", "data=cifar100"))
    assert (plain["model"]["num_classes"], plain["model"]["in_channels"], plain["task"]["num_classes"]) == (100, 3, 100)


def test_the_classes_of_a_folder_are_counted(data):
    assert dlzoo.compose("experiment=imagefolder_resnet50", f"data.root={data}/images").data.num_classes == 3
    with pytest.raises(DataError, match="nowhere"):
        dlzoo.compose("experiment=imagefolder_resnet50", f"data.root={data}/nowhere")


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("model=gpt_char",), "the task and data for this one"),
        (("model=resnet20", "data=stdlib", "task=language_modeling"), "model=gpt_char"),
        (("model=resnet20", "data=etth1", "task=forecasting"), "model=forecaster_lstm"),
    ],
    ids=["of text", "of pictures", "of pictures for a series"],
)
def test_a_model_of_another_kind_than_the_task_is_told_what_to_type(words, fix):
    with pytest.raises(ConfigError, match="model has no key") as caught:
        dlzoo.compose(*words)
    assert fix in caught.value.fix


def test_data_that_a_task_is_not_for_name_the_task_that_is():
    with pytest.raises(ConfigError, match="no 'num_classes'") as caught:
        dlzoo.compose("data=tiny_shakespeare")
    assert "task=language_modeling" in caught.value.fix
    with pytest.raises(ConfigError, match="no 'vocab_size'") as caught:
        dlzoo.compose("task=language_modeling")
    assert "task=classification" in caught.value.fix
    with pytest.raises(ConfigError, match="no 'num_classes'") as caught:
        dlzoo.compose("data=beijing", "model=tcn")
    assert "task=forecasting" in caught.value.fix


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("model.vocab_size=70",), "model.vocab_size is 70, and the data have 65"),
        (("data.context=65",), "data.context is 65, and the model reads 64 tokens"),
    ],
    ids=["vocabulary", "context"],
)
def test_a_model_that_the_text_does_not_fit_is_refused(words, match):
    plain = [f"{key}={value}" for key, value in LANGUAGE.items()]
    with pytest.raises(ConfigError, match=match):
        dlzoo.compose(*plain, *words)


@pytest.mark.parametrize(
    ("words", "match", "fix"),
    [
        (("data.joint=false",), "model.tied is all, one table for both languages, and data.joint is false", "model.tied=head"),
        (("model.target_vocab_size=99",), "model.target_vocab_size is 99, and the data have 4000", ""),
        (("data.source=english",), "data.source is 'english': expected one of en, de, fr", ""),
        (("model=resnet20",), "model has no key 'source_vocab_size'", "model=transformer_small"),
    ],
    ids=["tied", "vocabulary", "language", "model"],
)
def test_a_translator_that_the_sentences_do_not_fit_is_refused(words, match, fix):
    with pytest.raises(ConfigError, match=match) as caught:
        dlzoo.compose("experiment=multi30k_transformer", *words)
    assert fix in caught.value.fix


def test_a_choice_on_the_command_line_beats_the_experiments():
    words = ("trainer=cpu", "scheduler=multistep", "model=resnet20", "trainer.max_epochs=1", "~scheduler.peak")
    plain = dlzoo.compose("experiment=cifar10_resnet18", *words)
    assert plain.trainer.accelerator == "cpu" and not plain.channels_last
    assert plain.scheduler["_target_"].endswith("multistep") and plain.model["_target_"].endswith("resnet20")
    assert plain.trainer.max_epochs == 1 and plain.task.label_smoothing == 0.1


def test_a_value_of_the_experiment_that_another_choice_does_not_take_is_named_with_its_place():
    with pytest.raises(ConfigError) as caught:
        dlzoo.compose("experiment=cifar10_resnet18", "optimizer=adamw")
    assert "nesterov" in caught.value.what and "cifar10_resnet18.yaml line" in caught.value.where


def test_no_group_of_the_tree_is_null():
    text = (zoo.config_dir() / "train.yaml").read_text()
    defaults = zoo.read_yaml(text)["defaults"]
    assert all(value for item in defaults if isinstance(item, dict) for value in item.values())


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, name in CHOICES if group != "callbacks"], ids=lambda v: v)
def test_every_file_says_what_it_is(group, name):
    text = (zoo.config_dir() / group / f"{name}.yaml").read_text()
    assert len(zoo.leading_comment(text)) > 15


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_command_at_the_head_of_an_experiment_is_its_own(name, data, monkeypatch):
    lines = (zoo.config_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    commands = [line.lstrip("# ") for line in lines if line.startswith("#") and "python train.py" in line]
    assert len(commands) == 1, "one command, ready to copy"
    program, file, *words = shlex.split(commands[0].replace("PATH", str(data / "images")))
    assert (program, file) == ("python", "train.py") and (ROOT / file).is_file()
    assert dlzoo.compose(*words).name == name


def test_every_command_of_the_documents_composes(data, monkeypatch):
    """What README and the others tell people to type is accepted."""
    commands = []
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "configs").rglob("*.yaml"))):
        text = path.read_text() if path.is_file() else ""
        examples = set(re.findall(r"`[\w/]+/(\w+)\.(?:py|yaml)`:", text))  # files that the reader is shown how to write
        for line in text.splitlines():
            match = re.search(r"(?:python train\.py|dlzoo train)((?: +[\w.+~/=\[\],:-]+)*)", line)
            if (
                match
                and "--" not in match[1]
                and "-m" not in match[1].split()
                and not examples & set(re.findall(r"\w+", match[1]))
            ):
                commands.append(match[1].replace("PATH", str(data / "images")))
    assert len(commands) >= len(EXPERIMENTS)
    for command in dict.fromkeys(commands):
        words = [word for word in command.split() if "=" in word]
        assert dlzoo.compose(*words), command


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds(name, data):
    cfg = dlzoo.compose(f"experiment={name}", "trainer=cpu", f"data_dir={data}")
    task, datamodule, trainer = runs.build(config.check(cfg))
    if "vocab_size" in cfg.data:
        tokens = torch.zeros(1, 8, dtype=torch.int64)  # of 124 M parameters a whole context takes a while
        assert task.net(tokens).shape == (1, 8, datamodule.vocab_size)
    elif "source_vocab_size" in cfg.data:
        tokens = torch.full((1, 3), cfg.data.source_vocab_size - 1)
        assert task.net(tokens, tokens[:, :2]).shape == (1, 2, cfg.data.target_vocab_size)
    elif "horizon" in cfg.data:
        past = torch.zeros(1, datamodule.history, cfg.data.features)
        assert task.net(past).shape == (1, datamodule.horizon, cfg.data.outputs)
    else:
        head = task.net.head
        ends = head.out_features if isinstance(head, torch.nn.Linear) else head.out_channels
        assert ends == datamodule.num_classes == task.hparams["num_classes"]
        assert datamodule.preprocess.channels == cfg.data.in_channels
    assert trainer.max_epochs == cfg.trainer.max_epochs
    # the optimizer and the schedule that it names can be made for its network
    optimizer = task.optimizer(task.net.parameters())
    assert task.scheduler(optimizer, total_steps=10).get_last_lr()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains_a_batch_offline(name, data, small, tmp_path):
    pairs = name.startswith("multi30k_")
    words = [f"experiment={name}", f"data_dir={data}", *(TINY_PAIRS if pairs else TINY), f"run_dir={tmp_path}/run"]
    composed = dlzoo.compose(*words)
    words += ["data.image_size=32", "data.num_workers=0"] if "image_size" in composed.data else []
    words += ["data.val_size=16"] if "val_size" in composed.data else []
    words += ["data.crop=[64,64]"] if "crop" in composed.data else []
    words += ["model.width=4"] if name == "isbi_unet" else []  # slices of 512x512 come whole to the test
    words += ["init_from=null"] * (composed.init_from == "published")  # which is a download
    words += ["task.sample_length=5"] if "vocab_size" in composed.data else []
    if name == "openwebtext_gpt2":  # 124 M parameters of a text that is not here: the recipe on another one, small
        words += ["model=gpt_char", "data.vocab_size=270", "data.context=32", "data.val_fraction=0.1", "data.test_fraction=0.1"]
        words += [f"data.root={data}/library", "data.pattern=*.py", f"data.token_dir={tmp_path}/tokens"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert run.summary["status"] == "finished" and run.summary["steps"] == 1
    assert run.metrics["test/loss"] > 0 and dlzoo.load(run.dir) is not None
    if pairs:
        assert run.metrics["test/ppl"] == pytest.approx(np.exp(run.metrics["test/loss"]), rel=1e-4)
        assert set(run.summary["signatures"]) == {f"{stage}/{what}" for stage in ("val", "test") for what in ("bleu", "chrf")}
        files = {path.name for path in run.dir.iterdir()}
        assert {"samples.txt", "alignment.png", "batch.txt", "curves.png", "tokenizer.json"} <= files
        with pytest.raises(ConfigError, match="the run is of sentences") as caught:
            verbs.predict(run.dir, ROOT)
        assert caught.value.fix.startswith(f"dlzoo translate {run.dir}")
        return
    if "vocab_size" in composed.data:
        assert run.metrics["test/ppl"] == pytest.approx(np.exp(run.metrics["test/loss"]), rel=1e-4)
        assert {"samples.txt", "batch.txt", "curves.png", "tokenizer.json"} <= {path.name for path in run.dir.iterdir()}
        with pytest.raises(ConfigError, match="the run is of text") as caught:
            verbs.predict(run.dir, ROOT)
        assert caught.value.fix == f"dlzoo generate {run.dir}"
        return
    if "horizon" in composed.data:
        assert run.metrics["test/mae"] > 0 and run.metrics["test/mae_persistence"] > 0
        files = {"forecast.png", "horizon.png", "curves.png", "example.csv"}
        assert files <= {path.name for path in run.dir.iterdir()} and run.summary["answers"] == "forecast"
        with pytest.raises(ConfigError, match="the run is of series"):
            verbs.predict(run.dir, ROOT)
        _, report = verbs.export(run.dir)
        assert report["max_rel"] < 1e-4 and "windows of the test part" in report["pictures"]
        return
    assert 0 <= run.metrics["test/acc"] <= 1
    example = "example.wav" if name.startswith("sp") else "example.png"
    assert {"samples.png", "confusion.png", "curves.png", example} <= {path.name for path in run.dir.iterdir()}
    assert ("JPEG edition" in run.summary["edition"]) == name.startswith("cifar10_")
    assert (run.dir / "superclasses.png").is_file() == name.startswith("cifar100_")
    assert len(run.summary["classes"]) == run.config["data"]["num_classes"]


# --- debug


def test_overfit_learns_one_batch_by_heart(tmp_path):
    words = ["debug=overfit", "trainer=cpu", "trainer.max_epochs=20", "data.crop_padding=0", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    steps, losses = run.history["train/loss"]
    assert steps[-1] == 20, "one batch an epoch"
    assert losses[-1] < 0.2 * losses[0], losses
    assert "test/acc" not in run.metrics


def test_profile_writes_its_table(tmp_path):
    words = ["debug=profile", "trainer=cpu", "trainer.limit_train_batches=8", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert "conv" in (run.dir / "profile.txt").read_text()


def test_smoke_is_over_in_two_steps():
    cfg = dlzoo.compose("debug=smoke", "experiment=cifar10_resnet")
    assert (cfg.trainer.max_epochs, cfg.trainer.limit_train_batches, cfg.trainer.limit_test_batches) == (1, 2, 2)
    assert cfg.name == "cifar10_resnet"


# --- loggers


def test_tensorboard_has_the_numbers_of_the_csv(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["logger=[csv,tensorboard]", "debug=smoke", "trainer=cpu", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    events = EventAccumulator(str(run.dir / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/acc", "val/loss", "test/acc", "lr"} <= set(events.Tags()["scalars"])
    steps, values = run.history["train/loss"]
    scalars = events.Scalars("train/loss")
    assert [scalar.step for scalar in scalars] == steps
    assert [scalar.value for scalar in scalars] == pytest.approx(values, rel=1e-6)


def test_a_run_has_its_csv_whatever_else_is_chosen(tmp_path):
    words = ["logger=tensorboard", "debug=smoke", "trainer=cpu", "test=false", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert run.history["train/loss"][0] == [1, 2]


def test_wandb_without_an_account_stays_offline_and_never_asks(tmp_path, monkeypatch):
    """No key, no netrc, nothing on the standard input: a question would be an error here."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    words = ["logger=wandb", "debug=smoke", "trainer=cpu", "test=false", "tags=[one,two]", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert list((run.dir / "wandb").glob("offline-run-*")) and (run.dir / "metrics.csv").is_file()
    assert "wandb sync" in (run.dir / "train.log").read_text()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_logger_whose_package_is_missing_says_what_to_install(package, monkeypatch, tmp_path):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))
    with pytest.raises(ConfigError) as caught:
        runs.build(config.check(dlzoo.compose(f"logger={package}", "trainer=cpu", f"run_dir={tmp_path}")))
    assert f"dlzoo[{package}]" in caught.value.fix and caught.value.exit_code == 2


# --- devices and precision


class _Cuda:
    def __init__(self, capability):
        self.capability = capability

    def set(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: self.capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: self.capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Test GPU")


@pytest.mark.parametrize(
    ("trainer", "asked", "capability", "expected"),
    [
        ("gpu", None, (9, 0), "bf16-mixed"),
        ("gpu", None, (8, 0), "bf16-mixed"),
        ("gpu", None, (7, 5), "16-mixed"),  # a T4: bf16 there is emulated
        ("gpu", None, (7, 0), "16-mixed"),
        ("gpu", None, (6, 1), 32),
        ("gpu", "32", (9, 0), 32),
        ("gpu", "16-mixed", (7, 5), "16-mixed"),
        ("gpu", "bf16-mixed", (7, 5), "compute capability 7.5"),
        ("auto", "bf16-mixed", (7, 5), "compute capability 7.5"),
        ("auto", None, (7, 5), 32),
        ("cpu", "bf16-mixed", (7, 5), "bf16-mixed"),  # the GPU is not asked
        ("cpu", "16-mixed", (9, 0), "fp16 does not run on a CPU"),
        ("cpu", "16-true", None, "fp16 does not run on a CPU"),
        ("auto", "16-mixed", None, "fp16 does not run on a CPU"),
        ("auto", None, None, 32),
        ("auto", "auto", None, 32),
        ("cpu_fast", None, None, "bf16-mixed"),
        ("gpu", None, None, "there is no CUDA GPU"),
        ("ddp", None, None, "there is no CUDA GPU"),
    ],
)
def test_precision_is_native_or_refused(trainer, asked, capability, expected, monkeypatch):
    _Cuda(capability).set(monkeypatch)
    node = config.check(dlzoo.compose(f"trainer={trainer}", *([f"trainer.precision={asked}"] if asked else [])))["trainer"]
    if expected in (32, "bf16-mixed", "16-mixed"):
        assert runs.precision(node) == expected
        return
    with pytest.raises(ConfigError, match=expected) as caught:
        runs.precision(node)
    assert caught.value.exit_code == 2 and caught.value.fix and "trainer" in caught.value.where
    # what it says to type instead is accepted
    word = caught.value.fix.split(",")[0]
    again = config.check(dlzoo.compose(f"trainer={trainer}", word))["trainer"]
    assert runs.precision(again)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.filterwarnings("ignore:You passed `Trainer")  # fp16 is for GPUs
def test_a_fused_optimizer_gives_way_to_clipping_where_gradients_are_scaled(precision, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "precision", lambda trainer: precision)
    for words, fused in (((), True), (("trainer.gradient_clip_val=1",), precision == "bf16-mixed")):
        plain = config.check(dlzoo.compose("trainer=cpu_fast", f"run_dir={tmp_path}", *words))
        task, _, _ = runs.build(plain)
        optimizer = task.optimizer([torch.nn.Parameter(torch.zeros(2))])
        assert bool(optimizer.defaults["fused"]) is fused


def test_channels_last_goes_with_the_fast_trainers():
    for trainer, expected in {
        "cpu": False,
        "auto": False,
        "cpu_fast": True,
        "gpu": True,
        "ddp": True,
        "ddp_cpu": False,
    }.items():
        assert dlzoo.compose(f"trainer={trainer}").channels_last is expected, trainer


def test_cpu_fast_trains(tmp_path):
    words = ["trainer=cpu_fast", "debug=smoke", f"run_dir={tmp_path}/run"]
    run = dlzoo.train(dlzoo.compose(*words), words)
    assert run.summary["precision"] == "bf16-mixed" and run.config["channels_last"] is True
    assert all(value.dtype == torch.float32 for value in dlzoo.load(run.dir).parameters())


def test_a_metric_that_the_task_does_not_log_is_refused_before_training():
    cfg = dlzoo.compose("trainer=cpu", "optimized_metric=val/accc")
    with pytest.raises(ConfigError, match=r"logs no 'val/accc'(?s:.*)did you mean 'val/acc'"):
        runs.build(config.check(cfg))

"""One process, DDP, FSDP2 and ZeRO train the same; a rank that dies or hangs is named. On two CPU processes over gloo."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import dlzoo
from dlzoo import zoo
from dlzoo.config import compose

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import devices  # noqa: E402

pytestmark = pytest.mark.slow

TRAINERS = [name for name in devices.CPU if name != "cpu"]
TRANSFORMER = "dlzoo.models.language.transformer.Transformer"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run by a trainer, made once: trained("fsdp_cpu", "key=value") -> its directory."""
    made = {}

    def run(trainer: str, *words: str) -> Path:
        if trainer.startswith("deepspeed"):
            pytest.importorskip("deepspeed")
        if (trainer, words) not in made:
            folder = tmp_path_factory.mktemp("runs") / "run"
            devices.train(folder, *devices.WORDS, *words, f"trainer={trainer}")
            made[trainer, words] = folder
        return made[trainer, words]

    return run


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_strategy_trains_the_same(trained, trainer):
    """Losses within 1e-5 over 20 steps; metrics over every sample once, though no batch of 101 is shared by two evenly."""
    one, two = trained("cpu"), trained(trainer)
    assert json.loads((two / "summary.json").read_text())["devices"] == 2
    found = devices.differences(one, two)
    assert found["train/loss"] <= 1e-5 and found["val/loss"] <= 1e-5 and found["test/loss"] <= 1e-5, found
    assert found["val/acc"] <= 1e-7 and found["test/acc"] <= 1e-7, found


@pytest.fixture(scope="module")
def translated(data_dir, tmp_path_factory):
    """A translator of each kind, trained by a trainer, once: translated("seq2seq", "fsdp_cpu") -> its directory."""
    words = (f"data_dir={data_dir}", "data.source_vocab_size=600", "data.target_vocab_size=600", "data.batch_tokens=700")
    words += ("trainer.precision=32", "trainer.max_epochs=1", f"trainer.limit_train_batches={devices.STEPS + 1}")
    words += ("trainer.log_every_n_steps=1", "trainer.limit_val_batches=10", "model.dropout=0", "optimizer.lr=1e-2")
    # so few that in most batches a rank has none to translate, or the other; in the test all, of which there are a thousand
    words += ("task.measured=40", "task.max_length=12", "task.beams=1")
    kinds = {"seq2seq": ("experiment=multi30k_seq2seq", "model.width=32", "model.embedding=32")}
    size = {"_target_": f"{TRANSFORMER}Size", "width": 32, "depth": 2, "heads": 2, "hidden": 64}
    kinds["transformer"] = ("experiment=multi30k_transformer", f"model._target_={TRANSFORMER}")
    kinds["transformer"] += tuple(f"+model.size.{name}={value}" for name, value in size.items())
    made = {}

    def run(kind: str, trainer: str) -> Path:
        if trainer.startswith("deepspeed"):
            pytest.importorskip("deepspeed")
        if (kind, trainer) not in made:
            folder = tmp_path_factory.mktemp("runs") / "run"
            devices.train(folder, *kinds[kind], *words, f"trainer={trainer}")
            made[kind, trainer] = folder
        return made[kind, trainer]

    return run


@pytest.mark.parametrize(
    ("kind", "trainer"),
    [
        ("seq2seq", "ddp_cpu"),
        ("transformer", "fsdp_cpu"),
        ("transformer", "deepspeed_stage_3_cpu"),
        pytest.param("seq2seq", "fsdp_cpu", marks=pytest.mark.long),
        pytest.param("seq2seq", "deepspeed_stage_2_cpu", marks=pytest.mark.long),
        pytest.param("seq2seq", "deepspeed_stage_3_cpu", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_a_translator_as_one_does(translated, kind, trainer):
    """They share each batch of sentences, and one has more tokens than the other, and other sentences to translate, or none;
    BLEU is of all sentences together."""
    one, two = translated(kind, "cpu"), translated(kind, trainer)
    assert json.loads((two / "summary.json").read_text())["devices"] == 2
    found = devices.differences(one, two)
    assert found["train/loss"] <= 1e-5 and found["val/loss"] <= 1e-5 and found["test/loss"] <= 1e-5, found
    assert found["test/bleu"] <= 0.05 and found["test/chrf"] <= 0.05, found


@pytest.mark.long
@pytest.mark.parametrize("words", [("trainer.gradient_clip_val=0.5", "trainer.precision=bf16-mixed")])
def test_shares_clip_by_the_whole_norm_in_bf16(trained, words):
    one, two = (devices.column(trained(trainer, *words), "train/loss") for trainer in ("cpu", "fsdp_cpu"))
    plain = devices.column(trained("cpu"), "train/loss")
    assert two == pytest.approx(one, rel=2e-3)  # 8 bits of mantissa
    assert max(abs(a - b) for a, b in zip(one, plain, strict=True)) > 0.01  # it does clip


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ("fsdp_cpu", ()),
        ("fsdp_cpu", ("trainer.strategy.save_distributed_checkpoint=true",)),
        ("deepspeed_stage_2_cpu", ()),
        ("deepspeed_stage_3_cpu", ()),
    ],
)
def test_a_run_of_shares_consolidates_and_loads(trained, trainer, words, cli):
    from safetensors.torch import load_file

    run = trained(trainer, *words)
    done = cli("consolidate", run)
    assert done.returncode == 0 and "model.safetensors" in done.stdout, done.stderr
    weights = load_file(run / "model.safetensors")
    net, expected = dlzoo.load(run), dlzoo.load(trained("cpu"))
    assert set(weights) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert torch.equal(weights[name], tensor), name
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_evaluation_of_shares_measures_what_the_training_did(trained, cli):
    pytest.importorskip("deepspeed")
    run = trained("deepspeed_stage_3_cpu")
    done = cli("evaluate", run, timeout=600)
    assert done.returncode == 0, done.stderr
    measured = json.loads((run / "evaluation.json").read_text())["metrics"]
    expected = json.loads((run / "summary.json").read_text())["metrics"]
    assert measured["test/acc"] == expected["test/acc"]
    assert measured["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-6)


@pytest.mark.parametrize("sharded", [pytest.param("false", marks=pytest.mark.long), "true"])
def test_fsdp_goes_on_with_another_number_of_devices(trained, tmp_path, sharded, cli):
    """Eleven steps by two processes, the rest by one: the losses of one process all the way."""
    words = [*devices.WORDS, "scheduler=constant", f"trainer.strategy.save_distributed_checkpoint={sharded}"]
    begun = tmp_path / "begun"
    devices.train(begun, *words, "trainer=fsdp_cpu", "trainer.max_steps=11", "test=false")
    done = cli("resume", begun, f"trainer.max_steps={devices.STEPS + 1}", "trainer.devices=1", "test=true", timeout=600)
    assert done.returncode == 0, done.stderr
    assert devices.differences(trained("cpu", "scheduler=constant"), begun)["train/loss"] <= 1e-5


def test_zero_refuses_another_number_of_devices(trained, cli):
    pytest.importorskip("deepspeed")
    done = cli("resume", trained("deepspeed_stage_2_cpu"), "trainer.max_steps=30", "trainer.devices=1", timeout=600)
    assert done.returncode == 6, done.stderr
    assert "written by 2 processes" in done.stderr and "trainer.devices=2" in done.stderr


def test_torchrun_makes_one_run(trained, tmp_path):
    words = [*devices.WORDS, "trainer=ddp_cpu", f"runs_dir={tmp_path}", "name=torchrun"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "train.py")]
    done = subprocess.run([*command, *words], cwd=ROOT, env=devices._environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    (run,) = (tmp_path / "torchrun").iterdir()
    assert json.loads((run / "summary.json").read_text())["devices"] == 2
    assert devices.differences(trained("cpu"), run)["train/loss"] <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["torchrun"]  # what the ranks told one another is gone
    assert done.stdout.count("evaluate  ") == 1  # one of them speaks


@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        ("kill9@step=7:rank=1", "rank 1 died at step", 1),  # row 24
        ("sigstop@step=7:rank=1", "rank 1 silent since step", 1),  # row 25
        ("exception@step=7:rank=1", "rank 1 failed at step 7", 1),
        ("kill9@step=7:rank=0", "rank 0 died at step", -9),
    ],
)
def test_a_rank_that_dies_or_hangs_is_named(tmp_path, fault, words, code):
    run, pause = tmp_path / "run", "callbacks.watchdog.silent_seconds=40"
    command = [sys.executable, str(ROOT / "train.py"), *devices.WORDS, "trainer=ddp_cpu", f"run_dir={run}", pause]
    environment = devices._environment() | {"DLZOO_FAULT": fault}
    with open(tmp_path / "said", "w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        struck = None
        while process.poll() is None or devices._processes(run):
            rows = (run / "metrics.csv").read_text().splitlines() if (run / "metrics.csv").is_file() else []
            if struck is None and (len(rows) >= 7 or process.poll() is not None):
                struck = time.monotonic()
            assert struck is None or time.monotonic() - struck < 60, devices._processes(run)
            time.sleep(0.2)
        said.seek(0)
        text = said.read()
    assert process.returncode == code and words in text, text[-2000:]
    assert not devices._processes(run)


def test_sync_batchnorm_is_for_gpus():
    """Why the network of these tests has no norm: torch has no synchronised batch norm for the CPU."""
    norm = torch.nn.SyncBatchNorm(2)
    with pytest.raises((ValueError, RuntimeError)):
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
        try:
            norm.train()(torch.randn(4, 2))
        finally:
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", [*devices.GPU, *devices.CPU, "mps", "auto", "cpu_fast"])
def test_every_trainer_is_a_config(name):
    """Composed and checked; a strategy of ours is a mapping that builds."""
    config = compose(f"trainer={name}")
    strategy = config.trainer.strategy
    if not isinstance(strategy, str):
        if "deepspeed" in name:
            pytest.importorskip("deepspeed")
        built = zoo.build(dict(strategy))
        assert type(built).__module__.startswith("dlzoo.strategies.")
    assert os.environ.get("DLZOO_RUN_DIR") is None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of small texts, and the words that make experiment=openwebtext_gpt2 fit to it: mapped tokens, accumulation."""
    folder, chance = tmp_path_factory.mktemp("corpus"), random.Random(0)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 7))) for _ in range(200)]
    (folder / "texts").mkdir()
    for number in range(40):
        lines = [" ".join(chance.choices(words, k=8)) for _ in range(40)]
        (folder / "texts" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    return [
        *("experiment=openwebtext_gpt2", "model=gpt_char", "data.vocab_size=400", "data.context=32", "data.learn_from=20000"),
        *(f"data.root={folder}/texts", f"data.token_dir={folder}/tokens", "data.val_fraction=0.1", "data.test_fraction=0.1"),
        *("data.batch_size=4", "trainer.accumulate_grad_batches=3", "task.sample_length=4", "data.epoch_size=null"),
        *("trainer.max_epochs=-1", f"trainer.max_steps={devices.STEPS + 1}", "trainer.log_every_n_steps=1"),
    ]


@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp_cpu", "deepspeed_stage_2_cpu"])
def test_a_language_model_trains_the_same(corpus, tmp_path_factory, trained_language, trainer):
    """The recipe for GPT-2 at tiny size: every loss of two processes is that of one, and so is what is measured at the end."""
    if trainer.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    two = tmp_path_factory.mktemp("runs") / trainer
    devices.train(two, *corpus, f"trainer={trainer}")
    assert json.loads((two / "summary.json").read_text())["devices"] == 2
    found = devices.differences(trained_language, two)
    assert {name: value for name, value in found.items() if name.endswith("loss") and value > 1e-6} == {}, found
    assert found["test/bpc"] <= 1e-5 and found["test/ppl"] <= 1e-3, found


@pytest.fixture(scope="module")
def trained_language(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    devices.train(folder, *corpus, "trainer=cpu")
    losses = devices.column(folder, "train/loss")
    assert losses[-1] < losses[0] - 0.3, "it learns"
    return folder

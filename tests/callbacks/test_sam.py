"""SAM: the paper's formula, whatever else happens to a gradient."""

import copy
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from dlzoo.callbacks.sam import SAM
from dlzoo.errors import ConfigError, NumericalError

RHO = 0.3  # far enough that a step without it is another one


class Task(L.LightningModule):
    def __init__(self, net, optimizer):
        super().__init__()
        self.net, self.make = net, optimizer
        self.calls = 0

    def on_train_epoch_start(self):
        torch.manual_seed(7)  # after the loader has drawn its own

    def training_step(self, batch):
        self.calls += 1
        x, y = batch
        loss = F.cross_entropy(self.net(x).to(self.net[0].weight.dtype), y)
        self.log("seen", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return self.make(self.parameters())


def data(steps, size, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(size, 6, generator=generator, dtype=dtype), torch.randint(3, (size,), generator=generator))
        for _ in range(steps)
    ]


def mlp(*between, dtype=torch.float32):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), *between, nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def unbounded():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))  # far uphill its numbers overflow


def fit(net, optimizer, batches, *, rho=RHO, **options):
    task = Task(net, optimizer)
    options = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "callbacks": [SAM(rho)] if rho else []} | options
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(**options, **quiet)
    trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))
    return task, trainer


def by_hand(net, optimizer, batches, *, accumulate=1, autocast=None, scaler=None, clip=None, rho=RHO):
    """Two passes, written out: torch's own pieces, no Lightning."""
    optimizer = optimizer(net.parameters())
    torch.manual_seed(7)
    for start in range(0, len(batches), accumulate):
        window, randoms = batches[start : start + accumulate], []

        def passed(x, y):
            with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None, cache_enabled=False):
                loss = F.cross_entropy(net(x).to(x.dtype), y) / accumulate
            (scaler.scale(loss) if scaler else loss).backward()

        optimizer.zero_grad()
        for x, y in window:
            randoms.append(torch.get_rng_state())
            passed(x, y)
        after = torch.get_rng_state()
        buffers = [buffer.clone() for buffer in net.buffers()]
        slopes = [p.grad.clone() for p in net.parameters()]
        if scaler:
            slopes = [slope / scaler.get_scale() for slope in slopes]
        norm = torch.stack([slope.norm() for slope in slopes]).norm()
        before = [p.detach().clone() for p in net.parameters()]
        with torch.no_grad():
            for p, slope in zip(net.parameters(), slopes, strict=True):
                p += rho * slope / norm
        optimizer.zero_grad()
        for (x, y), random in zip(window, randoms, strict=True):
            torch.set_rng_state(random)
            passed(x, y)
        torch.set_rng_state(after)
        with torch.no_grad():
            for p, old in zip([*net.parameters(), *net.buffers()], [*before, *buffers], strict=True):
                p.copy_(old)
        if scaler:
            scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()


def same(one, other, rtol=1e-6, atol=1e-7):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def sgd(parameters, **options):
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.9, **options)


def test_it_is_the_papers_formula():
    """Softmax regression in NumPy: the gradient by hand, equation 2, the gradient there, a step with momentum and decay."""
    net = nn.Sequential(nn.Linear(6, 3)).double()
    w, b = net[0].weight.detach().numpy().copy(), net[0].bias.detach().numpy().copy()
    batches = data(6, 10, torch.float64)
    fit(net, lambda p: sgd(p, weight_decay=0.01), batches, precision=64)
    velocity = None
    for x, y in ((x.numpy(), y.numpy()) for x, y in batches):

        def slope(w, b, x=x, y=y):
            logits = x @ w.T + b
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(y)), y] -= 1
            return p.T @ x / len(y), p.mean(0)

        gw, gb = slope(w, b)
        scale = RHO / np.sqrt((gw**2).sum() + (gb**2).sum())
        gw, gb = slope(w + scale * gw, b + scale * gb)
        step = np.concatenate([(gw + 0.01 * w).ravel(), gb + 0.01 * b])
        velocity = step if velocity is None else 0.9 * velocity + step
        w, b = w - 0.2 * velocity[:18].reshape(3, 6), b - 0.2 * velocity[18:]
    np.testing.assert_allclose(net[0].weight.detach().numpy(), w, rtol=1e-11)
    np.testing.assert_allclose(net[0].bias.detach().numpy(), b, rtol=1e-11)


def test_it_changes_what_is_learned():
    plain, sharp = mlp(), mlp()
    fit(plain, sgd, data(4, 10), rho=None)
    task, _ = fit(sharp, sgd, data(4, 10))
    assert (plain[0].weight - sharp[0].weight).abs().max() > 1e-3
    assert task.calls == 8, "two gradients a step"


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_dropout_and_batch_norm(accumulate, clip):
    """The same masks in both passes, the running statistics of the first alone, clipping of the gradient that counts."""
    one = mlp(nn.BatchNorm1d(8), nn.Dropout(0.5))
    other = copy.deepcopy(one)
    fit(one, sgd, data(6, 10), accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    by_hand(other, sgd, data(6, 10), accumulate=accumulate, clip=clip)
    same(one, other)
    assert one[1].num_batches_tracked == 6


def test_accumulation_is_the_large_batch():
    small, large = mlp(dtype=torch.float64), mlp(dtype=torch.float64)
    batches = data(8, 4, torch.float64)
    joined = [tuple(torch.cat(parts) for parts in zip(*batches[i : i + 4], strict=True)) for i in (0, 4)]
    fit(small, sgd, batches, accumulate_grad_batches=4, precision=64)
    fit(large, sgd, joined, precision=64)
    same(small, large, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", [sgd, lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)], ids=["sgd", "fused AdamW"])
def test_bf16_autocast(optimizer):
    one = mlp(nn.BatchNorm1d(8))
    other = copy.deepcopy(one)
    fit(one, optimizer, data(6, 10), precision="bf16-mixed")
    by_hand(other, optimizer, data(6, 10), autocast=torch.bfloat16)
    same(one, other)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_fp16_with_a_scaler(accumulate, fused):
    """Scaled, unscaled and scaled again; a fused optimizer unscales by itself."""
    one = mlp()
    other = copy.deepcopy(one)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2) for _ in range(2)]
    clip = None if fused else 0.5
    plugin = MixedPrecision("16-mixed", "cpu", scalers[0])
    fit(
        one,
        lambda p: sgd(p, fused=fused),
        data(6, 10),
        plugins=[plugin],
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
    )
    by_hand(other, sgd, data(6, 10), autocast=torch.float16, scaler=scalers[1], accumulate=accumulate, clip=clip)
    same(one, other, rtol=1e-3, atol=1e-4)
    assert scalers[0].get_scale() == scalers[1].get_scale() > 1024


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    "scale, rho, passes", [(2.0**40, RHO, 1), (2.0**14, 1e6, 2)], ids=["the first pass", "the second pass"]
)
def test_an_overflow_skips_the_step(scale, rho, passes, fused):
    net = unbounded()
    before = copy.deepcopy(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    task, _ = fit(net, lambda p: sgd(p, fused=fused), data(1, 10), rho=rho, plugins=[plugin])
    same(net, before, rtol=0, atol=0)
    assert scaler.get_scale() == scale / 2 and task.calls == passes


def test_without_a_scaler_an_overflow_stops_before_the_update():
    net = unbounded()
    before = copy.deepcopy(net)
    with pytest.raises(NumericalError, match="neighbouring weights"):
        fit(net, sgd, data(1, 10), rho=1e30)
    same(net, before, rtol=0, atol=0)


def test_a_stop_in_the_second_pass_leaves_the_weights_where_they_were():
    net = mlp(nn.BatchNorm1d(8))
    seen = []

    def stop(module, inputs):
        seen.append(module.weight.detach().clone())
        if len(seen) == 4:
            raise RuntimeError("stop")

    net[0].register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="stop"):
        fit(net, sgd, data(3, 10))
    assert not torch.equal(seen[3], seen[2]), "it stopped uphill"
    assert torch.equal(net[0].weight, seen[2]) and net[1].num_batches_tracked == 2


def test_the_second_pass_logs_nothing():
    net, batches = mlp(), data(3, 10)
    task, trainer = fit(net, lambda p: torch.optim.SGD(p, lr=0.0), batches)
    with torch.no_grad():
        losses = [F.cross_entropy(net(x), y).item() for x, y in batches]
    assert trainer.callback_metrics["seen"].item() == pytest.approx(np.mean(losses), rel=1e-6)
    assert task.calls == 6 and "log" not in vars(task)


@pytest.mark.parametrize("strategy", [DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy])
def test_sharded_gradients_are_refused(strategy):
    trainer = SimpleNamespace(strategy=object.__new__(strategy))
    with pytest.raises(ConfigError, match="shards"):
        SAM().setup(trainer, SimpleNamespace(automatic_optimization=True), "fit")


def test_a_radius_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rho"):
        SAM(rho=0)


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_are_one(tmp_path):
    """DDP over gloo, with accumulation: the gradient is averaged before the step uphill and after it."""
    script = tmp_path / "ddp.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import torch
            sys.path.insert(0, sys.argv[1])
            from test_sam import data, fit, mlp, sgd
            batches = data(8, 8, torch.float64)
            world = int(sys.argv[2])
            rank = int(__import__("os").environ.get("LOCAL_RANK", 0))
            share = 8 // world
            mine = [(x[rank * share : (rank + 1) * share], y[rank * share : (rank + 1) * share]) for x, y in batches]
            net = mlp(dtype=torch.float64)
            options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False} if world == 2 else {}
            fit(net, sgd, mine, accumulate_grad_batches=2, precision=64, gradient_clip_val=0.5, **options)
            torch.save(net.state_dict(), f"{sys.argv[3]}/{world}-{rank}.pt")
            """
        )
    )
    here = os.path.dirname(__file__)
    for world in (1, 2):
        done = subprocess.run(
            [sys.executable, str(script), here, str(world), str(tmp_path)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    one, two, other = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=1e-12, atol=1e-13)
        assert torch.equal(two[name], other[name])

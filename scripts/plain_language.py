"""Language models of tiny Shakespeare in plain PyTorch loops, to hold the experiments of the same names against.

    python scripts/plain_language.py gpt --seed 0 --out plain.json     # beside train.py experiment=shakespeare_gpt
    python scripts/plain_language.py lstm --seed 0                     # beside train.py experiment=shakespeare_lstm

`gpt` is what nanoGPT's README and files describe for a CPU, written anew: the network with torch's fused attention, windows
drawn at random, AdamW with its two groups, a warm-up of 100 steps, half a cosine to a tenth of the rate, the norm of the
gradient cut at 1, all in fp32; 2,000 steps of 12 windows of 64 characters. `lstm` is `nn.LSTM`, two layers of 128, the way one
would train it: windows at random, AdamW and half a cosine, as many steps as the experiment takes. Both are tested as dlzoo's
runs are, on every character of the last tenth of the text once.

CPU seconds are those of the training loop alone. Borrowed from dlzoo are the text and its windows of the test.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.datamodules.tiny_shakespeare import TinyShakespeare
from dlzoo.rundir import environment

VOCABULARY, CONTEXT = 65, 64


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: rate at its highest, steps of warm-up, the last rate as a share, decay, momenta."""

    steps: int
    batch_size: int
    lr: float
    warmup: int
    final: float
    weight_decay: float
    betas: tuple[float, float]

    def rate(self, step: int) -> float:
        """Of the highest, at a step that begins with 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        part = (step - self.warmup) / (self.steps - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * part))


class PlainBlock(nn.Module):
    """A block of GPT-2 without biases, with torch's fused attention: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainGPT(nn.Module):
    """nanoGPT's network at its size for a CPU: (B, T) -> (B, T, V)."""

    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(PlainBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                last = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if last else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


class PlainLSTM(nn.Module):
    """`nn.LSTM` between an embedding and a linear map, all as torch begins them: (B, T) -> (B, T, V)."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(x))[0])


RECIPES: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "gpt": (PlainGPT, Recipe(2000, 12, 1e-3, 100, 0.1, 0.1, (0.9, 0.99))),
    "lstm": (PlainLSTM, Recipe(4900, 32, 4e-3, 245, 0.0, 0.01, (0.9, 0.999))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="language models of tiny Shakespeare in plain PyTorch loops")
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer than the recipe's, to try it")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    args = parser.parse_args()
    build, recipe = RECIPES[args.network]
    if args.steps:
        recipe = Recipe(args.steps, **{name: value for name, value in vars(recipe).items() if name != "steps"})
    result = train(build, recipe, args.seed) | {"network": args.network, "seed": args.seed, "machine": environment()}
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def train(build: Callable[[], nn.Module], recipe: Recipe, seed: int) -> dict:
    """One training on the first nine tenths; the loss on the last, with what it took."""
    torch.manual_seed(seed)
    data = TinyShakespeare(os.environ.get("DLZOO_DATA", "data"), context=CONTEXT, val_fraction=0)
    text = data.splits.train.long()
    net = build()
    weights = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in net.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    started, cpu_started = time.perf_counter(), time.process_time()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * recipe.rate(step)
        at = torch.randint(len(text) - CONTEXT, (recipe.batch_size,)).tolist()
        x = torch.stack([text[i : i + CONTEXT] for i in at])
        y = torch.stack([text[i + 1 : i + 1 + CONTEXT] for i in at])
        loss = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if not step % 200:
            print(f"step {step}  train/loss {loss.item():.4f}", flush=True)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return {
        "test_loss": evaluate(net, data),
        "training_seconds": round(seconds, 2),
        "training_cpu_seconds": round(cpu_seconds, 2),
        "steps": recipe.steps,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
    }


@torch.no_grad()
def evaluate(net: nn.Module, data: TinyShakespeare) -> float:
    """The mean loss over every character of the test split."""
    net.eval()
    total = count = 0.0
    for x, y in data.test_dataloader():
        losses = F.cross_entropy(net(x).flatten(0, 1), y.flatten(), ignore_index=-100, reduction="none")
        total, count = total + losses.double().sum().item(), count + (y != -100).sum().item()
    return total / count


if __name__ == "__main__":
    main()

"""ResNet-20 on CIFAR-10 in a plain PyTorch loop, to hold `train.py experiment=cifar10_resnet trainer=cpu_fast` against.

    python scripts/plain_loop.py --epochs 6 --seed 0 --out plain.json

The same network, first weights, images, order, augmentation, optimizer, schedule and precision, and no framework: no Lightning,
no Hydra, none of dlzoo's tasks, callbacks or runs. Accuracy must agree within the spread of seeds, speed within a few percent.
What it borrows from dlzoo is the network, the loaders of Cifar10 (plain iterables of batches; a DataLoader would make the
comparison one of input pipelines), the schedules, and the description of the machine.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dlzoo
from dlzoo.datamodules.cifar import Cifar10
from dlzoo.optim import schedules
from dlzoo.rundir import environment


def main() -> None:
    parser = argparse.ArgumentParser(description="ResNet-20 on CIFAR-10 in a plain PyTorch loop")
    parser.add_argument("--epochs", type=int, default=182)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch; its own choice if left out")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--schedule", choices=schedules.__all__, default="multistep")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    result = train(args)
    print(json.dumps({key: value for key, value in result.items() if key != "machine"}, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def train(args: argparse.Namespace) -> dict:
    """One training; the result with what it took."""
    torch.manual_seed(args.seed)  # before anything is built: the first weights are those of dlzoo's run with this seed
    data = Cifar10(os.environ.get("DLZOO_DATA", "data"), batch_size=128, seed=args.seed, channels_last=True)
    batches, validation, test = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    net = dlzoo.create_model("resnet20").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=args.weight_decay, fused=True)
    schedule = getattr(schedules, args.schedule)(optimizer, total_steps=args.epochs * len(batches))
    half = args.precision == "bf16"
    seconds, cpu_seconds, samples, best, best_weights = 0.0, 0.0, 0, -1.0, {}
    for epoch in range(args.epochs):
        started, cpu_started = time.perf_counter(), time.process_time()
        batches.sampler.set_epoch(epoch)
        net.train()
        total = torch.zeros(())
        for x, y in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = F.cross_entropy(net(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
            samples += len(y)
        seconds += time.perf_counter() - started
        cpu_seconds += time.process_time() - cpu_started
        accuracy = evaluate(net, validation, half)
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(net.state_dict())
        loss = total.item() / len(batches)
        print(f"epoch {epoch + 1}/{args.epochs}  train/loss {loss:.4f}  val/acc {accuracy:.4f}  {seconds:.1f} s", flush=True)
    last_test = evaluate(net, test, half)
    net.load_state_dict(best_weights)
    return {
        "test_acc_best": evaluate(net, test, half),  # of the weights with the best validation accuracy, as dlzoo reports it
        "test_acc_last": last_test,
        "val_acc_best": best,
        "train_loss_last": loss,
        "training_seconds": round(seconds, 2),
        "training_cpu_seconds": round(cpu_seconds, 2),
        "samples_per_second": round(samples / seconds, 1),
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        "edition": data.edition,
        "machine": environment(),  # with the commit
    }


@torch.no_grad()
def evaluate(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], half: bool) -> float:
    """Share of right answers."""
    net.eval()
    right = count = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        for x, y in batches:
            right += (net(x).argmax(1) == y).sum().item()
            count += len(y)
    return right / count


if __name__ == "__main__":
    main()

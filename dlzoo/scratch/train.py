"""Trains a network of NumPy alone, and prints how it goes.

    python -m dlzoo.scratch.train                      a small CNN on 8x8 handwritten digits, in seconds
    python -m dlzoo.scratch.train mnist --epochs 2     MNIST, from the folder that DLZOO_DATA names
    python -m dlzoo.scratch.train --model mlp --optimizer rmsprop

The data are scikit-learn's, or MNIST's four files; nothing else here is from anywhere else.
"""

import argparse
import gzip
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlzoo.scratch.activations import ReLU
from dlzoo.scratch.convolution import Conv2d
from dlzoo.scratch.dense import Dense, Flatten
from dlzoo.scratch.layer import Layer, Sequential
from dlzoo.scratch.losses import SoftmaxCrossEntropy
from dlzoo.scratch.optimizers import SGD, Adam, Momentum, RMSprop
from dlzoo.scratch.pooling import AvgPool2d, MaxPool2d
from dlzoo.scratch.regularisers import BatchNorm, Dropout

__all__ = ["Data", "accuracy", "batches", "cnn", "digits", "main", "mlp", "mnist", "step"]

OPTIMIZERS = {"sgd": (SGD, 0.1), "momentum": (Momentum, 0.05), "rmsprop": (RMSprop, 1e-3), "adam": (Adam, 2e-3)}


class Data(NamedTuple):
    """Images (N, 1, H, W), about -1 to 1, and labels (N,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def mlp(side: int, rng: np.random.Generator, width: int = 64, dropout: float = 0.0) -> Sequential:
    """Two hidden layers, for images of `side` pixels squared."""
    hidden = [Dense(side * side, width, rng), ReLU(), Dropout(dropout, rng), Dense(width, width, rng), ReLU()]
    return Sequential(Flatten(), *hidden, Dense(width, 10, rng))


def cnn(side: int, rng: np.random.Generator, width: int = 8) -> Sequential:
    """Two convolutions with batch norm, each followed by pooling to half the size; a dense layer reads the rest."""
    first = [Conv2d(1, width, 3, rng, padding=1), BatchNorm(width), ReLU(), MaxPool2d(2)]
    second = [Conv2d(width, 2 * width, 3, rng, padding=1), BatchNorm(2 * width), ReLU(), AvgPool2d(2)]
    return Sequential(*first, *second, Flatten(), Dense(2 * width * (side // 4) ** 2, 10, rng))


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The indices of an epoch's batches, in random order; what is left over at the end waits for another epoch."""
    order = rng.permutation(count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def step(network: Layer, loss: SoftmaxCrossEntropy, optimizer: SGD, images: np.ndarray, labels: np.ndarray) -> float:
    """All that learning is: forward, the loss, backward, and a step downhill. Returns the loss."""
    network.train()
    value = loss.forward(network.forward(images), labels)
    network.backward(loss.backward())
    optimizer.step()
    return value


def accuracy(network: Layer, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of the images whose label the network finds."""
    network.train(False)
    found = [network.forward(images[start : start + 500]).argmax(axis=1) for start in range(0, len(images), 500)]
    return float((np.concatenate(found) == labels).mean())


def digits() -> Data:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, a fifth of them to test."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order].reshape(-1, 1, 8, 8) / 8 - 1, labels[order]
    return Data(images[:1437], labels[:1437], images[1437:], labels[1437:])


def mnist(folder: Path) -> Data:
    """MNIST's 60,000 + 10,000 digits of 28x28 pixels: the four files as they are published."""

    def read(name: str, head: int) -> np.ndarray:
        with gzip.open(folder / f"{name}.gz") as file:  # a few numbers that say how large it is, then the bytes
            return np.frombuffer(file.read(), np.uint8, offset=head)

    images = [read(f"{split}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28) / 127.5 - 1 for split in ("train", "t10k")]
    labels = [read(f"{split}-labels-idx1-ubyte", 8).astype(np.int64) for split in ("train", "t10k")]
    return Data(images[0], labels[0], images[1], labels[1])


def main(arguments: list[str] | None = None) -> float:
    """The command; returns the test accuracy."""
    parser = argparse.ArgumentParser(prog="python -m dlzoo.scratch.train", description="A network of NumPy alone.")
    parser.add_argument("data", nargs="?", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--model", choices=["cnn", "mlp"], default="cnn")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam")
    parser.add_argument("--lr", type=float, help="another rate than the optimizer's usual one")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size are at least 1")
    folder = Path(os.environ.get("DLZOO_DATA", "data")) / "mnist"
    if args.data == "mnist" and not folder.is_dir():
        parser.error(f"there is no folder {folder}: set DLZOO_DATA, or run `python train.py experiment=mnist_resnet` once")
    data = digits() if args.data == "digits" else mnist(folder)
    rng = np.random.default_rng(args.seed)
    network = (cnn if args.model == "cnn" else mlp)(data.train_images.shape[-1], rng)
    made, usual = OPTIMIZERS[args.optimizer]
    optimizer, loss = made(network.parameters(), lr=args.lr or usual), SoftmaxCrossEntropy()
    print(f"{args.model} on {args.data}: {sum(p.value.size for p in network.parameters()):,} parameters, {args.optimizer}")
    tested = 0.0
    for epoch in range(1, args.epochs + 1):
        started = time.perf_counter()
        chosen = batches(len(data.train_labels), args.batch_size, rng)
        losses = [step(network, loss, optimizer, data.train_images[index], data.train_labels[index]) for index in chosen]
        tested = accuracy(network, data.test_images, data.test_labels)
        took = time.perf_counter() - started
        print(f"epoch {epoch}/{args.epochs}  train/loss {np.mean(losses):.4f}  test/acc {tested:.4f}  {took:.1f} s", flush=True)
    return tested


if __name__ == "__main__":
    main()

"""Writes with exported files alone: numpy and onnxruntime, no torch. The example of how such files are used.

    python -m dlzoo.export.play RUN/export "ROMEO:" --tokens 200      goes on, with a language model
    python -m dlzoo.export.play RUN/export "Ein Hund schläft."         translates, with a translator

This file imports nothing of dlzoo, so that it can be copied beside the .onnx files.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__all__ = ["LanguageModel", "Tokens", "Translator"]

Pick = Callable[[np.ndarray], int]


def best(logits: np.ndarray) -> int:
    """The likeliest token."""
    return int(logits.argmax())


def drawn(temperature: float, seed: int) -> Pick:
    """A token as likely as its logits say, divided by the temperature."""
    random = np.random.default_rng(seed)

    def pick(logits: np.ndarray) -> int:
        shares = np.exp((logits - logits.max()).astype(np.float64) / temperature)
        return int(random.choice(len(shares), p=shares / shares.sum()))

    return pick


class LanguageModel:
    """step.onnx of a language model, or model.onnx of one that keeps nothing.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: str | Path) -> None:
        steps = (Path(folder) / "step.onnx").is_file()
        self.session = _session(Path(folder) / ("step.onnx" if steps else "model.onnx"))
        stored = self.session.get_modelmeta().custom_metadata_map
        self.context = json.loads(stored["context"])  # tokens that the network can see at once; None: no end
        self.tokens = Tokens(json.loads(stored["tokenizer"]))
        self.kept = {put.name: put for put in self.session.get_inputs() if put.name != "tokens"}

    def start(self) -> dict[str, np.ndarray]:
        """What the network remembers of nothing: keys and values of no token, or a state of zeros."""
        sizes = {"batch": 1, "past": 0}
        return {
            name: np.zeros([sizes.get(size, size) for size in put.shape], dtype=np.float32) for name, put in self.kept.items()
        }

    def read(self, tokens: Sequence[int], memory: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Tokens that follow what is remembered -> logits of the next one, (V,), and the memory with them."""
        logits, *kept = self.session.run(None, {"tokens": np.array([tokens], dtype=np.int64), **memory})
        return logits[0, -1], dict(zip(self.kept, kept, strict=True))

    def write(self, prompt: Sequence[int], count: int, pick: Pick = best) -> Iterator[int]:
        """The tokens that follow, one by one.

        A network that can see a number of tokens at once, the context, reads a window of the text. When that is full, it
        begins anew with its last half.
        """
        text, start = list(prompt), 0
        while self.context and len(text) - start > self.context:
            start += self.context + 1 - max(self.context // 2, 1)
        logits, memory = self.read(text[start:], self.start())
        for left in reversed(range(count)):
            token = pick(logits)
            yield token
            text.append(token)
            if not left:
                return
            if self.context and len(text) - start > self.context:
                start += self.context + 1 - max(self.context // 2, 1)
                logits, memory = self.read(text[start:], self.start())
            elif self.kept:
                logits, memory = self.read([token], memory)
            else:
                logits, memory = self.read(text[start:], memory)


class Translator:
    """encoder.onnx and step.onnx.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: str | Path) -> None:
        self.encoder, self.step = (_session(Path(folder) / f"{name}.onnx") for name in ("encoder", "step"))
        stored = self.step.get_modelmeta().custom_metadata_map
        self.begin, self.end = (json.loads(stored[name]) for name in ("begin", "end"))
        self.specials = json.loads(stored.get("specials", "0"))  # tokens below those of the text
        self.source, self.target = (Tokens(json.loads(stored[f"{name}_tokenizer"])) for name in ("source", "target"))
        self.names = [put.name for put in self.encoder.get_outputs()]
        self.taken = {put.name for put in self.step.get_inputs()}
        self.changed = [put.name.removeprefix("next_") for put in self.step.get_outputs()[1:]]

    def write(self, source: np.ndarray, count: int) -> list[list[int]]:
        """The likeliest token each time: source tokens (B, S), padded -> those of each translation, its end among them."""
        state = dict(zip(self.names, self.encoder.run(None, {"source": source}), strict=True))
        token = np.full(len(source), self.begin, dtype=np.int64)
        written: list[list[int]] = [[] for _ in source]
        for _ in range(count):
            given = {name: value for name, value in {"token": token, **state}.items() if name in self.taken}
            logits, *new = self.step.run(None, given)
            state |= dict(zip(self.changed, new, strict=True))
            token = logits.argmax(1)
            for row, next_one in zip(written, token.tolist(), strict=True):
                if not row or row[-1] != self.end:
                    row.append(next_one)
            if all(row[-1] == self.end for row in written):
                break
        return written

    def translate(self, sentence: str, count: int = 100) -> str:
        """One sentence."""
        read = [token + self.specials for token in self.source.encode(f" {sentence.strip()}")]
        (written,) = self.write(np.array([[*read, self.end]], dtype=np.int64), count)
        return self.target.decode([token - self.specials for token in written if token >= self.specials]).strip()


class Tokens:
    """From text to tokens and back, by the tokenizer that the file holds.

    Args:
        stored: its JSON: one token a character of an alphabet, or byte pairs and the order in which they are merged.
    """

    def __init__(self, stored: dict[str, Any]) -> None:
        self.alphabet = stored.get("alphabet")
        if self.alphabet is not None:
            self.pieces = [letter.encode() for letter in self.alphabet] + [b"\xef\xbf\xbd"] * stored["unknown"]
            return
        self.pattern = re.compile(stored["pattern"])
        self.pieces = [bytes([byte]) for byte in stored["bytes"]]
        self.ranks: dict[tuple[bytes, bytes], int] = {}
        for rank, (one, other) in enumerate(stored["merges"]):
            pair = self.pieces[one], self.pieces[other]
            self.ranks.setdefault(pair, rank)
            if b"".join(pair) not in self.pieces:
                self.pieces.append(b"".join(pair))

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        if self.alphabet is not None:
            return [self.alphabet.index(letter) if letter in self.alphabet else len(self.alphabet) for letter in text]
        index = {piece: token for token, piece in enumerate(self.pieces)}
        return [index[piece] for word in self.pattern.findall(text) for piece in self._merged(word.encode())]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some tokens."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")

    def _merged(self, word: bytes) -> list[bytes]:
        """The pair that was learned first is merged first, again and again."""
        parts = [bytes([byte]) for byte in word]
        while len(parts) > 1:
            ranks = [self.ranks.get(pair, len(self.ranks)) for pair in itertools.pairwise(parts)]
            if min(ranks) == len(self.ranks):
                break
            at = ranks.index(min(ranks))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Writes on from a prompt, or translates it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="where the .onnx files lie")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="to write (200)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="X", help="0 takes the likeliest; for language models (0)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (0)")
    args = parser.parse_args()
    if (Path(args.folder) / "encoder.onnx").is_file():
        sys.stdout.write(Translator(args.folder).translate(args.prompt, args.tokens) + "\n")
        return
    model = LanguageModel(args.folder)
    pick = drawn(args.temperature, args.seed) if args.temperature else best
    new = list(model.write(model.tokens.encode(args.prompt), args.tokens, pick))
    sys.stdout.write(args.prompt + model.tokens.decode(new) + "\n")


if __name__ == "__main__":
    main()

"""Writing on: a network reads a text, one token is chosen of what it holds likely, the token is read, and so on.

Prompts of unequal length are written on together, and each row is answered as if it were alone: it has random numbers of its
own, and leaves when its text has ended. How a network reads (again from the start, or on from what it kept) is not known here;
that is a `Reader`, and what is written does not depend on which one it is.

A network that sees no more than its context reads a window. The window begins with the text; as soon as it would be longer than
the context it begins anew, with the last half of it. Where it begins is a function of the text's length alone, so that a text
written in two parts is the one written at once. Compared with a window that moves by one token each time, as nanoGPT has it,
nearly all tokens cost one step and not a whole window.

Source: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751, for what `Choice` does; Radford et al. 2019, section 2.3, has no
    word on texts that are longer than the context.
Differs from it: nothing.

Shapes: B rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlzoo.ops.next_token import draw, repetition_penalty, temperature, top_k, top_p

__all__ = ["GREEDY", "Choice", "Reader", "choose", "generate", "window_start"]


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen of the logits.

    Args:
        temperature: sharper below 1, flatter above; 0 takes the best.
        top_k: only the k best may follow; None for all.
        top_p: only the fewest that hold this share of the probability may follow.
        repetition_penalty: above 1, tokens of the text so far are less likely.

    Raises:
        ValueError: a value that is none of these.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty must be above 0, got {self.repetition_penalty}")


GREEDY = Choice(temperature=0.0)


class Reader(Protocol):
    """A network and what it has read.

    Args:
        context: tokens that it can see at once; None for no end.
    """

    context: int | None

    def begin(self, windows: list[list[int]], room: int) -> Tensor:
        """Reads anew, and forgets what it knew: texts of any lengths -> logits (B, V) of what follows each.

        `room`: so many tokens may follow.
        """

    def go_on(self, tokens: Tensor) -> Tensor:
        """Reads one more token of each row, (B,), -> logits (B, V) of what follows."""

    def select(self, rows: Tensor) -> None:
        """Goes on with these rows alone, (N,)."""


def window_start(length: int, context: int | None) -> int:
    """The first token of a text that is still read. See the head of this file.

    Args:
        length: tokens of the text.
        context: tokens that the network can see at once; None for no end.

    Raises:
        ValueError: context is below 1.
    """
    if context is None:
        return 0
    if context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    step = context + 1 - max(context // 2, 1)  # from a window one too long to one of half the length
    return step * -(-max(length - context, 0) // step)


def choose(
    logits: Tensor,
    choice: Choice = GREEDY,
    generators: Sequence[torch.Generator | None] | None = None,
    said: Tensor | None = None,
) -> Tensor:
    """The next token of each row.

    Args:
        logits: (B, V).
        choice: see there.
        generators: one of each row; None draws from torch's own.
        said: (B, V), True for the tokens that were there already; needed for the repetition penalty alone.

    Shape:
        (B, V) -> (B,).
    """
    if said is not None and choice.repetition_penalty != 1:
        every = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
        logits = repetition_penalty(logits, every, choice.repetition_penalty, said)
    if choice.temperature == 0:
        return logits.argmax(-1)
    if choice.temperature != 1:
        logits = temperature(logits, choice.temperature)
    if choice.top_k is not None:
        logits = top_k(logits, choice.top_k)
    if choice.top_p < 1:
        logits = top_p(logits, choice.top_p)
    logits = logits.cpu()  # the same draws on every device
    return torch.cat([draw(row[None], generators[at] if generators else None) for at, row in enumerate(logits)])


@torch.inference_mode()
def generate(
    reader: Reader,
    prompts: Sequence[Sequence[int]],
    count: int,
    choice: Choice = GREEDY,
    generators: Sequence[torch.Generator] | None = None,
    told: Callable[[int, int], bool] | None = None,
) -> list[list[int]]:
    """Writes on, all prompts at once.

    Args:
        reader: the network.
        prompts: tokens of each row, one at least.
        count: new tokens of each row, at most.
        choice: of the next token.
        generators: random numbers of each row; None draws from torch's own.
        told: is called with each row's number and new token as soon as it is chosen; True ends the row. The last token counts.

    Returns:
        the new tokens of each row.

    Raises:
        ValueError: no prompt, or an empty one; count is below 1; generators of another number than the prompts.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError(f"every prompt must have a token, got lengths {[len(prompt) for prompt in prompts]}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if generators is not None and len(generators) != len(prompts):
        raise ValueError(f"there must be one generator a prompt, {len(prompts)}, got {len(generators)}")
    texts, rows = [list(prompt) for prompt in prompts], list(range(len(prompts)))
    starts = [window_start(len(text), reader.context) for text in texts]
    logits = reader.begin([text[start:] for text, start in zip(texts, starts, strict=True)], count)
    said = _said(texts, logits) if choice.repetition_penalty != 1 else None
    for left in reversed(range(count)):
        tokens = choose(logits, choice, [generators[row] for row in rows] if generators else None, said)
        going = []
        for at, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            texts[row].append(token)
            if not (told and told(row, token)):
                going.append(at)
        if not (left and going):
            break
        tokens = tokens.to(logits.device)
        if said is not None:
            said[torch.arange(len(rows), device=logits.device), tokens] = True
        if len(going) < len(rows):
            index = torch.tensor(going, device=logits.device)
            rows, starts, tokens = [rows[at] for at in going], [starts[at] for at in going], tokens[index]
            said = None if said is None else said[index]
            reader.select(index)
        before, starts = starts, [window_start(len(texts[row]), reader.context) for row in rows]
        if starts == before:
            logits = reader.go_on(tokens)
        else:  # a window begins anew; the others are read again with it, which changes nothing for them
            logits = reader.begin([texts[row][start:] for row, start in zip(rows, starts, strict=True)], left)
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


def _said(texts: list[list[int]], logits: Tensor) -> Tensor:
    """Which tokens are in each text: (B, V)."""
    said = torch.zeros_like(logits, dtype=torch.bool)
    for row, text in enumerate(texts):
        said[row, torch.tensor(text, device=logits.device)] = True
    return said

"""The loop that writes on, and the rule for what is longer than the context, with readers that only count."""

import pytest
import torch

from dlzoo.ops.generation import GREEDY, Choice, choose, generate, window_start


class Counting:
    """Holds the number after the last one for sure; notes what it is asked."""

    def __init__(self, context: int | None = None) -> None:
        self.context, self.asked = context, []

    def _answer(self, tokens: list[int]) -> torch.Tensor:
        return torch.nn.functional.one_hot((torch.tensor(tokens) + 1) % 50, 50).float()

    def begin(self, windows, room):
        self.asked.append(([list(window) for window in windows], room))
        return self._answer([window[-1] for window in windows])

    def go_on(self, tokens):
        self.asked.append(tokens.tolist())
        return self._answer(tokens.tolist())

    def select(self, rows):
        self.asked.append(("rows", rows.tolist()))


@pytest.mark.parametrize("context", [1, 2, 5, 8, 64])
def test_a_window_begins_anew_with_the_last_half_when_it_would_be_too_long(context):
    start = 0
    for length in range(1, 4 * context + 3):
        if length - start > context:
            start = length - max(context // 2, 1)
        assert window_start(length, context) == start
    assert window_start(10**6, None) == 0


def test_what_is_read_at_each_step():
    reader = Counting(context=4)
    assert generate(reader, [[1, 2, 3], [7]], 5) == [[4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]
    assert reader.asked == [
        ([[1, 2, 3], [7]], 5),
        [4, 8],
        ([[4, 5], [7, 8, 9]], 3),
        [6, 10],
        ([[4, 5, 6, 7], [10, 11]], 1),
    ]


def test_rows_that_end_leave():
    reader, told = Counting(), []
    texts = generate(reader, [[0], [10], [20]], 4, told=lambda row, token: told.append((row, token)) or token in (11, 2, 22))
    assert texts == [[1, 2], [11], [21, 22]]
    assert told == [(0, 1), (1, 11), (2, 21), (0, 2), (2, 22)]
    assert reader.asked == [([[0], [10], [20]], 4), ("rows", [0, 2]), [1, 21]]


def test_choices():
    logits = torch.tensor([[0.0, 3.0, 2.0, 2.9]]).expand(2000, -1)
    assert choose(logits).unique().tolist() == [1]
    draws = {
        name: choose(logits, choice) for name, choice in (("k", Choice(top_k=2)), ("p", Choice(top_p=0.8)), ("all", Choice()))
    }
    assert {name: drawn.unique().tolist() for name, drawn in draws.items()} == {"k": [1, 3], "p": [1, 3], "all": [0, 1, 2, 3]}
    cold, hot = ((choose(logits, Choice(value)) == 1).float().mean() for value in (0.1, 3.0))
    shares = torch.softmax(logits[0] / 0.1, 0)[1], torch.softmax(logits[0] / 3, 0)[1]
    torch.testing.assert_close((cold, hot), shares, atol=0.05, rtol=0)


def test_each_row_draws_from_its_own():
    logits = torch.zeros(3, 1000)
    rows = [
        choose(logits, Choice(), [torch.Generator().manual_seed(seed) for seed in seeds]).tolist()
        for seeds in ((1, 2, 1), (2, 9, 1))
    ]
    assert rows[0][0] == rows[0][2] == rows[1][2] and rows[0][1] == rows[1][0] != rows[0][0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be at least 0, got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, got 0.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_choices_that_can_not_be(words, message):
    with pytest.raises(ValueError, match=message):
        Choice(**words)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(Counting(), [], 1), "every prompt must have a token"),
        (lambda: generate(Counting(), [[1], []], 1), r"every prompt must have a token, got lengths \[1, 0\]"),
        (lambda: generate(Counting(), [[1]], 0), "count must be at least 1, got 0"),
        (lambda: generate(Counting(), [[1], [2]], 1, GREEDY, [torch.Generator()]), "one generator a prompt, 2, got 1"),
        (lambda: window_start(3, 0), "context must be at least 1, got 0"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()

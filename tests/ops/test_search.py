"""Search over sequences, against trying every one of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dlzoo.ops.search import Found, beam_search, greedy_search, length_penalty, select, write

VOCABULARY, END, LENGTH = 4, 3, 4
EVERYTHING = VOCABULARY * (VOCABULARY - 1) ** (LENGTH - 1)  # as many as there are of the longest: nothing is left out


class Language:
    """What comes next depends on all that came before, and an end grows likelier: a recurrent network of random weights."""

    def __init__(self, vocabulary: int = VOCABULARY, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(rows, columns):
            return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

        self.words, self.mix, self.head = draw(vocabulary, 5), draw(5, 5), 1.5 * draw(5, vocabulary)
        self.calls = []

    def start(self, rows: int) -> tuple[Tensor, tuple[Tensor]]:
        generator = torch.Generator().manual_seed(9)
        return torch.randn(rows, 5, generator=generator, dtype=torch.float64), (torch.zeros(rows, dtype=torch.float64),)

    def step(self, tokens: Tensor, state: tuple[Tensor, tuple[Tensor]]) -> tuple[Tensor, tuple[Tensor, tuple[Tensor]]]:
        self.calls.append(len(tokens))
        memory, (age,) = state
        memory = torch.tanh(memory @ self.mix + self.words[tokens])
        logits = memory @ self.head
        logits[:, END] += 0.4 * age
        return logits, (memory, (age + 1,))

    def log_probability(self, row: int, rows: int, first: int, sequence: tuple[int, ...]) -> float:
        """Of one sequence, in NumPy and one token after the other."""
        memory, total, last = self.start(rows)[0][row].numpy(), 0.0, first
        for age, token in enumerate(sequence):
            memory = np.tanh(memory @ self.mix.numpy() + self.words.numpy()[last])
            logits = memory @ self.head.numpy()
            logits[END] += 0.4 * age
            total += logits[token] - math.log(np.exp(logits).sum())
            last = token
        return total


def everything(language: Language, row: int, rows: int, first: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every sequence that ends, or is cut off at the largest length, with its score; the best first."""
    found = []
    for length in range(1, LENGTH + 1):
        for sequence in itertools.product(range(VOCABULARY), repeat=length):
            ends_before = END in sequence[:-1]
            if not ends_before and (sequence[-1] == END or length == LENGTH):
                score = language.log_probability(row, rows, first, sequence) / ((5 + length) / 6) ** alpha
                found.append((score, sequence))
    return sorted(found, reverse=True)


def sequences(found: Found, row: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[:length]) for tokens, length in zip(found.tokens[row].tolist(), found.lengths[row], strict=True)]


def assert_equal(one: Found, two: Found) -> None:
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.lengths, two.lengths)
    torch.testing.assert_close(one.scores, two.scores, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_is_exhaustive_search(alpha):
    language, first = Language(seed=9), torch.tensor([0, 1, 2])
    found = beam_search(language.step, language.start(3), first, END, LENGTH, EVERYTHING, alpha)
    for row in range(3):
        expected = everything(language, row, 3, first[row].item(), alpha)
        assert sequences(found, row) == [sequence for _, sequence in expected[:EVERYTHING]]
        np.testing.assert_allclose(found.scores[row].numpy(), [score for score, _ in expected[:EVERYTHING]], rtol=1e-12)


def test_what_alpha_prefers():
    """It does change what is best, here; otherwise the test above would say little."""
    language = Language(seed=9)
    best = [{everything(language, row, 3, row, alpha)[0][1] for alpha in (0.0, 0.6, 2.0)} for row in range(3)]
    assert list(map(len, best)) == [1, 2, 2]
    assert length_penalty(1, 0.6) == 1 and length_penalty(7, 1.0) == 2 and length_penalty(50, 0.0) == 1


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_greedy_search(seed):
    language, first = Language(8, seed), torch.arange(8) % 3
    greedy = greedy_search(language.step, language.start(8), first, END, 12)
    assert_equal(beam_search(language.step, language.start(8), first, END, 12, beams=1, alpha=0.0), greedy)
    assert greedy.lengths.unique().numel() > 2, "sequences of several lengths"


def test_greedy_takes_the_likeliest_each_time():
    language, first = Language(8), torch.arange(8) % 3
    found = greedy_search(language.step, language.start(8), first, END, 12)
    for row in range(8):
        expected: list[int] = []
        while len(expected) < 12 and (not expected or expected[-1] != END):
            tried = [language.log_probability(row, 8, first[row].item(), (*expected, token)) for token in range(8)]
            expected.append(int(np.argmax(tried)))
        assert sequences(found, row) == [tuple(expected)]
        assert found.scores[row].item() == pytest.approx(max(tried), rel=1e-12)
        assert (found.tokens[row, 0, len(expected) :] == END).all()


def by_hand(language: Language, row: int, first: int, beams: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """Beam search with lists, of one of six sequences of at most 7 tokens."""
    alive: list[tuple[int, ...]] = [()]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, 8):
        tried = [(*beginning, token) for beginning in alive for token in range(9)]
        tried.sort(key=lambda sequence: language.log_probability(row, 6, first, sequence), reverse=True)
        over = [sequence for sequence in tried[:beams] if sequence[-1] == END]
        alive = [sequence for sequence in tried if sequence[-1] != END][:beams]
        over += alive if length == 7 and len(ended) + len(over) < beams else []
        scores = [language.log_probability(row, 6, first, sequence) / ((5 + length) / 6) ** alpha for sequence in over]
        ended = sorted(ended + list(zip(scores, over, strict=True)), reverse=True)[:beams]
        if len(ended) == beams:
            break
    return ended


@pytest.mark.parametrize("beams", [2, 3])
def test_it_is_beam_search_by_hand(beams):
    language, first = Language(9), torch.arange(6) % 3
    found = beam_search(language.step, language.start(6), first, END, 7, beams, 2.0)
    for row in range(6):
        expected = by_hand(language, row, first[row].item(), beams, 2.0)
        assert sequences(found, row) == [sequence for _, sequence in expected]
        np.testing.assert_allclose(found.scores[row].numpy(), [score for score, _ in expected], rtol=1e-12)


@pytest.mark.parametrize("beams", [2, 5])
def test_together_is_one_by_one(beams):
    language, first = Language(9), torch.arange(6) % 3
    state = language.start(6)
    together = beam_search(language.step, state, first, END, 10, beams, 2.0)
    for row in range(6):
        index = torch.tensor([row])
        alone = beam_search(language.step, select(state, index), first[index], END, 10, beams, 2.0)
        assert_equal(Found(*(part[index] for part in together)), alone)
    assert together.lengths[:, 0].unique().numel() > 2


def test_scores_are_those_of_the_sequences():
    """Whatever the beam kept, each score is that of its tokens: the state follows its beginning."""
    language, first = Language(9), torch.arange(6) % 3
    found = beam_search(language.step, language.start(6), first, END, 10, beams=4, alpha=0.8)
    for row in range(6):
        for sequence, score in zip(sequences(found, row), found.scores[row].tolist(), strict=True):
            assert sequence.count(END) == (sequence[-1] == END)
            expected = language.log_probability(row, 6, first[row].item(), sequence) / length_penalty(len(sequence), 0.8)
            assert score == pytest.approx(expected, rel=1e-12)
        assert len(set(sequences(found, row))) == 4 and (found.scores[row].diff() <= 0).all()


def test_two_beams_find_what_greedy_search_passes_by():
    """0 is likelier than 1 at first, but what comes after 1 is sure."""
    first_step = torch.tensor([0.6, 0.4, 0.0, 0.0])
    after = {0: torch.tensor([0.3, 0.3, 0.3, 0.1]), 1: torch.tensor([0.0, 0.0, 0.0, 1.0]), 2: torch.full((4,), 0.25)}

    def step(tokens, state):
        rows = [first_step if age == 0 else after[token] for token, age in zip(tokens.tolist(), state.tolist(), strict=True)]
        return torch.stack(rows).log(), state + 1

    start, first = torch.zeros(1), torch.tensor([2])
    assert sequences(greedy_search(step, start, first, END, 2), 0) == [(0, 0)]
    found = beam_search(step, start, first, END, 2, beams=2, alpha=0.0)
    assert sequences(found, 0)[0] == (1, END)
    torch.testing.assert_close(found.scores[0], torch.tensor([0.4, 0.18]).log())


def test_a_state_of_ones_own_is_reordered_by_ones_own_function():
    language, first = Language(9), torch.arange(4) % 3
    seen = []

    def step(tokens, state):
        logits, inner = language.step(tokens, state["inner"])
        return logits, {"inner": inner}

    def reorder(state, index):
        seen.append(index)
        return {"inner": select(state["inner"], index)}

    found = beam_search(step, {"inner": language.start(4)}, first, END, 6, 3, 0.6, reorder)
    assert_equal(found, beam_search(language.step, language.start(4), first, END, 6, 3, 0.6))
    assert seen[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert all(torch.equal(index // 3, seen[0]) for index in seen[1:]), "no sequence takes another's state"


def test_it_stops_when_all_have_ended():
    language, first = Language(9), torch.arange(6) % 3
    found = greedy_search(language.step, language.start(6), first, END, 1000)
    assert len(language.calls) == found.lengths.max() < 1000
    language.calls.clear()
    found = beam_search(language.step, language.start(6), first, END, 1000, beams=3)
    assert found.lengths.max() <= len(language.calls) < 1000 and set(language.calls) == {18}


def test_what_does_not_exist_has_no_length():
    """The first token is surely the end: there is one sequence, not two."""

    calls = []

    def step(tokens, state):
        calls.append(len(tokens))
        return torch.tensor([[-math.inf, -math.inf, -math.inf, 0.0]]).expand(len(tokens), 4), state

    found = beam_search(step, torch.zeros(1), torch.tensor([0]), END, 5, beams=2)
    assert found.lengths.tolist() == [[1, 0]] and found.scores.tolist() == [[0.0, -math.inf]]
    assert (found.tokens == END).all() and calls == [2], "nothing is left to go on with"


def test_scores_of_half_precision_are_summed_in_single():
    def step(tokens, state):
        return torch.zeros(len(tokens), 5, dtype=torch.bfloat16), state

    found = greedy_search(step, torch.zeros(1), torch.tensor([1]), 4, 300)
    assert found.scores.dtype == torch.float32
    assert found.scores.item() == pytest.approx(-300 * math.log(5), rel=1e-5)


def test_select_keeps_the_kinds():
    state = (torch.arange(3), Found(torch.arange(3), torch.arange(3, 6), torch.zeros(3)), [torch.arange(6, 9)])
    first, second, third = select(state, torch.tensor([2, 2, 0]))
    assert first.tolist() == [2, 2, 0] and isinstance(second, Found) and second.lengths.tolist() == [5, 5, 3]
    assert isinstance(third, list) and third[0].tolist() == [8, 8, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"beams": 0}, "beams must be at least 1, got 0"), ({"max_length": 0}, "max_length must be at least 1, got 0")],
    ids=["beams", "max_length"],
)
def test_refuses(arguments, message):
    language = Language()
    with pytest.raises(ValueError, match=message):
        beam_search(language.step, language.start(1), torch.tensor([0]), END, **{"max_length": 3, **arguments})
    if "max_length" in arguments:
        with pytest.raises(ValueError, match=message):
            greedy_search(language.step, language.start(1), torch.tensor([0]), END, 0)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_a_network_writes_is_the_best_that_the_search_finds(beams):
    class Writes(Language):
        def encode(self, source):
            return self.start(len(source))

    net, source = Writes(), torch.zeros(4, 2, dtype=torch.int64)
    first = torch.full((4,), 1)
    if beams == 1:
        found = greedy_search(net.step, net.start(4), first, END, LENGTH)
    else:
        found = beam_search(net.step, net.start(4), first, END, LENGTH, beams, 0.6)
    tokens, scores = write(net, source, 1, END, LENGTH, beams, 0.6)
    assert torch.equal(tokens, found.tokens[:, 0]) and torch.equal(scores, found.scores[:, 0])

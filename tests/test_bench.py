"""The arithmetic of scripts/bench.py: what counts as faster, and when a bound is kept. Nothing is timed here."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parent.parent / "scripts" / "bench_timing.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_timing", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_less_time_is_faster(bench):
    assert bench.faster("G", "a step", ours=2.0, peer=5.0, unit="s CPU", bound=">= 2.5").value == 2.5


def test_more_work_in_a_time_is_faster(bench):
    assert bench.faster("G", "training", ours=900.0, peer=300.0, unit="steps/s", bound=">= 2.5").value == 3.0


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [(2.5, ">= 2.5", True), (2.49, ">= 2.5", False), (0.35, "<= 0.35", True), (0.36, "<= 0.35", False), (7.0, "", None)],
)
def test_a_bound_is_kept_up_to_its_limit(bench, value, bound, met):
    assert bench.Row("G", "x", value, None, "s", value, bound).met is met


def test_the_table_names_what_is_missed_and_lines_up(bench):
    rows = [
        bench.Row("G4", "a", 750.0, 363.0, "steps/s", 2.07, ">= 2.5"),
        bench.Row("G10", "longer", 0.1, None, "s", 0.1, "<= 0.35"),
    ]
    head, first, second = bench.table(rows).splitlines()
    assert first.endswith("MISSED")
    assert second.endswith("met")
    assert head.index("bound") == first.index(">=") == second.index("<=")


@pytest.mark.parametrize(
    ("value", "text"),
    [(57072.4, "57,072"), (99.96, "100"), (2.0612, "2.06"), (0.0245, "0.0245"), (0.00312, "0.0031"), (0, "0")],
)
def test_numbers_have_three_digits_and_no_exponent(bench, value, text):
    assert bench.number(value) == text


def test_contenders_take_turns_and_each_round_begins_with_another(bench):
    order = []
    seconds = bench.take_turns({name: (lambda name=name: order.append(name)) for name in "ab"}, repeats=2)
    assert "".join(order) == "ba" + "ab" + "ba"  # a round to warm up, then two that count
    assert all(value >= 0 for value in seconds.values())


def test_the_median_is_of_a_contenders_own_seconds_without_the_warm_up(bench):
    own = iter([100.0, 1.0, 9.0, 2.0])
    assert bench.take_turns({"ours": lambda: next(own)}, repeats=3) == {"ours": 2.0}

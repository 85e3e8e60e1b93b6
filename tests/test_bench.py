"""The arithmetic of scripts/bench.py: what counts as faster, and when a bound is kept. Nothing is timed here."""

import importlib.util
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def _load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return _load("bench_timing")


@pytest.fixture
def vision(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return _load("bench_vision")


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


def test_the_peer_of_a_network_is_the_better_of_the_two_libraries_at_the_same_setting(vision):
    seconds = {("ours", "fp32", "forward"): 2.0, ("timm", "fp32", "forward"): 3.0, ("torchvision", "fp32", "forward"): 2.5}
    others = {("timm", "bf16", "forward"): 0.1, ("timm", "fp32", "training"): 0.1}
    assert vision._best(seconds | others, "fp32", "forward") == (2.0, 2.5)


def test_cpu_fast_is_held_to_its_bounds_against_the_default(vision, monkeypatch):
    cases = {
        (whose, kind, way): 9.0
        for whose in ("ours", "torchvision", "timm")
        for kind in vision.SETTINGS
        for way in vision.PASSES
    }
    cases |= {("ours", "bf16", "forward"): 1.0, ("ours", "bf16", "training"): 4.0, ("torchvision", "fp32", "forward"): 4.0}
    monkeypatch.setattr(vision, "_seconds", lambda name, repeats: cases)
    monkeypatch.setattr(vision, "_product", lambda dtype: lambda: None)
    product, *rows = vision.goal_7(1)
    assert product.met is None and len(rows) == 2 * len(vision.BOUNDS) and [row.value for row in rows[:2]] == [4.0, 2.25]
    assert [row.met for row in rows[:2]] == [True, False]


def test_the_most_memory_of_a_step_counts_what_lives_at_one_time(vision):
    torch = pytest.importorskip("torch")

    def step():
        for _ in range(3):
            torch.zeros(250_000)  # a megabyte that goes at once
        kept = torch.zeros(500_000)
        (kept + 1).sum()

    assert vision._peak(step) == pytest.approx(4e6, rel=0.01)

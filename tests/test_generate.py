"""`dlzoo generate`: what is written, how it reaches the screen, and what is refused."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

import dlzoo
from dlzoo import cli
from dlzoo.data.tokenizers import load_tokenizer
from dlzoo.errors import ConfigError, DataError
from dlzoo.generate import RULE, Options, generate

sys.path.insert(0, str(Path(__file__).parent))
from text_runs import merged, text_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    made = {name: text_run(folder / name, name) for name in ("gpt", "lstm")}
    return made | {"bytes": text_run(folder / "bytes", "gpt", merged())}


@pytest.fixture
def say(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*words, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        capsys.readouterr()
        code = cli.main(["generate", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def greedy(run, prompt: str, count: int) -> str:
    """By the network alone: the whole text again for each character."""
    tokenizer, net = load_tokenizer(run / "tokenizer.json"), dlzoo.load(run)
    tokens = tokenizer.encode(prompt).tolist()
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(net(torch.tensor([tokens]))[0, -1].argmax().item())
    return tokenizer.decode(tokens[-count:])


@pytest.mark.parametrize("name", ["gpt", "lstm", "bytes"])
def test_greedy_text_is_the_networks(runs, say, name):
    code, out, error = say(runs[name], "ab\n", "--greedy", "--tokens", "12")
    assert code == 0 and error == "" and out == "ab\n" + greedy(runs[name], "ab\n", 12) + "\n"


def test_several_prompts_and_samples_at_once(runs):
    options = Options(tokens=30, samples=2, seed=3)
    together = generate(runs["gpt"], ["abc", "d"], options)
    assert [text.prompt for text in together] == ["abc", "abc", "d", "d"] and len({text.text for text in together}) == 4
    assert all(text.tokens == 30 == len(text.text) and text.ended == "length" for text in together)
    assert together == generate(runs["gpt"], ["abc", "d"], options)
    assert together[0] == generate(runs["gpt"], "abc", Options(tokens=30, seed=3))[0]  # as if alone
    assert together[0] != generate(runs["gpt"], "abc", Options(tokens=30, seed=4))[0]


def test_it_comes_as_it_is_written(runs):
    """Each token is told before the next is asked for; half a character waits."""
    parts = []
    (text,) = generate(runs["bytes"], "é", Options(tokens=40, temperature=3.0), lambda row, part: parts.append((row, part)))
    assert parts[0] == (0, "é") and len(parts) == 42 and {row for row, _ in parts} == {0}
    assert "".join(part for _, part in parts[1:]) == text.text
    assert any(part == "" for _, part in parts[1:]) and "\ufffd" in text.text  # random bytes are seldom characters


def test_a_stop_string_ends_a_text_and_is_not_in_it(runs, say):
    whole = generate(runs["gpt"], "ab", Options(tokens=60))[0].text
    stop = next(pair for at in range(8, 40) if (pair := whole[at : at + 2]) not in whole[:at])
    (text,) = generate(runs["gpt"], "ab", Options(tokens=60, stops=["zz", stop]))
    assert text.text == whole[: whole.index(stop)] and text.ended == "stop" and text.tokens == whole.index(stop) + 2
    code, out, _ = say(runs["gpt"], "ab", "--tokens", "60", "--stop", stop.replace("\n", "\\n"))
    assert code == 0 and out == "ab" + text.text + "\n"


def test_what_the_options_do(runs, say):
    plain = generate(runs["gpt"], "ab", Options(tokens=50))[0].text
    for words in (
        ["--top-k", "2"],
        ["--top-p", "0.3"],
        ["--repetition-penalty", "1.5"],
        ["--temperature", "2"],
        ["--seed", "9"],
    ):
        code, out, _ = say(runs["gpt"], "ab", "--tokens", "50", *words)
        assert code == 0 and len(out) == 53 and out != f"ab{plain}\n", words
    assert (
        say(runs["gpt"], "ab", "--tokens", "50", "--top-k", "1")[1] == say(runs["gpt"], "ab", "--tokens", "50", "--greedy")[1]
    )


def test_prompts_from_elsewhere(runs, say, tmp_path):
    (tmp_path / "prompt.txt").write_text("ab\ncd\n\n")
    first = say(runs["gpt"], "ab\ncd\n", "--tokens", "5")[1]
    assert say(runs["gpt"], "--file", "prompt.txt", "--tokens", "5")[1] == first
    assert (
        say(runs["gpt"], "--tokens", "5", typed="ab\ncd\n\n")[1]
        == first
        == say(runs["gpt"], "-", "--tokens", "5", typed="ab\ncd\n\n")[1]
    )
    _, out, _ = say(runs["gpt"], "--file", "prompt.txt", "--each-line", "--tokens", "5")
    one, other = out.split(f"\n{RULE}\n")
    assert one.startswith("ab") and other.startswith("cd") and len(one) == len(other) - 1 == 7
    _, out, _ = say(runs["gpt"], "--each-line", "--tokens", "5", "--json", typed="ab\n\ncd\n")
    assert [text["prompt"] + text["text"] for text in json.loads(out)] == [one, other.removesuffix("\n")]
    assert json.loads(out)[0].keys() == {"prompt", "text", "tokens", "ended"}


def test_a_screen_that_knows_fewer_characters(runs, monkeypatch):
    from dlzoo.generate import Screen

    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", screen)
    Screen(1).say(0, "né")
    screen.flush()
    assert screen.buffer.getvalue() == b"n?"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([""], 2, ["the prompt is empty"]),
        (["abxyz"], 3, ["has 'x', 'y', 'z'", "knows 14 characters: abcdefghij ."]),
        (["ab", "--tokens", "0"], 2, ["--tokens must be at least 1, got 0"]),
        (["ab", "--samples", "0"], 2, ["--samples must be at least 1"]),
        (["ab", "--seed", "-1"], 2, ["--seed must be at least 0"]),
        (["ab", "--temperature", "-1"], 2, ["temperature must be at least 0, got -1.0", "--temperature"]),
        (["ab", "--top-p", "1.5"], 2, ["top_p must be above 0 and at most 1", "--top-p"]),
        (["ab", "--top-k", "0"], 2, ["top_k must be at least 1", "--top-k"]),
        (["ab", "--repetition-penalty", "0"], 2, ["must be above 0", "--repetition-penalty"]),
        (["ab", "--stop", ""], 2, ["a stop string is empty"]),
        (["ab", "--greedy", "--samples", "2"], 2, ["--greedy writes the same text each time"]),
        (["ab", "--tokns", "3"], 2, ["did you mean '--tokens'"]),
        (["ab", "--file", "x"], 2, ["not both"]),
        (["--file", "nowhere.txt"], 3, ["can not be read: No such file", "nowhere.txt"]),
        ([], 2, ["the prompt is empty", "standard input"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and not value[0][:1].isupper() else "",
)
def test_mistakes(runs, say, words, code, expected):
    found, out, error = say(runs["gpt"], *words)
    assert found == code and out == "" and "Traceback" not in error and len(error.splitlines()) <= 4
    for part in expected:
        assert part in error, error


@pytest.mark.parametrize(("answers", "verb"), [("labels", "predict"), ("masks", "predict")])
def test_a_run_that_is_no_language_model(tmp_path, answers, verb):
    run = text_run(tmp_path / "run", "lstm")
    (run / "summary.json").write_text((run / "summary.json").read_text().replace('"text",', f'"{answers}",', 1))
    with pytest.raises(ConfigError, match=f"answers with {answers}") as caught:
        generate(run, "ab")
    assert f"dlzoo {verb} {run}" in caught.value.fix


def test_a_run_without_its_tokenizer(tmp_path):
    run = text_run(tmp_path / "run", "lstm")
    (run / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="there is no tokenizer"):
        generate(run, "ab")

"""What all figures share: made without pyplot, stored in one piece."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlzoo.plots.figure import blank, clip_text, new, save


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_importing_the_plots_imports_neither_matplotlib_nor_torch():
    """They are imported with the callbacks, at every start; drawing one figure must not make a list of open ones."""
    code = (
        "import sys, dlzoo.plots.curves, dlzoo.plots.images, dlzoo.plots.confusion\n"
        "assert not {'matplotlib', 'torch'} & set(sys.modules)\n"
        "dlzoo.plots.curves.curves({'train/loss': ([1], [2.0])}, 'a run')\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_notebook_shows_a_figure_without_being_told_how():
    """IPython asks an object for _repr_png_; matplotlib's own figures have none before %matplotlib inline."""
    assert blank("title")._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_save_writes_the_format_of_the_suffix_and_nothing_else(tmp_path, suffix, start):
    path = tmp_path / "made" / f"figure.{suffix}"
    save(blank("title"), path)
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_save_leaves_the_old_picture(tmp_path):
    path = tmp_path / "figure.png"
    save(blank("old"), path)
    old = path.read_bytes()
    figure = blank("new")
    figure.savefig = lambda target, **options: Path(target).write_bytes(b"half") and 1 / 0
    with pytest.raises(ZeroDivisionError):
        save(figure, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_nothing_but_a_file(tmp_path):
    """Renaming onto a device as root would destroy it; a pipe stands in for one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(ValueError, match="path must be a file or new"):
            save(blank("title"), path)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_signs_the_font_lacks_and_mathematics_are_plain_text(tmp_path):
    figure = new(3, 2, "猫 costs $5 and $6")
    save(figure, tmp_path / "figure.png")  # a warning would fail here
    assert "猫 costs $5 and $6" in texts(figure)


def test_clip_text_keeps_both_ends():
    assert clip_text("cat", 9) == "cat"
    assert clip_text("two\n lines", 20) == "two lines"
    assert clip_text("a very long name of class 17", 12) == "a ver...s 17"
    assert len(clip_text("x" * 50, 12)) == 12

"""The grid of recordings: what is drawn is what was given."""

import numpy as np
import pytest

from dlzoo.plots import figure
from dlzoo.plots.recordings import _envelope, recording_grid


def _grid(count, columns=6):
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(count, 600)) * 0.1
    return recording_grid(waves, rng.normal(size=(count, 8, 20)), [f"word {n}" for n in range(count)], "title", 0.5, columns)


def test_each_recording_has_its_caption_its_waveform_and_its_spectrogram(tmp_path):
    made = _grid(8, columns=3)
    (axes,) = made.axes
    assert len(axes.images) == len(axes.collections) == 8
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.startswith("word")] == [f"word {n}" for n in range(8)]
    assert sum(text.startswith("peak 0.") for text in texts) == 8
    lefts = [image.get_extent()[0] for image in axes.images]
    assert len(set(lefts)) == 3 and lefts[:3] == lefts[3:6]
    figure.save(made, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 5_000


def test_low_bands_are_at_the_bottom_and_the_colours_span_sixty_decibels():
    spectrogram = np.full((1, 4, 5), -100.0)
    spectrogram[0, 0, 2] = 7.0
    (axes,) = recording_grid(np.zeros((1, 50)), spectrogram, ["silence"], "", 1.0).axes
    image = axes.images[0]
    assert image.origin == "lower" and image.get_clim() == (-53.0, 7.0)
    assert image.get_array()[0, 2] == 7.0


def test_the_envelope_loses_no_peak():
    wave = np.zeros(10_000)
    wave[[77, 9_991]] = 1.0, -0.5
    times, low, high = _envelope(wave)
    assert len(times) == len(low) == len(high) and high.max() == 1.0 and low.min() == -0.5
    assert len(_envelope(np.ones(3))[0]) == 3


def test_nothing_and_what_does_not_go_together():
    assert recording_grid(np.zeros((0, 9)), np.zeros((0, 2, 3)), [], "title", 1.0).texts
    with pytest.raises(ValueError, match="equally many, got 2, 2 and 1"):
        recording_grid(np.zeros((2, 9)), np.zeros((2, 2, 3)), ["a"], "title", 1.0)

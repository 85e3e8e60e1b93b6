"""SpecAugment: torchaudio's masks from the same random numbers; nothing in evaluation."""

import pytest
import torch

from dlzoo.data.waveforms import torchaudio
from dlzoo.nn.spec_augment import SpecAugment


@pytest.mark.parametrize(("bands", "frames"), [(8, 16), (5, 0), (0, 7), (40, 50)])
def test_the_masks_are_torchaudios(bands, frames):
    transforms = torchaudio().transforms
    x = torch.rand(6, 1, 40, 50) + 1
    torch.manual_seed(3)
    found = SpecAugment(bands, frames)(x)
    torch.manual_seed(3)
    expected = x
    if bands:
        expected = transforms.FrequencyMasking(bands, iid_masks=True)(expected)
    if frames:
        expected = transforms.TimeMasking(frames, iid_masks=True)(expected)
    assert torch.equal(found, expected) and not torch.equal(found, x)


def test_each_spectrogram_has_its_own_stripes_no_wider_than_said():
    torch.manual_seed(0)
    x = torch.ones(200, 1, 40, 50)
    gone = SpecAugment(8, 16)(x)[:, 0] == 0
    rows, columns = gone.all(2).sum(1), gone.all(1).sum(1)
    assert rows.max() == 7 and columns.max() == 15 and rows.min() == columns.min() == 0
    assert len({mask.numpy().tobytes() for mask in gone}) > 190


def test_it_is_for_training_alone():
    layer, x = SpecAugment(8, 16), torch.rand(2, 1, 40, 50)
    assert layer.eval()(x) is x
    assert SpecAugment()(x) is x


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match="-1"):
        SpecAugment(bands=-1)

"""Batches of recordings: each sample as it was, moved and made louder by what (seed, epoch, index) say and by nothing else."""

import pytest
import torch

from dlzoo.data.waveform_batches import WaveformAugment, WaveformBatches
from dlzoo.errors import ConfigError

COUNT, SAMPLES = 23, 40


def _data():
    waves = torch.randint(-20_000, 20_000, (COUNT, SAMPLES), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    return waves, torch.arange(COUNT)


def _batches(**options):
    return WaveformBatches(*_data(), **{"batch_size": 5, **options})


def _epoch(loader):
    """Every sample of a pass, by its label."""
    return {int(label): wave for x, y in loader for wave, label in zip(x, y, strict=True)}


def test_without_augmentation_the_samples_are_the_files():
    loader, (waves, labels) = _batches(), _data()
    x, y = next(iter(loader))
    assert x.shape == (5, 1, SAMPLES) and x.dtype == torch.float32 and torch.equal(y, labels[:5])
    assert torch.equal(torch.cat([x for x, _ in loader])[:, 0] * 32_768, waves.float())
    assert len(loader) == 5


def test_a_shift_is_silence_on_one_side_and_a_gain_a_factor():
    waves, _ = _data()
    for label, x in _epoch(_batches(augment=WaveformAugment(shift=7, gain=6.0), shuffle=True)).items():
        wave = x[0] * 32_768
        moved = [
            (wave[max(0, -by) : SAMPLES - max(0, by)], waves[label, max(0, by) : SAMPLES - max(0, -by)].float(), by)
            for by in range(-7, 8)
        ]
        fits = [by for part, other, by in moved if torch.allclose(part / part.norm(), other / other.norm(), atol=1e-5)]
        assert len(fits) == 1
        by = fits[0]
        assert not wave[: max(0, -by)].any() and not wave[SAMPLES - max(0, by) :].any()
        factor = wave.norm() / waves[label, max(0, by) : SAMPLES - max(0, -by)].float().norm()
        assert 10 ** (-6 / 20) - 1e-4 <= factor <= 10 ** (6 / 20) + 1e-4


def test_shifts_and_gains_reach_their_ends():
    start, gain = WaveformAugment(shift=3, gain=6.0).draw(2_000, seed=0, epoch=0)
    assert start.unique().tolist() == list(range(7))
    assert 0.501 < gain.min() < 0.51 and 1.97 < gain.max() < 1.996
    assert torch.equal(WaveformAugment(shift=3).draw(2_000, seed=0, epoch=0).start, start)  # the one does not move the other
    assert (WaveformAugment().draw(9, seed=0, epoch=0).gain == 1).all()


@pytest.mark.parametrize("change", [{"batch_size": 11}, {"drop_last": True}])
def test_a_sample_depends_on_seed_epoch_and_index_alone(change):
    options = {"augment": WaveformAugment(7, 6.0), "shuffle": True, "seed": 3}
    one, other = _epoch(_batches(**options)), _epoch(_batches(**options, **change))
    assert other and all(torch.equal(one[label], wave) for label, wave in other.items())
    assert not torch.equal(one[0], _epoch(_batches(**{**options, "seed": 4}))[0])


def test_two_ranks_share_what_one_sees():
    options = {"augment": WaveformAugment(7, 6.0), "shuffle": True, "batch_size": 6}
    whole = [y.tolist() for _, y in _batches(**options)]
    shares = [[y.tolist() for _, y in _batches(**options, rank=rank, world_size=2)] for rank in range(2)]
    assert [one + other for one, other in zip(*shares, strict=True)] == whole


def test_it_goes_on_in_the_middle_of_an_epoch():
    options = {"augment": WaveformAugment(7, 6.0), "shuffle": True}
    loader = _batches(**options)
    loader.sampler.set_epoch(2)
    passed = iter(loader)
    for _ in range(2):
        next(passed)
    state = loader.state_dict()
    rest = list(passed)
    other = _batches(**options)
    other.load_state_dict(state)
    for (x, y), (x2, y2) in zip(rest, other, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_what_it_refuses():
    waves, labels = _data()
    with pytest.raises(ValueError, match="int16"):
        WaveformBatches(waves.float(), labels, batch_size=5)
    with pytest.raises(ValueError, match="labels"):
        WaveformBatches(waves, labels[:3], batch_size=5)
    with pytest.raises(ConfigError, match="batch size is 0"):
        _batches(batch_size=0)
    with pytest.raises(ValueError, match="shift"):
        WaveformAugment(shift=-1)

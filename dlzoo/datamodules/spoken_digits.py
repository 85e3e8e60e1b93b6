"""The Free Spoken Digit Dataset: 3,000 recordings of "zero" to "nine" by six speakers."""

import re
from pathlib import Path

import torch

from dlzoo.data.archive import Limits, members
from dlzoo.data.splits import Splits
from dlzoo.datamodules.in_memory_waveforms import InMemoryWaveforms
from dlzoo.errors import DataError

__all__ = ["SpokenDigits"]

TEST_TAKES = 5  # the published split: of each speaker's 50 takes of a digit, numbers 0 to 4 test
NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"


class SpokenDigits(InMemoryWaveforms):
    """2,700 recordings to train on (300 of them validate), 300 to test: takes 0 to 4 of every digit and speaker, as published.

    Every speaker is in both splits, so the test tells how well known voices are understood. Recordings last a quarter of a
    second to a second, 97 of a hundred no more than three quarters.

    Found in data_dir/free_spoken_digits: `recordings/*.wav` as the repository has them, or a tar or zip of those.

    Source: Jackson et al. 2018, https://github.com/Jakobovski/free-spoken-digit-dataset, https://doi.org/10.5281/zenodo.1342401.

    Args:
        data_dir: where the data sets lie.
        sample_rate: of the network's input, in hertz; the recordings have 8,000.
        samples: length of the input; shorter recordings get silence on both sides, of longer ones the loudest part is kept.
        normalize: bring the loudest sample of each recording to full scale.
        batch_size: recordings a training batch, over all devices together.
        eval_batch_size: recordings a validation or test batch.
        val_size: training recordings that validate, by a fixed permutation.
        shift: samples, at most, by which a training recording moves.
        gain: decibels, at most, by which its loudness changes.
        seed: of order and augmentation.
        num_classes: must be 10.
        in_channels: must be 1.

    Batch:
        x (B, 1, T), float32, about -1 to 1; y (B,), int64.
    """

    classes = tuple("0123456789")
    published = (2_700, 300)

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        sample_rate: int = 8_000,
        samples: int = 6_000,
        normalize: bool = True,
        batch_size: int = 64,
        eval_batch_size: int = 150,
        val_size: int = 300,
        shift: int = 800,
        gain: float = 6.0,
        seed: int = 0,
        num_classes: int = 10,
        in_channels: int = 1,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            samples=samples,
            normalize=normalize,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            shift=shift,
            gain=gain,
            seed=seed,
            num_classes=num_classes,
            in_channels=in_channels,
        )
        self.data_dir = Path(data_dir)

    def read(self) -> Splits:
        found = []
        for name, content in self._files():
            if match := NAME.fullmatch(name.rpartition("/")[2]):
                digit, speaker, take = int(match[1]), match[2], int(match[3])
                found.append((take, speaker, digit, self.recording(content, name)))
        found.sort(key=lambda entry: entry[:3])  # one order, whatever order the files came in
        splits = ([entry for entry in found if entry[0] >= TEST_TAKES], [entry for entry in found if entry[0] < TEST_TAKES])
        tensors = []
        for split in splits:
            waves = [wave for *_, wave in split] or [torch.zeros(self.preprocess.samples, dtype=torch.int16)]
            tensors += [torch.stack(waves)[: len(split)], torch.tensor([digit for _, _, digit, _ in split], dtype=torch.int64)]
        return Splits(*tensors)

    def _files(self):  # type: ignore[no-untyped-def]
        """Name and content of each file, from the folder or from the archive."""
        root = self.data_dir / "free_spoken_digits"
        for folder in (root / "recordings", root):
            if paths := sorted(folder.glob("*.wav")):
                yield from ((str(path), path.read_bytes()) for path in paths)
                return
        archives = [path for pattern in ("*.tar", "*.tar.gz", "*.zip") for path in sorted(root.glob(pattern))]
        if not archives:
            raise DataError(
                f"there are no spoken digits in {root}.",
                where=str(root),
                fix=f"git clone {SOURCE} {root} (its folder recordings/ is what is read), or put a tar of that folder there",
            )
        for name, content in members(archives[0], Limits(files=20_000, size=1 << 30)):
            yield f"{archives[0]}: {name}", content

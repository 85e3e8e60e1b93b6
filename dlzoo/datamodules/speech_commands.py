"""Speech Commands, version 2: 105,829 recordings, a second each, of 35 words by 2,618 speakers."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dlzoo.data.archive import members
from dlzoo.data.cache import cached, fingerprint
from dlzoo.data.download import fetch
from dlzoo.data.splits import Splits
from dlzoo.datamodules.in_memory_waveforms import InMemoryWaveforms
from dlzoo.errors import DataError

__all__ = ["SpeechCommands"]

FILE = "speech_commands_v0.02.tar.gz"
MIRRORS = ("https://storage.googleapis.com/download.tensorflow.org/data", "https://download.tensorflow.org/data")
SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"  # as torchaudio.datasets states it
LISTS = {"validation_list.txt": "validation", "testing_list.txt": "test"}


class SpeechCommands(InMemoryWaveforms):
    """84,843 recordings to train on, 9,981 to validate and 11,005 to test, by the lists in the archive; all 35 words.

    A speaker is in one of the three alone. Background noise is left out. In memory they take 3.4 GB at 16 kHz and 1.7 GB at
    8 kHz, and twice that while they are read for the first time; the next start finds them in a cache.

    Found in data_dir/speech_commands: the published archive, or what is in it; or where torchaudio puts it
    (data_dir/SpeechCommands/speech_commands_v0.02). Otherwise the archive, 2.4 GB, is downloaded.

    Source: Warden 2018, Speech Commands, https://arxiv.org/abs/1804.03209.

    Args:
        data_dir: where the data sets lie.
        sample_rate: of the network's input, in hertz; the recordings have 16,000.
        samples: length of the input; shorter recordings get silence on both sides.
        normalize: bring the loudest sample of each recording to full scale.
        batch_size: recordings a training batch, over all devices together.
        eval_batch_size: recordings a validation or test batch.
        shift: samples, at most, by which a training recording moves.
        gain: decibels, at most, by which its loudness changes.
        seed: of order and augmentation.
        num_classes: must be 35.
        in_channels: must be 1.

    Batch:
        x (B, 1, T), float32, about -1 to 1; y (B,), int64.
    """

    classes = tuple(
        """backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one
        right seven sheila six stop three tree two up visual wow yes zero
        """.split()  # noqa: SIM905 (quotes would hide the names)
    )
    published = (94_824, 11_005)
    validation = 9_981  # of the 94,824

    def __init__(
        self,
        data_dir: str | Path = "data",
        *,
        sample_rate: int = 16_000,
        samples: int = 16_000,
        normalize: bool = True,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        shift: int = 1_600,
        gain: float = 6.0,
        seed: int = 0,
        num_classes: int = 35,
        in_channels: int = 1,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            samples=samples,
            normalize=normalize,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=self.validation,
            shift=shift,
            gain=gain,
            seed=seed,
            num_classes=num_classes,
            in_channels=in_channels,
        )
        self.data_dir = Path(data_dir)

    def cut(self) -> tuple[Tensor, Tensor]:
        """The published lists: the validation recordings stand behind the others."""
        every = torch.arange(self.published[0])
        return every[: self.train_size], every[self.train_size :]

    def read(self) -> Splits:
        source = self._source()
        form = f"speech commands {self.preprocess}"
        key = fingerprint(form, [source / "testing_list.txt" if source.is_dir() else source])
        return cached(self.data_dir / "speech_commands", "speech_commands", key, lambda: self._read(source))

    def _source(self) -> Path:
        """The folder with the words, or the archive of it, downloaded where there is neither."""
        own = self.data_dir / "speech_commands"
        for folder in (own, self.data_dir / "SpeechCommands" / "speech_commands_v0.02"):
            if (folder / "testing_list.txt").is_file():
                return folder
        if (own / FILE).is_file():
            return own / FILE
        return fetch([f"{mirror}/{FILE}" for mirror in MIRRORS], own / FILE, sha256=SHA256)

    def _read(self, source: Path) -> Splits:
        labels = {word: label for label, word in enumerate(self.classes)}
        waves: dict[str, Tensor] = {}  # by "word/file"
        listed: dict[str, list[str]] = {}
        for name, content in _files(source):
            word = name.partition("/")[0]
            if name in LISTS:
                listed[LISTS[name]] = content.decode().split()
            elif word in labels and name.endswith(".wav"):
                waves[name] = self.recording(content, f"{source}: {name}")
        lost = [name for names in listed.values() for name in names if name not in waves]
        if len(listed) != len(LISTS) or lost:
            what = f"lacks {len(lost)} listed recordings, such as {lost[0]}" if lost else f"lacks {' or '.join(LISTS)}"
            raise DataError(f"{source} {what}.", where=str(source), fix="get the archive again from where it is published")
        test, validation = set(listed["test"]), set(listed["validation"])
        train = sorted(set(waves) - test - validation)
        tensors = []
        for names in (train + sorted(validation), sorted(test)):
            tensors += [torch.stack([waves.pop(name) for name in names])]
            tensors += [torch.tensor([labels[name.partition("/")[0]] for name in names])]
        return Splits(*tensors)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name ("word/file") and content of each file."""
    if source.is_dir():
        yield from (
            (path.relative_to(source).as_posix(), path.read_bytes())
            for pattern in ("*.txt", "*/*.wav")
            for path in sorted(source.glob(pattern))
        )
    else:
        yield from ((name.removeprefix("./"), content) for name, content in members(source))

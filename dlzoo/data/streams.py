"""Seeds for independent streams of random numbers.

Whatever is random about the data is a pure function of (seed, epoch) or (seed, epoch, index), so that a run can stop and go on
anywhere, with any number of workers or ranks, and learn the same. Adding such numbers would let streams meet (seed 1 epoch 0 is
not seed 0 epoch 1); hashing them keeps the streams apart.
"""

import hashlib

import torch

__all__ = ["generator"]


def generator(purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator whose seed is a hash of a purpose and of some numbers.

    Args:
        purpose: what the numbers are for, such as "order" or "augment".
        numbers: the run's seed, the epoch, the index of the sample.
    """
    text = "/".join([purpose, *map(str, map(int, numbers))])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)  # 63 bits: manual_seed takes no more

"""Makes what a training reads before it trains: downloads, caches, files of tokens. Interrupted, the same command goes on.

    python scripts/prepare.py experiment=openwebtext_gpt2 data.root=PATH

The words are those of train.py. For a corpus that takes hours, on a machine without the GPUs.
"""

import logging
import sys
import time
from collections.abc import Sequence

from dlzoo import zoo
from dlzoo.errors import DlzooError


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or {"-h", "--help"} & set(words):
        print((__doc__ or "").strip())
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        from dlzoo.config import check, compose

        config = check(compose(*words))
        began = time.monotonic()
        data = zoo.build(config["data"])
        data.prepare_data()
        data.setup()
    except DlzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    for split in ("train", "val", "test"):
        if hasattr(data.splits, split):
            print(f"{split}: {len(getattr(data.splits, split)):,} tokens")
    print(f"ready, {time.monotonic() - began:.0f} s: python train.py {' '.join(words)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

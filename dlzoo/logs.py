"""What a run says: on the screen what a user can act on, in train.log everything."""

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from dlzoo.errors import StorageError
from dlzoo.redact import LogFormatter

log = logging.getLogger("dlzoo")


def say(line: str) -> None:
    """A line for the screen and the log."""
    print(line, flush=True)
    log.debug(line)


def quiet() -> None:
    """Keeps back what no user can act on; what they can goes through our own words."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read when torch is imported: it reports on the GPU that it did not find
    import lightning  # noqa: F401, which sets the level of its loggers when it is imported

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*litlogger.*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")  # no validation, on purpose
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # the last batch is logged in any case
    warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")  # a run that ends before it validates
    warnings.filterwarnings("ignore", message=".*You requested to overfit.*")  # the data see to it
    warnings.filterwarnings("ignore", message=".*dirpath has changed.*")  # a run from another run's checkpoint
    warnings.filterwarnings("ignore", message=".*DeepSpeed handles gradient clipping internally.*")  # and is left to do it
    warnings.filterwarnings("ignore", message=".*will duplicate the data.*|.*It is recommended to use.*sync_dist.*")


@contextlib.contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """train.log: what the libraries say, and the traceback of what went wrong."""
    try:
        handler = logging.FileHandler(folder / "train.log", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the run directory can not be written: {error.strerror}", where=str(folder)) from error
    handler.setFormatter(LogFormatter())
    names = ("dlzoo", "lightning", "lightning.pytorch", "py.warnings")
    loggers = [logging.getLogger(name) for name in names]
    log.setLevel(logging.DEBUG)
    screen = logging.StreamHandler(sys.stdout)  # "downloading ...", "kept offline": what one would otherwise wait for unknowing
    screen.setLevel(logging.INFO)
    log.addHandler(screen)
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException:
        log.debug("stopped\n%s", traceback.format_exc())  # for the file; the screen gets the few lines of the error
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        log.removeHandler(screen)
        logging.captureWarnings(False)
        handler.close()

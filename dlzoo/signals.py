"""SIGTERM and Ctrl-C: noted while a step is under way, obeyed between two steps.

A signal may come anywhere, in the middle of an optimizer's update or of a checkpoint. While a run `defers`, its handler only
notes it; the training loop looks between steps, saves, and stops. Elsewhere (loading data, testing) it stops at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Stopped", "deferred", "listening", "requested"]

WATCHED = (signal.SIGINT, signal.SIGTERM)

_received: int | None = None  # the first signal that came
_defer = False
_listening = False


class Stopped(BaseException):
    """The run was asked to stop; not an Exception, so that nothing on the way takes it for a fault.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell gives a process that this signal ended: 130 or 143."""
        return 128 + self.number


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Answers SIGTERM and Ctrl-C by `Stopped` for as long as it is open; what was there before comes back."""
    global _received, _defer, _listening
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in WATCHED}
    _received, _defer, _listening = None, False, True
    install()
    try:
        yield
    finally:
        _received, _defer, _listening = None, False, False
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def install() -> None:
    """Puts the handlers in place again, within `listening`: Lightning sets its own when a fit begins."""
    if _listening and threading.current_thread() is threading.main_thread():
        for number in WATCHED:
            signal.signal(number, _handle)


def deferred(on: bool) -> None:
    """Whether a signal is only noted, for the loop to find with `requested`.

    Raises:
        Stopped: it is switched off, and a signal was noted.
    """
    global _defer
    _defer = on
    if not on and _received is not None:
        raise Stopped(_received)


def requested() -> int:
    """The number of the signal that has come, 0 for none."""
    return _received or 0


def ignore_in_worker(worker: int = 0) -> None:
    """For processes that load data: they outlive the signal that their whole process group gets, until the run has saved."""
    for number in WATCHED:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, _received or number
    if not _defer:
        raise Stopped(number)
    if number == signal.SIGINT:
        if not first:  # the second Ctrl-C: leave now; the checkpoints on disk are whole, whatever is being written
            os.write(2, b"\nleaving at once; the last checkpoint stays as it is\n")
            os._exit(128 + number)
        if not int(os.environ.get("LOCAL_RANK", "0") or 0):
            # not print: the handler may have interrupted one
            os.write(sys.__stderr__.fileno(), b"\nCtrl-C: this step is finished and saved; once more leaves at once\n")

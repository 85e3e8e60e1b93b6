"""The text of tokens that come one by one: what can be shown already, and whether it has come to a stop string."""

import codecs
from collections.abc import Sequence

from dlzoo.data.tokenizers import Tokenizer

__all__ = ["TextStream"]


class TextStream:
    """Takes tokens, gives text as soon as it is certain.

    Byte pairs may end within a character, and a stop string may lie across several tokens, so that the end of what was taken
    is held back while it could be a part of one. The text ends before the stop string that is complete first.

    Args:
        tokenizer: that the tokens are of.
        stops: strings that end the text, and are no part of it.

    Raises:
        ValueError: an empty stop string.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        if not all(stops):
            raise ValueError(f"stops must be strings that are not empty, got {list(stops)}")
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self.stopped = False  # whether a stop string has come
        self._shown: list[str] = []
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def text(self) -> str:
        """All that was given so far."""
        return "".join(self._shown)

    def add(self, token: int) -> str:
        """The text that is certain with one token more."""
        return self._settle(self._decoder.decode(self.tokenizer.piece(token)), last=False)

    def end(self) -> str:
        """The rest, when no token comes any more; half a character becomes U+FFFD."""
        return self._settle(self._decoder.decode(b"", final=True), last=True)

    def _settle(self, more: str, last: bool) -> str:
        if self.stopped:
            return ""
        for letter in more:  # one by one: of two stop strings in one token, the one that is complete first counts
            self._held += letter
            if found := [stop for stop in self.stops if self._held.endswith(stop)]:
                self.stopped = True
                return self._give(len(self._held) - max(map(len, found)))
        return self._give(len(self._held) - (0 if last else self._open()))

    def _open(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0

    def _give(self, count: int) -> str:
        given, self._held = self._held[:count], self._held[count:]
        self._shown.append(given)
        return given

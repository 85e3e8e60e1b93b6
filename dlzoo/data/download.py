"""Downloads that end with the right file or with none.

https only, each address in turn, going on where a broken transfer stopped; the file appears under its name only when its hash
is right and it is on the disk. No torch here: a process that only fetches starts at once.
"""

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from dlzoo.disk import sync_folder
from dlzoo.errors import DataError, StorageError, UnsafeError

__all__ = ["fetch", "offline"]

TRIES = 3  # of each address
PAUSE = 0.5  # seconds before the second try; doubles
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18

Progress = Callable[[int, int | None], None]


def offline() -> bool:
    """Whether the environment forbids downloads (DLZOO_OFFLINE=1)."""
    return os.environ.get("DLZOO_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}


def fetch(urls: Sequence[str], path: Path, *, sha256: str, size: int | None = None, progress: Progress | None = None) -> Path:
    """Makes sure that `path` is the file with this hash, downloading it where it is missing.

    Args:
        urls: https addresses of the same file, tried in this order.
        path: where the file goes; `<path>.part` holds what has come so far.
        sha256: of the file, in hex; a prefix of 8 digits or more will do where the publisher gives no more.
        size: in bytes, where it is known.
        progress: is called with the bytes so far and the bytes in all (None where the server does not say).

    Returns:
        path.

    Raises:
        DataError: the file there has another hash, or no address gave the right one, or downloads are forbidden.
        UnsafeError: an address is not https.
        StorageError: the folder cannot be written, or is full.
        ValueError: the hash is not at least 8 hex digits.
    """
    sha256 = sha256.lower()
    if not 8 <= len(sha256) <= 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"sha256 must be 8 to 64 hex digits, got {sha256!r}")
    for url in urls:
        _require_https(url)
    path = Path(path)
    if _is_there(path, sha256):
        return path
    by_hand = f"put the file at {path} by hand; it is published at {' and '.join(urls)}"
    if offline():
        raise DataError(f"{path.name} is missing, and DLZOO_OFFLINE forbids downloads.", where=str(path), fix=by_hand)

    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".dlzoo.lock"):
            if _is_there(path, sha256):  # another process was faster
                return path
            reasons = []
            for url in urls:
                reason = _from_one_address(url, path, sha256, size, progress)
                if reason is None:
                    return path
                reasons.append(f"{url}: {reason}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"{path.name} cannot be written ({error}).",
            where=str(path.parent),
            fix="free some space" if full else "choose a data_dir that can be written",
        ) from error
    raise DataError(f"{path.name} could not be downloaded.\n    " + "\n    ".join(reasons), where=str(path), fix=by_hand)


def _require_https(url: str) -> None:
    if not url.startswith("https://"):
        raise UnsafeError(f"{url} is not an https address.", fix="give an https address, or put the file there by hand")


def _is_there(path: Path, sha256: str) -> bool:
    """Whether the file is in place. A wrong one is the user's: it is named, never overwritten."""
    if not path.is_file():
        return False
    found = _digest(path)
    if found.startswith(sha256):
        return True
    raise DataError(
        f"{path.name} is not the published file.",
        where=f"{path}: sha256 {found}, expected {sha256}",
        fix=f"move {path} away and run again; it is downloaded then",
    )


def _from_one_address(url: str, path: Path, sha256: str, size: int | None, progress: Progress | None) -> str | None:
    """Tries one address and returns why it failed, or None when the file is in place."""
    part = path.with_name(path.name + ".part")
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            _transfer(url, part, size, progress)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == 416:  # the part is longer than the file: it belongs to something else
                part.unlink(missing_ok=True)
            elif error.code not in (408, 425, 429) and error.code < 500:
                return reason
            continue
        except UnsafeError as error:
            return error.what
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            continue
        found = _digest(part)
        if found.startswith(sha256):
            os.replace(part, path)
            sync_folder(path.parent)
            return None
        part.unlink()
        reason = f"the file has sha256 {found}, expected {sha256}"
        if not resumed:
            return reason
    return reason


def _transfer(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Appends what is missing to `part`; EOFError when the connection ends too soon."""
    have = part.stat().st_size if part.is_file() else 0
    if size is not None and have == size:
        return
    with _open(url, have) as response:
        if response.status == 206:
            span = response.headers.get("Content-Range", "")  # bytes 100-199/200
            if not span.startswith(f"bytes {have}-"):
                raise http.client.HTTPException(f"the server sent {span or 'an unnamed range'} for byte {have} on")
        else:
            have = 0  # the server does not resume
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        if size is not None and total is not None and total != size:
            raise http.client.HTTPException(f"the file has {total} bytes there, expected {size}")
        with open(part, "ab" if have else "wb") as file:
            while chunk := response.read1(CHUNK):  # what is there: a connection that stalls loses nothing that has come
                file.write(chunk)
                have += len(chunk)
                if size is not None and have > size:
                    raise http.client.HTTPException(f"more than the expected {size} bytes came")
                if progress is not None:
                    progress(have, total or size)
            file.flush()
            os.fsync(file.fileno())
    whole = total or size
    if whole is not None and have < whole:
        raise EOFError(f"the connection ended after {have} of {whole} bytes")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, first_byte: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "dlzoo", "Accept-Encoding": "identity"})
    if first_byte:
        request.add_header("Range", f"bytes={first_byte}-")
    return urllib.request.build_opener(_HttpsOnly).open(request, timeout=TIMEOUT)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

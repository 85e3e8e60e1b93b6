"""Downloads: resumed, checked, from the next mirror, https only; the right file or none.

A local server plays the publisher. It speaks http, so the one function that connects is replaced; that it refuses anything but
https is tested apart.
"""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dlzoo.data import download
from dlzoo.data.download import fetch
from dlzoo.errors import DataError, StorageError, UnsafeError

CONTENT = bytes(range(256)) * 4_000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Publisher(http.server.BaseHTTPRequestHandler):
    """Does what the path says: /drops sends half, once; /flaky is busy, once; /long has a tail."""

    def do_GET(self):
        requests = self.server.requests
        span = self.headers.get("Range")
        requests.append((self.path, span))
        first_time = [path for path, _ in requests].count(self.path) == 1
        if self.path in ("/403", "/404") or (self.path == "/flaky" and first_time):
            self.send_error(int(self.path[1:]) if self.path != "/flaky" else 503)
            return
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/good")
            self.end_headers()
            return
        content = b"x" * len(CONTENT) if self.path == "/wrong" else CONTENT + b"more" * (self.path == "/long")
        start = int(span[len("bytes=") : -1]) if span and self.path != "/no-range" else 0
        if start >= len(content):
            self.send_error(416)
            return
        rest = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest) // 2 if self.path == "/lies" else len(rest)))
        self.end_headers()
        if self.path == "/stalls":
            self.wfile.write(rest[:1000])
            self.wfile.flush()
            self.server.released.wait(20)
            return
        self.wfile.write(rest[: len(rest) // 2] if self.path == "/drops" and first_time else rest)
        if self.path == "/drops" and first_time:
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def publisher(monkeypatch):
    """Addresses https://test/<path> reach the local server; `.requests` lists what was asked for."""
    monkeypatch.delenv("DLZOO_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    server.requests, server.released = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def connect(url, first_byte):
        headers = {"Range": f"bytes={first_byte}-"} if first_byte else {}
        local = url.replace("https://test", f"http://127.0.0.1:{server.server_port}")
        return urllib.request.urlopen(
            urllib.request.Request(local, headers=headers), timeout=1 if url.endswith("stalls") else 5
        )

    monkeypatch.setattr(download, "_open", connect)
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def _left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".dlzoo.lock")


def test_a_file_comes_once(publisher, tmp_path):
    path = tmp_path / "new" / "set.bin"
    seen = []
    for _ in range(2):
        assert fetch(["https://test/good"], path, sha256=SHA256, progress=lambda *amounts: seen.append(amounts)) == path
    assert path.read_bytes() == CONTENT
    assert publisher.requests == [("/good", None)]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert _left(path.parent) == ["set.bin"]


def test_a_prefix_of_the_hash_will_do(publisher, tmp_path):
    assert fetch(["https://test/good"], tmp_path / "set.bin", sha256=SHA256[:8]).is_file()


@pytest.mark.parametrize("sha256", ["", "abc", "no hex digits", SHA256 + "0"])
def test_a_hash_must_be_one(tmp_path, sha256):
    with pytest.raises(ValueError, match="8 to 64 hex digits"):
        fetch(["https://test/good"], tmp_path / "set.bin", sha256=sha256)


def test_a_dropped_connection_goes_on_where_it_broke(publisher, tmp_path):
    fetch(["https://test/drops"], tmp_path / "set.bin", sha256=SHA256)
    assert publisher.requests == [("/drops", None), ("/drops", f"bytes={len(CONTENT) // 2}-")]
    assert _left(tmp_path) == ["set.bin"]


def test_what_an_earlier_process_left_is_used(publisher, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:1_000])
    fetch(["https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert publisher.requests == [("/good", "bytes=1000-")]


def test_a_server_that_does_not_resume_starts_again(publisher, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:1_000])
    fetch(["https://test/no-range"], tmp_path / "set.bin", sha256=SHA256)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"something else", CONTENT + b"too long", b"x" * len(CONTENT)])
def test_a_part_of_another_file_is_thrown_away(publisher, tmp_path, part):
    (tmp_path / "set.bin.part").write_bytes(part)
    fetch(["https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert _left(tmp_path) == ["set.bin"]


@pytest.mark.parametrize("first", ["403", "404", "wrong"])
def test_the_next_mirror_is_asked_at_once_where_trying_again_is_no_use(publisher, tmp_path, first):
    fetch([f"https://test/{first}", "https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert [path for path, _ in publisher.requests] == [f"/{first}", "/good"]


def test_a_server_that_is_busy_is_tried_again(publisher, tmp_path):
    fetch(["https://test/flaky"], tmp_path / "set.bin", sha256=SHA256)
    assert [path for path, _ in publisher.requests] == ["/flaky", "/flaky"]


def test_a_file_of_another_size_is_not_even_fetched(publisher, tmp_path):
    with pytest.raises(DataError, match=rf"has {len(CONTENT) + 4} bytes there, expected {len(CONTENT)}"):
        fetch(["https://test/long"], tmp_path / "set.bin", sha256=SHA256, size=len(CONTENT))
    assert _left(tmp_path) == []


def test_a_failure_names_every_address_its_reason_and_the_place(publisher, tmp_path):
    path = tmp_path / "set.bin"
    with pytest.raises(DataError) as caught:
        fetch(["https://test/403", "https://test/wrong"], path, sha256=SHA256)
    text = str(caught.value)
    for words in ("https://test/403: HTTP 403", "https://test/wrong: the file has sha256", SHA256, f"put the file at {path}"):
        assert words in text
    assert hashlib.sha256(b"x" * len(CONTENT)).hexdigest() in text  # both hashes
    assert _left(tmp_path) == []
    assert caught.value.exit_code == 3


def test_a_wrong_file_in_place_is_named_and_left_alone(publisher, tmp_path):
    path = tmp_path / "set.bin"
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="not the published file") as caught:
        fetch(["https://test/good"], path, sha256=SHA256)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"mine").hexdigest() in str(caught.value)
    assert path.read_bytes() == b"mine"
    assert publisher.requests == []


@pytest.mark.parametrize("url", ["http://test/good", "ftp://test/good", "file:///etc/passwd", "HTTP://test/good"])
def test_only_https_is_asked(publisher, tmp_path, url):
    with pytest.raises(UnsafeError, match="not an https address"):
        fetch([url, "https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert publisher.requests == []


def test_a_redirect_away_from_https_is_refused():
    handler = download._HttpsOnly()
    request = urllib.request.Request("https://test/good")
    with pytest.raises(UnsafeError, match="http://test/good"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://test/good")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://other/good").full_url == "https://other/good"


def test_offline_refuses_at_once_and_says_how_to_help_oneself(publisher, tmp_path, monkeypatch):
    monkeypatch.setenv("DLZOO_OFFLINE", "1")
    path = tmp_path / "set.bin"
    with pytest.raises(DataError, match="DLZOO_OFFLINE") as caught:
        fetch(["https://test/good"], path, sha256=SHA256)
    assert f"put the file at {path}" in str(caught.value)
    assert "https://test/good" in str(caught.value)
    assert publisher.requests == []
    path.write_bytes(CONTENT)
    assert fetch(["https://test/good"], path, sha256=SHA256) == path


def test_four_at_once_download_once(publisher, tmp_path):
    path, done = tmp_path / "set.bin", []
    threads = [
        threading.Thread(target=lambda: done.append(fetch(["https://test/good"], path, sha256=SHA256).read_bytes() == CONTENT))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 4
    assert publisher.requests == [("/good", None)]


def test_a_place_that_cannot_be_written_is_a_storage_error(publisher, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"set\.bin cannot be written"):
        fetch(["https://test/good"], tmp_path / "file" / "set.bin", sha256=SHA256)


def test_a_full_disk_is_a_storage_error(publisher, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        fetch(["https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert "free some space" in str(caught.value)
    assert not (tmp_path / "set.bin").exists()


def test_no_network_names_the_reason(monkeypatch, tmp_path):
    def unreachable(url, first_byte):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.delenv("DLZOO_OFFLINE", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "_open", unreachable)
    with pytest.raises(DataError, match="https://test/good: Name or service not known"):
        fetch(["https://test/good"], tmp_path / "set.bin", sha256=SHA256)


def test_a_server_that_stalls_is_left_for_the_next(publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    started = time.monotonic()
    fetch(["https://test/stalls", "https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert time.monotonic() - started < 10
    assert publisher.requests == [("/stalls", None), ("/good", "bytes=1000-")], "what had come is used"
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_length_that_is_a_lie_never_ends_in_a_file(publisher, tmp_path):
    with pytest.raises(DataError, match="https://test/lies: the file has sha256"):
        fetch(["https://test/lies"], tmp_path / "set.bin", sha256=SHA256)
    assert _left(tmp_path) == []
    fetch(["https://test/lies", "https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_server_that_sends_one_on_to_http_is_refused_and_the_next_asked(publisher, tmp_path, monkeypatch):
    """The opener of the real thing, on a server that redirects to http; only the first step is made http for the test."""

    def connect(url, first_byte):
        local = url.replace("https://test", f"http://127.0.0.1:{publisher.server_port}")
        return urllib.request.build_opener(download._HttpsOnly).open(local, timeout=5)

    monkeypatch.setattr(download, "_open", connect)
    with pytest.raises(DataError, match=r"is not an https address"):
        fetch(["https://test/redirect"], tmp_path / "set.bin", sha256=SHA256)
    assert publisher.requests == [("/redirect", None)], "the http address was asked"
    fetch(["https://test/redirect", "https://test/good"], tmp_path / "set.bin", sha256=SHA256)
    assert _left(tmp_path) == ["set.bin"]


PROCESS = """
import sys, time, urllib.request
from pathlib import Path
from dlzoo.data import download
port, path, sha256, start = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
def connect(url, first_byte):
    headers = {"Range": f"bytes={first_byte}-"} if first_byte else {}
    local = url.replace("https://test", f"http://127.0.0.1:{port}")
    return urllib.request.urlopen(urllib.request.Request(local, headers=headers), timeout=20)
download._open = connect
while time.time() < start:
    time.sleep(0.005)
download.fetch(["https://test/good"], path, sha256=sha256)
"""


def test_four_processes_download_once(publisher, tmp_path):
    path = tmp_path / "set.bin"
    words = [sys.executable, "-c", PROCESS, publisher.server_port, path, SHA256, time.time() + 2]
    environment = {name: value for name, value in os.environ.items() if name != "DLZOO_OFFLINE"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    processes = [subprocess.Popen(list(map(str, words)), env=environment) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert publisher.requests == [("/good", None)]
    assert path.read_bytes() == CONTENT and _left(tmp_path) == ["set.bin"]


def test_a_process_that_is_killed_while_it_downloads_leaves_no_wrong_file(publisher, tmp_path):
    path = tmp_path / "set.bin"
    words = [sys.executable, "-c", PROCESS.replace("test/good", "test/stalls"), publisher.server_port, path, SHA256, 0]
    environment = {name: value for name, value in os.environ.items() if name != "DLZOO_OFFLINE"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(list(map(str, words)), env=environment) as process:
        deadline = time.monotonic() + 30
        while not publisher.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    assert publisher.requests and not path.exists()
    publisher.released.set()
    fetch(["https://test/good"], path, sha256=SHA256)  # the lock of the dead process holds up nobody
    assert path.read_bytes() == CONTENT and _left(tmp_path) == ["set.bin"]


def test_offline_is_told_at_once_by_a_real_command(cli, tmp_path):
    started = os.times().children_user
    done = cli("train", "data=mnist", f"data_dir={tmp_path}", "trainer=cpu", cwd=tmp_path, DLZOO_OFFLINE=1)
    assert done.returncode == 3 and "DLZOO_OFFLINE" in done.stderr and "by hand" in done.stderr
    assert not list(tmp_path.rglob("*.part")) and os.times().children_user - started < 30

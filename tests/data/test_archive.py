"""Archives that lie about where their files go, or how large they are, are refused; nothing is left behind."""

import gzip
import io
import tarfile
import tracemalloc
import warnings
import zipfile

import pytest

from dlzoo.data import archive
from dlzoo.data.archive import Limits, extract, members
from dlzoo.errors import DataError, UnsafeError

DEFAULT = Limits()
FILES = {"set/a.txt": b"a" * 10, "set/sub/b.txt": b"b" * 2_000_000}


def _tar(path, files=FILES, mode="w:gz", change=None):
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if change:
                change(info)
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def _zip(path, files=FILES, attributes=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes
            packed.writestr(info, content)
    return path


@pytest.fixture(params=["tar", "tar.gz", "tar.xz", "zip"])
def good(request, tmp_path):
    path = tmp_path / f"good.{request.param}"
    return _zip(path) if request.param == "zip" else _tar(path, mode=f"w:{request.param[4:]}")


def test_members_are_read_in_order_without_writing(good):
    assert list(members(good)) == list(FILES.items())
    assert list(good.parent.iterdir()) == [good]


def test_a_good_archive_is_unpacked_whole(good, tmp_path):
    out = extract(good, tmp_path / "out")
    assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()} == FILES
    assert {path.name for path in tmp_path.iterdir()} == {good.name, "out"}


def _refused(path, words, limits=DEFAULT):
    before = sorted(path.parent.rglob("*"))
    for read in (lambda: list(members(path, limits)), lambda: extract(path, path.parent / "in" / "out", limits)):
        with pytest.raises(UnsafeError, match=words) as caught:
            read()
        assert caught.value.exit_code == 9
    left = set(path.parent.rglob("*")) - set(before)
    assert left <= {path.parent / "in"}, "something was left behind"


STRANGE = ["../evil", "set/../../evil", "/evil", "set/..\\..\\evil", "C:/evil", "C:evil", "\\\\host\\evil"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, kind, name):
    files = {"set/good.txt": b"good", name: b"evil"}
    _refused((_tar if kind == "tar" else _zip)(tmp_path / "bad", files), "would leave the folder")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    def change(info):
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    _refused(_tar(tmp_path / "bad", {"set/link": b""}, change=change), "link or a device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    _refused(_zip(tmp_path / "bad", {"set/link": b"/etc/passwd"}, attributes=0o120777 << 16), "link or a device")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_stopped(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    bomb = (_tar if kind == "tar" else _zip)(tmp_path / "bomb", {"set/zeros": bytes(32 << 20)})
    assert bomb.stat().st_size * 200 < 32 << 20
    _refused(bomb, "unpacks to more than")


def test_there_are_limits_on_size_and_number(tmp_path):
    good = _tar(tmp_path / "good")
    _refused(good, "more than 1 members", Limits(files=1))
    _refused(good, "more than 1000 bytes", Limits(size=1_000))


def test_a_name_that_comes_twice_is_refused(tmp_path):
    path = tmp_path / "twice.tar"
    with tarfile.open(path, "w") as tar:
        for content in (b"one", b"two"):
            info = tarfile.TarInfo("set/a")
            info.size = 3
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UnsafeError, match="same name twice"):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_damaged_archive_is_named_and_leaves_nothing(good, tmp_path, keep):
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=good.name):
        extract(good, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no archive"):
        list(members(tmp_path / "nowhere.tar"))


def test_a_folder_with_something_in_it_is_left_alone(good, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    with pytest.raises(DataError, match="not empty"):
        extract(good, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_link_that_a_later_member_goes_through_is_refused(tmp_path):
    """The classic: a link to a folder outside, then a file in that folder."""
    path, outside = tmp_path / "bad.tar", tmp_path / "outside"
    outside.mkdir()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(path, "w") as tar:
            link = tarfile.TarInfo("set/door")
            link.type, link.linkname = kind, str(outside)
            tar.addfile(link)
            info = tarfile.TarInfo("set/door/evil")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        _refused(path, "link or a device")
        assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [("set/a", "set/a"), ("set/a", "set/a/b"), ("set/a/b", "set/a"), ("set/a", "set//a"), ("set/a", "./set/a")],
)
def test_names_that_fall_together_are_refused(tmp_path, kind, first, second):
    """The same file twice, in other words, or a file where a folder is."""
    path = tmp_path / f"twice.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            for name in (first, second):
                info = tarfile.TarInfo(name)
                info.size = 3
                tar.addfile(info, io.BytesIO(b"one"))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile tells of the same name
            _zip(path, {first: b"one"})
            with zipfile.ZipFile(path, "a") as packed:
                packed.writestr(second, b"two")
    with pytest.raises((UnsafeError, DataError)) as caught:
        extract(path, tmp_path / "out")
    assert caught.value.exit_code in (3, 9) and not (tmp_path / "out").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name}


def test_an_archive_in_another_name_of_itself_is_no_way_out(tmp_path):
    """A zip whose inner header says another name than its list: what the list says is used."""
    path = _zip(tmp_path / "bad.zip", {"set/good": b"good"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"set/good", b"../../ev", 1))
    with pytest.raises((UnsafeError, DataError)):
        extract(path, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("ev"))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip"])
def test_a_bomb_fills_no_memory_before_it_is_stopped(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    path = tmp_path / "bomb"
    zeros = {"set/zeros": bytes(128 << 20)}
    bomb = _zip(path, zeros) if kind == "zip" else _tar(path, zeros, mode=f"w:{kind}")
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(UnsafeError, match="unpacks to more than"):
            extract(bomb, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert [entry.name for entry in tmp_path.iterdir()] == ["bomb"]


def test_a_zip_that_lies_about_its_sizes_is_stopped_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    path = _zip(tmp_path / "bomb.zip", {"set/zeros": bytes(32 << 20)})
    data = path.read_bytes()
    path.write_bytes(data.replace((32 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises((UnsafeError, DataError)):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_empty_members_are_counted(tmp_path):
    path = tmp_path / "many.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number in range(300):
            tar.addfile(tarfile.TarInfo(f"set/{number}"))
    _refused(path, "more than 200 members", Limits(files=200))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path, kind):
    """tarfile reads these headers whole, before anyone sees a member."""
    path = tmp_path / "bad.tar.gz"
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 512 << 20
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(512):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        _refused(path, "a header of 536870912 bytes")
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()

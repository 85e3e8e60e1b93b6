"""Class folders in an archive: found where they are, unpacked once, beside the archive or in the cache."""

import io
import os
import tarfile
import zipfile

import pytest

from dlzoo.data.unpacked import opened
from dlzoo.errors import DataError, UnsafeError

FILES = ("set/train/ant/1.jpg", "set/train/bee/2.jpg", "set/val/ant/3.jpg", "set/val/bee/4.jpg")


def _tar(path, names=FILES, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return path


def _found(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["set.tar", "Set.TAR.GZ", "a.tgz"])
def test_an_archive_is_unpacked_beside_itself_once(name, tmp_path):
    archive = _tar(tmp_path / name, mode="w:gz" if "g" in name.lower() else "w")
    folder = opened(archive)
    assert folder.name == "set" and folder.parent.parent == tmp_path and (folder / "train" / "ant" / "1.jpg").is_file()
    before = (folder / "train" / "ant" / "1.jpg").stat().st_ino
    assert opened(archive) == folder and (folder / "train" / "ant" / "1.jpg").stat().st_ino == before


def test_a_folder_that_holds_an_archive_is_as_good(tmp_path):
    (tmp_path / "data").mkdir()
    _tar(tmp_path / "data" / "set.tar")
    folder = opened(tmp_path / "data")
    assert _found(folder) == [name.removeprefix("set/") for name in FILES]
    assert opened(tmp_path / "data" / "set") == folder


def test_a_zip_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for name in FILES:
            packed.writestr(name, b"abc")
    assert len(_found(opened(tmp_path))) == 4


def test_where_nothing_may_be_written_the_cache_takes_it(tmp_path, cache):
    place = tmp_path / "shared"
    place.mkdir()
    _tar(place / "set.tar")
    place.chmod(0o555)
    try:
        folder = opened(place)
        assert folder.is_relative_to(cache) and len(_found(folder)) == 4
        assert opened(place) == folder and os.listdir(place) == ["set.tar"]
    finally:
        place.chmod(0o755)


@pytest.mark.parametrize("names", [("train/ant/1.jpg", "train/bee/1.jpg"), ("ant/1.jpg", "bee/1.jpg")])
def test_folders_are_taken_as_they_are(names, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    assert opened(tmp_path) == tmp_path


def test_one_folder_of_pictures_is_a_class_and_no_data_set(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "1.jpg").write_bytes(b"abc")
    assert opened(tmp_path) == tmp_path


def test_what_is_missing_or_empty_is_left_to_the_reader(tmp_path):
    assert opened(tmp_path / "nowhere") == tmp_path / "nowhere"
    assert opened(tmp_path) == tmp_path


def test_of_several_archives_none_is_guessed(tmp_path):
    _tar(tmp_path / "one.tar")
    _tar(tmp_path / "two.tar")
    with pytest.raises(DataError, match=r"several archives: one\.tar, two\.tar") as caught:
        opened(tmp_path)
    assert caught.value.fix == f"data.root={tmp_path / 'one.tar'}"


def test_an_archive_that_would_leave_its_folder_is_refused(tmp_path):
    archive = _tar(tmp_path / "set.tar", ["../evil.jpg"])
    with pytest.raises(UnsafeError, match="would leave the folder"):
        opened(archive)
    assert not (tmp_path / "set").exists() and not (tmp_path.parent / "evil.jpg").exists()

"""Class folders: what counts as a class and as a picture, and what is said when there is none."""

import subprocess
import sys

import pytest

from dlzoo.data.folder import class_folders, class_names, pictures
from dlzoo.errors import DataError


def _make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_classes_are_the_visible_folders_in_order(tmp_path):
    _make(tmp_path, "dog/1.jpg", "cat/1.jpg", ".hidden/1.jpg", "readme.txt")
    assert class_folders(tmp_path) == class_names(tmp_path) == ("cat", "dog")


def test_a_train_folder_names_the_classes(tmp_path):
    _make(tmp_path, "train/b/1.jpg", "train/a/1.jpg", "test/a/1.jpg")
    assert class_names(tmp_path) == ("a", "b")


def test_pictures_are_found_by_extension_in_folders_of_folders(tmp_path):
    _make(tmp_path, "cat/b.PNG", "cat/a.jpg", "cat/notes.txt", "cat/.thumb.jpg", "dog/deep/er/c.jpeg", "dog/a.webp")
    found = [(path.relative_to(tmp_path).as_posix(), label) for path, label in pictures(tmp_path, ("cat", "dog"))]
    assert found == [("cat/a.jpg", 0), ("cat/b.PNG", 0), ("dog/a.webp", 1), ("dog/deep/er/c.jpeg", 1)]


@pytest.mark.parametrize(
    ("files", "classes", "words", "fix"),
    [
        ((), ("cat",), "there is no folder", "one folder for each class"),
        (("readme.txt",), ("cat",), "has no class folders", "a folder of its own"),
        (("cat/1.jpg", "dog/readme.txt"), ("cat", "dog"), "the class 'dog' has no pictures", "remove the folder"),
        (("cat/1.jpg",), ("cat", "dog"), "the class 'dog' has no pictures", "remove the folder"),
        (("cat/1.jpg", "bird/1.jpg"), ("cat",), "a class that the training pictures have not", "bird"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(tmp_path, files, classes, words, fix):
    root = tmp_path / "root"
    _make(root, *files)
    with pytest.raises(DataError, match=words) as caught:
        pictures(root, classes)
    assert fix in caught.value.fix
    assert str(root) in caught.value.where


def test_counting_classes_needs_no_torch():
    code = "import sys, dlzoo.data.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

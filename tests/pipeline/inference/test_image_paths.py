"""Which files `--image` means, and what their outputs are called."""

import io
import os
from types import SimpleNamespace

import pytest

from AnomalyCLIP_lib import InputError
from pipeline.inference.image_paths import find_image_files


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The current folder, with photos/ in it."""
    for name in ("b.png", "a.jpg", "notes.txt", "sub/c.png", "sub/deep/d.png", "sub/.hidden.png", "[1] top*.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def listed(monkeypatch, content):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def names(*given, **options):
    """Files and outputs, as text."""
    pictures = find_image_files(given, **options)
    return [str(picture.path) for picture in pictures], [str(picture.output) for picture in pictures]


def test_folders_with_and_without_their_subfolders(photos):
    found, outputs = names("photos")
    assert found == ["photos/[1] top*.png", "photos/a.jpg", "photos/b.png", "photos/sub/c.png", "photos/sub/deep/d.png"]
    assert outputs == ["[1] top*", "a", "b", "sub/c", "sub/deep/d"]
    assert names("photos", recursive=False)[0] == found[:3]


def test_globs_mean_what_the_shell_would_make_of_them(photos):
    assert names("photos/*.jpg") == (["photos/a.jpg"], ["a"])
    assert names("photos/?.*")[0] == ["photos/a.jpg", "photos/b.png"]
    assert names("photos/s*") == (["photos/sub/c.png", "photos/sub/deep/d.png"], ["sub/c", "sub/deep/d"])
    assert names("photos/s*", recursive=False)[0] == ["photos/sub/c.png"]
    assert names("photos/*.t*")[0] == ["photos/notes.txt"]  # a bad file, told when its turn comes


def test_two_stars_reach_into_subfolders(photos):
    every = names("photos")[0]
    assert names("photos/**/*.*g")[0] == every
    assert names("photos/**/*.png", recursive=False) == (
        ["photos/[1] top*.png", "photos/b.png", "photos/sub/c.png", "photos/sub/deep/d.png"],
        ["[1] top*", "b", "sub/c", "sub/deep/d"],
    )


def test_a_file_with_wildcards_in_its_name_is_that_file(photos):
    assert names("photos/[1] top*.png") == (["photos/[1] top*.png"], ["[1] top*"])
    (photos / "[ab]").mkdir()
    (photos / "[ab]" / "x.png").write_bytes(b"")
    assert names("photos/[ab]")[0] == ["photos/[ab]/x.png"]
    assert names("photos/[ab].*")[0] == ["photos/a.jpg", "photos/b.png"]


@pytest.mark.parametrize("pattern", ["photos/*.gif", "nowhere/**/*.png", "photos/[xyz].png"])
def test_a_glob_that_matches_nothing(photos, pattern):
    with pytest.raises(InputError, match=r"The glob .* matches no images; .*quote it"):
        find_image_files([pattern])


def test_each_file_once_and_sorted(photos):
    (photos / "link.png").symlink_to(photos / "b.png")
    again = names("photos/b.png", "photos", "photos/../photos/*.png", str(photos), "photos/b.png")[0]
    assert [os.path.basename(path) for path in again] == ["[1] top*.png", "a.jpg", "b.png", "c.png", "d.png"]


def test_a_list_on_standard_input(photos, monkeypatch):
    listed(monkeypatch, b"photos/b.png\n\n  \nphotos/sub\r\nphotos/?.jpg\nphotos/missing.png\n")
    found, outputs = names("-", "-", "photos/sub/c.png")
    expected = ["a.jpg", "b.png", "missing.png", "sub/c.png", "sub/deep/d.png"]
    assert found == [f"photos/{name}" for name in expected]
    assert outputs == ["photos/a", "photos/b", "photos/missing", "photos/sub/c", "photos/sub/deep/d"]


def test_outputs_of_a_list_stay_below_the_save_path(photos, monkeypatch):
    listed(monkeypatch, f"{photos}/b.png\n../{photos.parent.name}/photos/a.jpg".encode())
    outputs = dict(zip(*names("-"), strict=True))
    assert outputs[f"{photos}/b.png"] == str(photos / "b").lstrip("/")
    assert outputs[f"../{photos.parent.name}/photos/a.jpg"] == f"{photos.parent.name}/photos/a"


def test_names_on_standard_input_need_not_be_utf_8(photos, monkeypatch):
    listed(monkeypatch, b"photos/\xff.png\n")
    assert os.fsencode(find_image_files(["-"])[0].path) == b"photos/\xff.png"


@pytest.mark.parametrize(
    "content, complaint", [(b"", "is empty"), (b"\n  \n", "is empty"), (b"a.png\0b.png", "null bytes.*-print0")]
)
def test_lists_that_cannot_be_used(photos, monkeypatch, content, complaint):
    listed(monkeypatch, content)
    with pytest.raises(InputError, match=complaint):
        find_image_files(["photos/b.png", "-"])


def test_a_closed_standard_input(photos, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="is empty"):
        find_image_files(["-"])


def test_what_an_earlier_run_wrote_is_not_found(photos, tmp_path):
    results = photos / "results"
    (results / "sub").mkdir(parents=True)
    for name in ("b.png", "sub/c.png"):
        (results / name).write_bytes(b"")
    before = [name for name in names("photos")[0] if "results" not in name]
    assert names("photos", save_path=results)[0] == before
    assert names("photos/**/*.*g", save_path="photos/results")[0] == before
    assert names("photos/results", save_path=results)[0] == ["photos/results/b.png", "photos/results/sub/c.png"]
    assert names("photos/results/*.png", save_path=results)[0] == ["photos/results/b.png"]


def test_a_folder_without_images_and_an_empty_path(photos):
    (photos / "empty").mkdir()
    with pytest.raises(InputError, match="photos/empty holds no images"):
        find_image_files(["photos/b.png", "photos/empty"])
    with pytest.raises(InputError, match="empty path"):
        find_image_files(["photos", ""])

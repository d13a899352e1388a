"""Pictures of every kind come out as the RGB that a person sees, masks as what they mean."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import encoded, picture

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import (
    IMAGE_EXTENSIONS,
    decode_mask,
    image_size,
    list_images,
    mask_threshold_for,
    read_image,
    resize_mask,
    to_rgb,
)

RAMP = np.array([[0, 100], [200, 255]], np.uint8)


def _saved(folder: Path, image: Image.Image, extension: str, **options: Any) -> Path:
    path = folder / f"image.{extension}"
    image.save(path, **options)
    return path


def _pixels(path: Path) -> list[list[list[int]]]:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def _grey(values: np.ndarray) -> list[list[list[int]]]:
    return np.repeat(values[..., None], 3, axis=2).tolist()


def test_black_and_white_and_grey(tmp_path: Path) -> None:
    assert _pixels(_saved(tmp_path, Image.fromarray(RAMP > 150), "png")) == _grey(np.where(RAMP > 150, 255, 0))
    assert _pixels(_saved(tmp_path, Image.fromarray(RAMP), "png")) == _grey(RAMP)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    for extension in ("png", "tif"):
        assert _pixels(_saved(tmp_path, wide, extension)) == _grey(RAMP)
    pgm = tmp_path / "wide.pgm"  # older versions of Pillow read 16-bit PGM, but do not write it
    pgm.write_bytes(b"P5 %d %d 65535\n" % wide.size + np.asarray(wide).astype(">u2").tobytes())
    assert _pixels(pgm) == _grey(RAMP)
    assert np.asarray(to_rgb(wide)).tolist() == _grey(RAMP)


def test_whole_numbers_and_floats() -> None:
    assert np.asarray(to_rgb(Image.fromarray(RAMP.astype(np.int32)))).tolist() == _grey(RAMP)
    assert np.asarray(to_rgb(Image.fromarray(RAMP.astype(np.float32) / 255))).tolist() == _grey(RAMP)
    assert np.asarray(to_rgb(Image.fromarray(RAMP.astype(np.float32) * 10 - 1))).tolist() == _grey(RAMP)


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    red, green, blue, white = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
    assert image.mode == "P"
    assert _pixels(_saved(tmp_path, image, "png")) == [[red, green], [blue, blue]]
    assert _pixels(_saved(tmp_path, image, "png", transparency=1)) == [[red, white], [blue, blue]]
    assert _pixels(_saved(tmp_path, image, "gif", transparency=0)) == [[white, green], [blue, blue]]


def test_transparent_parts_lie_on_white(tmp_path: Path) -> None:
    alpha = np.array([[255, 0], [255, 128]], np.uint8)
    with_alpha = Image.merge("LA", (Image.fromarray(np.zeros_like(RAMP)), Image.fromarray(alpha)))
    expected = _grey(np.array([[0, 255], [0, 127]]))
    assert _pixels(_saved(tmp_path, with_alpha, "png")) == expected
    assert _pixels(_saved(tmp_path, with_alpha.convert("RGBA"), "png")) == expected
    assert np.asarray(to_rgb(with_alpha.convert("RGBA").convert("RGBa"))).tolist() == expected
    keyed = _saved(tmp_path, Image.fromarray(np.zeros((1, 2, 3), np.uint8)), "png", transparency=(0, 0, 0))
    assert _pixels(keyed) == [[[255, 255, 255]] * 2]


def test_cmyk(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for path in (_saved(tmp_path, image, "tif"), _saved(tmp_path, image, "jpg", quality=95)):
        assert np.abs(np.array(_pixels(path))[8, 8] - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "PA", "La", "RGBX", "I;16B"])
def test_rarer_modes(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def test_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), "white")
    image.paste((0, 0, 0), (0, 0, 16, 16))  # black on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: black on top
    path = _saved(tmp_path, image, "jpg", exif=exif, quality=95)
    seen = np.asarray(read_image(path))
    assert seen.shape == (32, 16, 3)
    assert seen[:14].max() < 20
    assert seen[18:].min() > 235
    assert image_size(path) == (16, 32)
    with Image.open(path) as opened:
        assert to_rgb(opened).size == (16, 32)


def test_first_page_of_several(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 3), value) for value in (10, 200)]
    path = _saved(tmp_path, pages[0], "tif", save_all=True, append_images=pages[1:])
    assert _pixels(path) == _grey(np.full((3, 4), 10))


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "tif"])
def test_truncated(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{extension}"
    data = picture(extension, height=64, width=64)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged or cut short") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_image_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    with pytest.raises(InputError, match=r"image\.png does not exist"):
        read_image(path)
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"image\.png is empty"):
        read_image(path)
    path.write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"image\.png is not an image"):
        read_image(path)
    path.write_bytes(picture("png", height=64, width=64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r"image\.png is refused: .* pixels"):
        read_image(path)


def test_list_images(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "a.tiff", "c.txt", ".hidden.png", ".cache/1.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == [
        "a.tiff",
        "b/10.png",
        "b/2.JPG",
    ]
    assert ".webp" in IMAGE_EXTENSIONS
    with pytest.raises(InputError, match="cannot be read"):
        list_images(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a file"):
        list_images(tmp_path / "c.txt")


def _mask(image: Image.Image, extension: str, threshold: int | None = None) -> list[list[int]]:
    data = encoded(image, extension)
    return decode_mask(data, Path("mask"), "auto" if threshold is None else threshold).astype(int).tolist()


def test_masks_of_every_mode() -> None:
    labels = np.array([[0, 1], [3, 255]], np.uint8)
    cut = [[0, 1], [1, 1]]
    assert _mask(Image.fromarray(labels), "png") == cut
    assert _mask(Image.fromarray(labels > 0), "png") == cut
    assert _mask(Image.fromarray(labels.astype(np.uint16)), "png") == cut
    assert _mask(Image.fromarray(labels.astype(np.uint16) * 257), "png") == cut
    assert _mask(Image.fromarray(labels).convert("RGB"), "png") == cut
    assert _mask(Image.fromarray(labels), "png", threshold=3) == [[0, 0], [0, 1]]


def test_palette_masks() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0, 128, 0, 0])  # white, black, dark red
    assert _mask(image, "png") == [[1, 0], [1, 1]]  # what a person sees
    image.putpalette([0] * 9)  # a person sees nothing: the labels count
    assert _mask(image, "png") == [[0, 1], [1, 1]]


def test_a_jpeg_mask_is_known_by_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(picture("jpg"))
    assert mask_threshold_for(path, "auto") == 127
    assert mask_threshold_for(path, 0) == 0
    path.write_bytes(picture("png"))
    assert mask_threshold_for(path, "auto") == 0
    with pytest.raises(InputError, match="nothing"):
        mask_threshold_for(tmp_path / "nothing.png", "auto")
    grey = Image.new("L", (8, 8), 100)
    assert not np.any(_mask(grey, "jpg"))
    assert np.all(_mask(grey, "jpg", threshold=0))
    assert np.all(_mask(grey, "png"))


@pytest.mark.parametrize("shape", [(40, 40), (31, 57), (7, 5)])
def test_resized_masks_equal_those_of_torchvision(shape: tuple[int, int]) -> None:
    """The published pipeline: cut to 0 and 255, Resize on the PIL image, ToTensor, cut at one half."""
    from torchvision import transforms

    mask = np.random.default_rng(0).random(shape) > 0.6
    pipeline = transforms.Compose([transforms.Resize((24, 24)), transforms.ToTensor()])
    expected = np.asarray(pipeline(Image.fromarray(mask.astype(np.uint8) * 255))) > 0.5
    assert resize_mask(mask, 24).tolist() == expected[0].astype(int).tolist()


def test_a_mask_that_is_no_image_is_named() -> None:
    with pytest.raises(InputError, match=r"folder/mask\.png"):
        decode_mask(b"junk", Path("folder/mask.png"))


def test_formats_that_run_programs_are_no_pictures(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"picture\.png is not an image"):
        read_image(path)


def test_an_even_picture_of_large_numbers(tmp_path):
    path = tmp_path / "even.tif"
    Image.fromarray(np.full((4, 5), 70000, np.int32)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.asarray(read_image(path)).max() == 0

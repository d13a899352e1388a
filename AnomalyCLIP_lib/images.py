"""Reading pictures and masks from files, whatever their format, and finding them in folders.

Nothing here needs torch, so that the tools which only look at files start at once.
"""

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps

from AnomalyCLIP_lib.errors import InputError

IMAGE_EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Of Pillow's: those of pictures. Others hand the file to programs of the system (EPS to Ghostscript)."""
JPEG_THRESHOLD = 127
"""Where a mask stored as JPEG is cut: its compression leaves grey noise around 0 and around 255."""

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_JPEG_MAGIC = b"\xff\xd8\xff"


def read_image(path: str | Path) -> Image.Image:
    """Read a picture as a person sees it.

    Args:
        path: A file in any format that Pillow reads; of several pages or frames the first one counts.

    Returns:
        The picture in mode RGB, turned as its EXIF entry says, transparent parts on white.

    Raises:
        InputError: the file is missing, a folder, empty, cut short, not an image, or unreasonably large.
    """
    path = Path(path)
    return decode_image(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises:
        InputError: the file is missing, a folder, empty or not readable; the sentence names it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder where an image file is needed; name a file in it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again.")
    return data


def decode_image(data: bytes, path: Path) -> Image.Image:
    """`read_image` for the contents of a file already read; `path` is for the error messages."""
    return to_rgb(_decode(data, path))


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode, as the RGB a person sees.

    Turned as its EXIF entry says; transparent parts on white; 16 bits a pixel scaled down to 8. Whole
    numbers of 32 bits and floats, which have no agreed white: values up to 255 are taken as they are,
    floats up to 1 as a share of white, and larger ones are spread from their least to their greatest.
    """
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_to_grey(image, sixteen_bits).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), inMode="LAB", outMode="RGB"
        )
        converted = ImageCms.applyTransform(image, to_srgb)
        assert converted is not None  # None only when asked to work in place
        return converted
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def mask_threshold_for(mask_path: str | Path, setting: Literal["auto"] | int) -> int:
    """The grey value above which this mask is anomalous.

    Args:
        mask_path: The mask's file; under "auto" its first bytes tell whether it is a JPEG, not its name.
        setting: "auto" (127 for a JPEG, else 0) or the value itself.

    Raises:
        InputError: under "auto", the file is missing or not readable.
    """
    if setting != "auto":
        return setting
    try:
        with open(mask_path, "rb") as file:
            return _auto_threshold(file.read(len(_JPEG_MAGIC)))
    except OSError as error:
        raise InputError(f"The mask {mask_path} cannot be read: {error.strerror}; copy it again.") from error


def decode_mask(data: bytes, path: Path, threshold: Literal["auto"] | int = "auto") -> np.ndarray:
    """A mask's contents, cut: bool (H, W), True where its grey value is above the threshold.

    Grey values are those of Pillow's mode L, but for two kinds of file: of 16 bits (or more) the stored
    number counts, since labels 1, 2, 3 would vanish in 8 bits; and a palette that shows all its labels
    in one grey (black, mostly) says nothing, so the labels themselves count.

    Raises:
        InputError: the contents are cut short or not an image.
    """
    image = _upright(_decode(data, path))
    if threshold == "auto":
        threshold = _auto_threshold(data)
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image) > threshold
    grey = np.asarray(image.convert("L"))
    if image.mode == "P":
        labels = np.asarray(image)
        if (grey == grey.flat[0]).all() and (labels != labels.flat[0]).any():
            grey = labels
    return grey > threshold


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A bool mask (H, W) at the model's size: uint8 (size, size) of 0 and 1, bilinear, cut at one half."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    resized = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return (resized > 127).astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as a person sees it, from its header alone.

    Raises:
        InputError: the file is missing or not an image.
    """
    try:
        with Image.open(path, formats=_formats()) as image:
            width, height = image.size
            # EXIF orientations 5 to 8 lie on their side. Pillow turns TIFF files by itself.
            sideways = image.format != "TIFF" and image.getexif().get(0x0112, 1) >= 5
    except Exception as error:
        raise _sentence(error, path) from error
    return (height, width) if sideways else (width, height)


def list_images(folder: str | Path, recursive: bool = True) -> list[Path]:
    """All images in a folder and, if recursive, its subfolders, sorted by path; hidden ones are passed over.

    Returns:
        Paths that start with `folder`; an empty list where there are none.

    Raises:
        InputError: the folder does not exist or cannot be read.
    """
    folder = Path(folder)
    return [folder / name for name in sorted(dict(walk_files(folder, recursive))) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its extension, in any case."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def walk_files(folder: Path, recursive: bool = True) -> Iterator[tuple[str, int | None]]:
    """Every file below `folder`: its path relative to it with forward slashes, and its size in bytes.

    Links are followed; one that leads nowhere has the size None. Hidden files and folders and those that
    operating systems leave behind are passed over, and all folders where not `recursive`. The order is the
    file system's: sort it.

    Raises:
        InputError: a folder does not exist or cannot be read.
    """
    waiting = [("", os.path.realpath(folder))]
    while waiting:
        prefix, real = waiting.pop()
        try:
            entries = list(os.scandir(folder / prefix))
        except NotADirectoryError:
            raise InputError(f"{folder / prefix} is a file where a folder is needed; name a folder.") from None
        except OSError as error:
            raise InputError(f"The folder {folder / prefix} cannot be read: {error.strerror}.") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FILES:
                continue
            if not entry.is_dir():
                yield prefix + entry.name, _size(entry)
                continue
            if not recursive:
                continue
            target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            if not _is_inside(real, target):  # a link to a folder above would go round for ever
                waiting.append((prefix + entry.name + "/", target))


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:
        return None


def _auto_threshold(start: bytes) -> int:
    return JPEG_THRESHOLD if start.startswith(_JPEG_MAGIC) else 0


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decode(data: bytes, path: Path) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
        image.load()
    except Exception as error:  # the decoders raise whatever comes: OSError, SyntaxError, struct.error, ...
        raise _sentence(error, path) from error
    return image


def _sentence(error: Exception, path: Path) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist; check the path.")
    if isinstance(error, Image.DecompressionBombError):
        return InputError(f"{path} is refused: it unpacks to far more pixels than a picture has; make it smaller.")
    if isinstance(error, Image.UnidentifiedImageError):
        return InputError(f"{path} is not an image in a format that is read here; replace it or leave it out.")
    return InputError(f"{path} is damaged or cut short ({error}); copy or download it again.")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block keeps no viewer from showing the picture
        return image


def _wide_to_grey(image: Image.Image, sixteen_bits: bool) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    least, greatest = values.min(), values.max()
    if sixteen_bits:  # white is 65535; older Pillows open such PNGs as mode I
        values = values / 257
    elif image.mode == "F" and least >= 0 and greatest <= 1:
        values = values * 255
    elif least < 0 or greatest > 255:
        values = (values - least) * (255 / (greatest - least) if greatest > least else 0)
    grey = np.rint(values).astype(np.uint8)
    if "transparency" in image.info:
        grey[np.asarray(image) == image.info["transparency"]] = 255
    return Image.fromarray(grey)

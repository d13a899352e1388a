"""Text and a colour bar around a picture, never on it."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GROUND, INK = (238, 238, 238), (24, 24, 24)  # black and white pictures both stand out from this ground
LEAST_TEXT = 13
TEXT_SHARE = 1 / 50
LEAST_CANVAS = 26
"""Width of the canvas under a narrow picture, in text sizes."""
BAR_LENGTH, LEAST_BESIDE_BAR = 10, 20
"""In text sizes: the bar, and the text that has to fit beside it; else the bar goes below the text."""
LINE_HEIGHT = 1.35


@dataclass(frozen=True)
class ColourBar:
    """The scale of a picture's colours, from 0 to 1.

    Attributes:
        colours: (256, 3) uint8 RGB of the values from 0 to 1.
        mark: the value to mark.
        mark_text: what is written at the mark.
    """

    colours: np.ndarray
    mark: float
    mark_text: str


def text_size(width: int, height: int) -> int:
    """Text size in pixels for a picture of this size: in proportion to it, but never too small to read."""
    return max(LEAST_TEXT, round(math.sqrt(width * height) * TEXT_SHARE))


def with_margin(picture: np.ndarray, lines: Sequence[str], bar: ColourBar | None = None) -> np.ndarray:
    """The picture, pixel for pixel, with wrapped lines of text and a colour bar under it.

    Where the picture is narrower than a short line of text, the canvas grows, and the picture stands in its middle.

    Args:
        picture: (height, width, 3) uint8 RGB.

    Returns:
        (taller, at least as wide, 3) uint8 RGB; the picture begins at row 0 and column (canvas - width) // 2.
    """
    height, width = picture.shape[:2]
    size = text_size(width, height)
    font = ImageFont.load_default(size)
    padding, line_height = size // 2, round(size * LINE_HEIGHT)
    bar_picture = None if bar is None else _bar(bar, size)
    room = max(width, LEAST_CANVAS * size) - 2 * padding
    beside = bar_picture is not None and room - bar_picture.width - 2 * padding >= LEAST_BESIDE_BAR * size
    if beside and bar_picture is not None:
        room -= bar_picture.width + 2 * padding
    wrapped = [part for line in lines for part in wrapped_lines(line, font, room)]
    text_width = math.ceil(max((font.getlength(line) for line in wrapped), default=0))
    text_height = len(wrapped) * line_height

    needed_width, needed_height = text_width, text_height
    if bar_picture is not None and beside:
        needed_width += 2 * padding + bar_picture.width
        needed_height = max(needed_height, bar_picture.height)
    elif bar_picture is not None:
        needed_width = max(needed_width, bar_picture.width)
        needed_height += bar_picture.height + padding // 2
    canvas_width = max(width, needed_width + 2 * padding)
    margin = Image.new("RGB", (canvas_width, needed_height + 2 * padding), GROUND)
    draw = ImageDraw.Draw(margin)
    for number, line in enumerate(wrapped):
        draw.text((padding, padding + number * line_height), line, INK, font)
    if bar_picture is not None and beside:
        margin.paste(bar_picture, (canvas_width - padding - bar_picture.width, padding))
    elif bar_picture is not None:
        margin.paste(bar_picture, (padding, padding + text_height + padding // 2))
    canvas = np.empty((height + margin.height, canvas_width, 3), np.uint8)
    left = (canvas_width - width) // 2
    canvas[:height, :left], canvas[:height, left + width :] = GROUND, GROUND
    canvas[:height, left : left + width], canvas[height:] = picture, np.asarray(margin)
    return canvas


def with_title(picture: np.ndarray, title: str, size: int) -> np.ndarray:
    """The picture with a title above it, as wide as the wider of the two; `size` is that of the text, pixels."""
    font = ImageFont.load_default(size)
    height, width = picture.shape[:2]
    above = round(size * LINE_HEIGHT) + size // 3
    canvas_width = max(width, math.ceil(font.getlength(title)) + 2)
    canvas = Image.new("RGB", (canvas_width, above + height), GROUND)
    canvas.paste(Image.fromarray(picture), ((canvas_width - width) // 2, above))
    ImageDraw.Draw(canvas).text((canvas_width / 2, above / 2), title, INK, font, anchor="mm")
    return np.asarray(canvas)


def arranged(pictures: Sequence[np.ndarray], across: bool, gap: int) -> np.ndarray:
    """Pictures (height, width, 3) uint8 RGB in a row (`across`) or a column, `gap` pixels between them."""
    sides = [picture.shape[1 if across else 0] for picture in pictures]
    depth = max(picture.shape[0 if across else 1] for picture in pictures)
    length = sum(sides) + gap * (len(pictures) - 1)
    canvas = np.full((depth, length, 3) if across else (length, depth, 3), GROUND, np.uint8)
    place = 0
    for picture, side in zip(pictures, sides, strict=True):
        height, width = picture.shape[:2]
        if across:
            canvas[:height, place : place + width] = picture
        else:
            left = (depth - width) // 2
            canvas[place : place + height, left : left + width] = picture
        place += side + gap
    return canvas


def wrapped_lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """The text in lines of at most `width` pixels; a word that is longer is broken."""
    # In characters: by the average width of one, and some more, since lines differ; then down until all lines fit.
    longest = math.ceil(1.3 * len(text) * width / max(font.getlength(text.replace("\n", " ")), width, 1))
    while longest > 1:
        lines = textwrap.wrap(text, longest)
        widest = max((font.getlength(line) for line in lines), default=0)
        if widest <= width:
            return lines
        longest = min(longest - 1, max(len(line) for line in lines) - 1)
    return textwrap.wrap(text, 1)


def _bar(bar: ColourBar, size: int) -> Image.Image:
    """The colour bar with 0 and 1 at its ends, and the mark with its text above it."""
    font = ImageFont.load_default(size)
    length, thickness, gap = BAR_LENGTH * size, round(0.9 * size), max(3, size // 3)
    left, right = (math.ceil(font.getlength(text)) + gap for text in "01")
    above = round(size * LINE_HEIGHT) + size // 2  # the mark's text, then its triangle
    canvas = Image.new("RGB", (left + length + right, above + thickness + 1), GROUND)
    draw = ImageDraw.Draw(canvas)
    steps = np.linspace(0, 255, length).round().astype(np.uint8)
    strip = np.repeat(bar.colours[steps][None], thickness, axis=0)
    canvas.paste(Image.fromarray(strip), (left, above))
    middle = above + thickness / 2
    draw.text((0, middle), "0", INK, font, anchor="lm")
    draw.text((left + length + gap, middle), "1", INK, font, anchor="lm")

    place = left + min(max(bar.mark, 0), 1) * (length - 1)
    half = size * 0.3
    draw.polygon([(place - half, above - 2 * half), (place + half, above - 2 * half), (place, above - 1)], INK)
    line = max(1, size // 13)
    draw.rectangle((place - line, above, place + line, above + thickness - 1), (255, 255, 255))
    draw.rectangle((place - line / 2, above, place + line / 2, above + thickness - 1), INK)
    text_width = font.getlength(bar.mark_text)
    start = min(max(place - text_width / 2, 0), canvas.width - text_width)
    draw.text((start, 0), bar.mark_text, INK, font)
    return canvas

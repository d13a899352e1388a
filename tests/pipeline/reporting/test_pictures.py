"""Pictures of maps: one scale for all, the outline around the regions, and the conclusion in the margin."""

import numpy as np
import pytest
from PIL import Image, ImageFont
from scipy import ndimage

from AnomalyCLIP_lib.decisions import Threshold, Thresholds, decide, map_values
from pipeline.reporting.margins import LEAST_TEXT, text_size, with_margin, wrapped_lines
from pipeline.reporting.pictures import (
    KINDS,
    MOST_PANEL_SIDE,
    OUTLINE,
    conclusion,
    heat_colours,
    marked_overlay,
    outline,
    overlay,
    panel,
    save_picture,
)


def thresholds(image=0.5, pixel=0.5, source="test"):
    return Thresholds(Threshold(image, source), Threshold(pixel, source))


def picture_and_values(width, height, seed=0):
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return picture, map_values(rng.random((9, 9), np.float32), 1, (width, height))


# --- the scale ---------------------------------------------------------------------------------------------------


def test_a_normal_picture_stays_cool():
    grey = Image.new("RGB", (8, 6), (128, 128, 128))
    low, high, summed = (
        overlay(grey, map_values(np.full((4, 4), value, np.float32), layers, grey.size))
        for value, layers in ((0.1, 1), (0.9, 1), (0.4, 4))
    )
    assert low.shape == (6, 8, 3) and low.max() < 128 < high.max()
    assert np.array_equal(low, summed)


def test_equal_values_have_equal_colours_in_every_picture():
    grey = Image.new("RGB", (30, 20), (90, 90, 90))
    one = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    other = one * 0.5
    other[7, 9] = one[3, 4]
    assert np.array_equal(overlay(grey, one)[3, 4], overlay(grey, other)[7, 9])


def test_higher_values_are_brighter():
    colours = heat_colours(np.linspace(0, 1, 256)[None])[0].astype(float)
    brightness = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) >= -1).all() and brightness[-1] > 200 > 10 > brightness[0]


def test_without_opacity_the_image_is_as_it_was():
    picture, values = picture_and_values(13, 7)
    assert np.array_equal(overlay(picture, values, 0), np.asarray(picture))


# --- the outline -------------------------------------------------------------------------------------------------


def outlined(reached, ground=128):
    """The pixels that the outline changed, and those in its colour."""
    plain = np.full((*reached.shape, 3), ground, np.uint8)
    drawn = outline(plain, reached.astype(np.float32), 0.5)
    return (drawn != plain).any(axis=2), (drawn == OUTLINE).all(axis=2)


@pytest.mark.parametrize("seed", range(4))
def test_the_outline_lies_around_the_regions(seed):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((90, 130)), 6)
    reached = smooth > np.quantile(smooth, 0.8)
    inside_the_picture = np.zeros_like(reached)
    inside_the_picture[12:-12, 12:-12] = True
    reached &= inside_the_picture
    changed, coloured = outlined(reached)
    distance = ndimage.distance_transform_edt(~reached)
    assert not (changed & reached).any()
    assert distance[changed].max() <= 5
    around = ndimage.binary_dilation(reached, np.ones((3, 3))) & ~reached
    assert changed[around].all()  # without a gap
    labels, count = ndimage.label(reached, np.ones((3, 3)))
    for label in range(1, count + 1):
        assert coloured[ndimage.binary_dilation(labels == label, iterations=5)].any()


@pytest.mark.parametrize("row, column", [(20, 30), (0, 0), (39, 59), (0, 30), (20, 59)])
def test_a_region_of_one_pixel_is_seen_and_not_hidden(row, column):
    reached = np.zeros((40, 60), bool)
    reached[row, column] = True
    changed, coloured = outlined(reached)
    assert coloured.sum() >= 3 and not changed[row, column]


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_the_line_is_told_from_any_ground(ground):
    reached = np.zeros((40, 60), bool)
    reached[10:30, 20:40] = True
    plain = np.full((40, 60, 3), ground, np.uint8)
    drawn = outline(plain, reached.astype(np.float32), 0.5)
    brightness = drawn.astype(float) @ (0.2126, 0.7152, 0.0722)
    row = brightness[20, 10:20]  # across the line
    assert row.max() - row.min() > 150


def test_the_line_closes_along_the_edge_of_the_picture():
    changed, coloured = outlined(np.ones((80, 120), bool))
    assert coloured.any() and changed[0].all() and changed[:, -1].all() and not changed[20:60, 20:100].any()
    half = np.zeros((80, 120), bool)
    half[:, :60] = True
    changed, _ = outlined(half)
    assert changed[:, 0].all() and changed[0, :60].all() and not changed[0, 70:].any()


def test_nothing_reached_nothing_drawn():
    assert not outlined(np.zeros((1, 1), bool))[0].any()
    assert not outlined(np.zeros((30, 20), bool))[0].any()


def test_the_line_grows_with_the_picture():
    widths = []
    for size in (100, 400, 1600):
        reached = np.zeros((size, size), bool)
        reached[size // 4 : size // 2, size // 4 : size // 2] = True
        widths.append(outlined(reached)[1][size // 3, : size // 4].sum())
    assert widths == [1, 2, 8]


# --- the margin --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width, height", [(1, 1), (16, 16), (60, 900), (900, 60), (320, 240), (1300, 900)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_size_can_be_drawn(kind, width, height):
    picture, values = picture_and_values(width, height)
    finding = decide(0.7, thresholds(), values)
    drawn = KINDS[kind](picture, finding, values, values > 0.6, "a note")
    assert drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[2] == 3
    assert drawn.shape[1] >= min(width, MOST_PANEL_SIDE)


@pytest.mark.parametrize("width, height", [(16, 16), (60, 900), (320, 240)])
def test_text_is_never_on_the_image(width, height):
    picture, values = picture_and_values(width, height)
    drawn = marked_overlay(picture, decide(0.7, thresholds(), values), values)
    left = (drawn.shape[1] - width) // 2
    expected = outline(overlay(picture, values), values, 0.5)
    assert np.array_equal(drawn[:height, left : left + width], expected)
    assert (drawn[height:] < 60).any()  # there is text


def test_text_is_readable_at_any_size():
    assert text_size(16, 16) == LEAST_TEXT and text_size(3000, 2000) > 3 * LEAST_TEXT


def test_a_margin_ends_where_its_text_ends():
    """Long lines are wrapped, not cut: more text, a taller picture; never wider than need be."""
    picture = np.zeros((50, 500, 3), np.uint8)
    short, long = (with_margin(picture, ["word " * count]) for count in (3, 150))
    assert short.shape[1] == long.shape[1] == 500 and long.shape[0] > 100 + short.shape[0]


@pytest.mark.parametrize(
    "text", ["", "x", "several words of different lengths", "製品の画像/" * 20, "W" * 300, "😀 \n\t ä"]
)
def test_lines_fit_and_nothing_is_lost(text):
    font = ImageFont.load_default(13)
    lines = wrapped_lines(text, font, 150)
    assert all(font.getlength(line) <= 150 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_the_conclusion_in_words():
    values = np.zeros((10, 10), np.float32)
    values[2, 3] = values[7, 7] = 0.75
    lines = conclusion(decide(0.831, thresholds(0.5, 0.6, "best F1 on mvtec"), values))
    assert lines == [
        "anomalous: score 0.83 reaches the threshold 0.50",
        "outlined from 0.60 on: 2 regions, 2.0% of the image; highest value 0.75",
        "thresholds by best F1 on mvtec",
    ]
    quiet = conclusion(decide(0.1, thresholds(0.5, 0.8), values))
    assert quiet[0].startswith("normal: score 0.10 is below") and "nothing; highest value 0.75" in quiet[1]
    different = Thresholds(Threshold(0.5, "one"), Threshold(0.5, "another"))
    assert conclusion(decide(0.1, different))[1:] == [
        "threshold of the score by one",
        "threshold of the outline by another",
    ]


@pytest.mark.parametrize("score, limit", [(0.49999, 0.5), (0.5, 0.5), (0.500001, 0.5), (1.0, 1.0000000000000002)])
def test_the_margin_never_contradicts_itself(score, limit):
    line = conclusion(decide(score, thresholds(limit)))[0]
    shown, shown_limit = line.split("score ")[1].split(" ")[0], line.rsplit(" ", 1)[1]
    if "above" in line:
        assert line.startswith("normal")
    else:
        assert (float(shown) >= float(shown_limit)) == line.startswith("anomalous")


# --- panels ------------------------------------------------------------------------------------------------------


def test_a_panel_with_ground_truth_is_larger():
    picture, values = picture_and_values(300, 300)
    finding = decide(0.7, thresholds(), values)
    without, with_truth = panel(picture, finding, values), panel(picture, finding, values, values > 0.6)
    assert with_truth.shape[1] - without.shape[1] >= 300
    # The last picture is the mask itself, black and white.
    mask = with_truth[: 300 + 40, -300:]
    assert all(any(np.array_equal(row, line) for line in mask[..., 0]) for row in (values > 0.6)[::50] * np.uint8(255))


def test_wide_images_stand_above_each_other():
    wide, tall = ((panel(*arguments)).shape for arguments in (arguments_of(900, 100), arguments_of(100, 900)))
    assert wide[1] < 1.2 * 900 and wide[0] > 3 * 100
    assert tall[1] > 3 * 100 and tall[0] > 900


def arguments_of(width, height):
    picture, values = picture_and_values(width, height)
    return picture, decide(0.7, thresholds(), values), values


def test_a_huge_image_gives_a_panel_of_reasonable_size_in_which_a_pixel_is_seen():
    picture = Image.new("L", (3000, 2000), 128)
    values = np.zeros((2000, 3000), np.float32)
    values[1234, 2345] = 1
    drawn = panel(picture, decide(0.7, thresholds(), values), values)
    assert drawn.shape[0] < 1500 and drawn.shape[1] < 3.2 * MOST_PANEL_SIDE
    assert ((drawn[..., 0] < 100) & (drawn[..., 1] > 180) & (drawn[..., 2] > 180)).any()  # the outline's colour


def test_small_images_are_enlarged_by_whole_pixels():
    picture, values = picture_and_values(16, 16)
    drawn = panel(picture, decide(0.7, thresholds(), values), values)
    enlarged = np.asarray(picture).repeat(16, axis=0).repeat(16, axis=1)
    top = next(row for row in range(60) if np.array_equal(drawn[row, :256], enlarged[0]))
    assert np.array_equal(drawn[top : top + 256, :256], enlarged)


def test_a_picture_survives_its_file(tmp_path):
    picture, _ = picture_and_values(20, 10)
    save_picture(np.asarray(picture), tmp_path / "図.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "図.png")), np.asarray(picture))

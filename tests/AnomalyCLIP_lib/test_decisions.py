"""Thresholds and what is concluded with them."""

import numpy as np
import pytest

from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.decisions import (
    ANOMALOUS,
    NORMAL,
    Threshold,
    Thresholds,
    check_stored,
    choose_thresholds,
    decide,
    map_values,
)

pytestmark = pytest.mark.smoke

STORED = {"thresholds": {"image": 0.3, "pixel": 0.2, "source": "best F1 on mvtec"}}


def thresholds(image, pixel):
    return Thresholds(Threshold(image, "test"), Threshold(pixel, "test"))


def test_values_are_divided_by_the_layers_and_brought_to_the_images_size():
    values = map_values(np.full((6, 6), 1.2, np.float32), layers=4, size=(9, 5))
    assert values.shape == (5, 9) and values.dtype == np.float32
    assert np.allclose(values, 0.3)


def test_a_score_at_the_threshold_is_anomalous():
    assert decide(0.5, thresholds(0.5, 0.5)).called == ANOMALOUS
    assert decide(0.4999, thresholds(0.5, 0.5)).called == NORMAL


def test_regions_are_boxes_in_pixels_of_the_image_the_largest_first():
    values = np.zeros((40, 60), np.float32)
    values[3:5, 7:10] = 0.6
    values[20:30, 30:50] = 0.9
    values[30, 50] = 0.6  # touches the corner: the same region
    decision = decide(0.1, thresholds(0.5, 0.6), values)
    assert decision.regions == ((30, 20, 21, 11), (7, 3, 3, 2))
    assert decision.map_max == pytest.approx(0.9)
    assert decision.area_fraction == pytest.approx((6 + 200 + 1) / 2400)


def test_without_a_map_nothing_is_said_about_pixels():
    decision = decide(0.1, thresholds(0.5, 0.5))
    assert decision.map_max is decision.area_fraction is decision.regions is None


def test_where_thresholds_come_from():
    assert choose_thresholds(None, None, {}, "x").image.value == 0.5
    chosen = choose_thresholds(0.7, None, STORED, "x")
    assert (chosen.image.value, chosen.image.source) == (0.7, "--threshold")
    assert chosen.pixel.value == 0.2 and "best F1 on mvtec" in chosen.pixel.source
    assert "other settings" in choose_thresholds(None, None, STORED, "x", departs=True).image.source


def test_the_checkpoints_threshold_has_to_be_there():
    with pytest.raises(InputError, match=r"--pixel_threshold checkpoint.*epoch_3.pth stores no thresholds"):
        choose_thresholds(None, "checkpoint", {}, "epoch_3.pth")
    with pytest.raises(InputError, match=r"--threshold 1\.5"):
        choose_thresholds(1.5, None, {}, "x")


@pytest.mark.parametrize(
    "damaged", [5, {}, {"image": float("nan"), "pixel": 0.1, "source": ""}, {"image": 0.1, "pixel": 2.0, "source": ""}]
)
def test_damaged_thresholds_of_a_checkpoint(damaged):
    with pytest.raises(InputError, match=r"thresholds in prompts.pth.*damaged"):
        check_stored({"thresholds": damaged}, "prompts.pth")

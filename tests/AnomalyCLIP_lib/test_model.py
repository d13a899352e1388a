"""Encoding, scoring and predicting through the public interface."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

import AnomalyCLIP_lib
from AnomalyCLIP_lib import InputError

pytestmark = pytest.mark.smoke

SIZE = 42


@pytest.fixture(scope="module")
def model(tiny_files):
    return load_tiny(tiny_files)


def load_tiny(tiny_files, checkpoint="handwritten", **settings):
    return AnomalyCLIP_lib.load(
        str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), checkpoint, device="cpu", **settings
    )


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_dpam_changes_patch_features_but_not_image_features(tiny_files, images):
    plain, local = (load_tiny(tiny_files, dpam=dpam).encode_image(images) for dpam in ("none", "vv"))
    assert_allclose(plain[0], local[0], atol=1e-6)
    assert (plain[1][-1] - local[1][-1]).abs().max() > 0.01


def test_features_are_normalised_and_in_the_order_asked_for(model, images):
    image_features, patch_features = model.encode_image(images, [4, 1])
    assert image_features.shape == (3, 16)
    assert [features.shape for features in patch_features] == [(3, 1 + 9, 16)] * 2
    for features in (image_features, *patch_features):
        assert_allclose(features.norm(dim=-1), torch.ones(features.shape[:-1]), atol=1e-6)
    _, (first, last) = model.encode_image(images, [1, 4])
    assert torch.equal(patch_features[0], last) and torch.equal(patch_features[1], first)
    assert (first - last).abs().max() > 0.01


def test_positional_embedding_survives_another_size(model, images):
    stored = model.visual_encoder.visual.positional_embedding
    before = stored.clone()
    model.encode_image(images)
    model.encode_image(torch.zeros(1, 3, 70, 56))
    assert stored.shape == (1 + 2 * 2, 64) and torch.equal(stored, before)


def test_a_batch_equals_its_images(model, images):
    together = model.predict(images)
    for number in range(3):
        alone = model.predict(images[number : number + 1])
        assert_allclose(alone.anomaly_score, together.anomaly_score[number : number + 1], atol=1e-5)
        assert_allclose(alone.anomaly_map, together.anomaly_map[number : number + 1], atol=1e-5)


def test_predict_takes_all_kinds_of_pictures(model, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    expected = model.predict(str(path))
    assert expected.anomaly_score.shape == (1,) and expected.anomaly_map.shape == (1, SIZE, SIZE)
    assert expected.anomaly_score.dtype == expected.anomaly_map.dtype == torch.float32
    assert 0 <= expected.anomaly_score.item() <= 1
    tensor = model.preprocess(Image.fromarray(picture))[None]
    for given in (path, picture, Image.fromarray(picture), tensor):
        assert torch.equal(model.predict(given).anomaly_map, expected.anomaly_map)
    several = model.predict([path, picture, Image.fromarray(picture)], batch_size=2)
    assert_allclose(several.anomaly_score, expected.anomaly_score.expand(3), atol=1e-6)


def test_predict_shows_transparent_and_grey_pictures_as_people_see_them(model):
    grey = Image.fromarray(np.full((20, 20), 200, np.uint8))
    transparent = Image.new("RGBA", (20, 20), (200, 200, 200, 0))
    white = Image.new("RGB", (20, 20), (255, 255, 255))
    assert_allclose(model.predict(grey).anomaly_score, model.predict(grey.convert("RGB")).anomaly_score)
    assert_allclose(model.predict(transparent).anomaly_score, model.predict(white).anomaly_score)


@pytest.mark.parametrize(
    "given, complaint",
    [
        (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), "uint8"),
        (torch.zeros(3, SIZE, SIZE), r"\(B, 3, 42, 42\)"),
        (torch.zeros(1, 3, 28, 28), r"\(B, 3, 42, 42\)"),
        (np.zeros((4, 4), np.uint8), "height, width, 3"),
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        ([], "empty list"),
        (["nowhere.png"], r"nowhere\.png does not exist"),
        ([7], "int"),
    ],
)
def test_predict_refuses_what_it_cannot_score(model, given, complaint):
    with pytest.raises(InputError, match=complaint):
        model.predict(given)


def test_encode_image_refuses_absent_blocks(model, images):
    for block in (0, 5):
        with pytest.raises(InputError, match=f"Block {block} does not exist"):
            model.encode_image(images, [block])


def test_map_is_the_sum_of_its_layers(tiny_files, images):
    both = load_tiny(tiny_files, features_list=[2, 4], sigma=0).predict(images).anomaly_map
    single = [load_tiny(tiny_files, features_list=[layer], sigma=0).predict(images).anomaly_map for layer in (2, 4)]
    assert_allclose(both, single[0] + single[1], atol=1e-6)
    chosen = load_tiny(tiny_files, features_list=[2, 4], feature_map_layer=[1, 7], sigma=0).predict(images)
    assert_allclose(chosen.anomaly_map, single[1], atol=1e-6)


def test_reduced_precision_stays_near_fp32(tiny_files, images):
    exact = load_tiny(tiny_files).predict(images)
    rough = load_tiny(tiny_files, precision="bf16").predict(images)
    assert rough.anomaly_map.dtype == torch.float32
    assert_allclose(rough.anomaly_score, exact.anomaly_score, atol=0.1)
    assert (rough.anomaly_score != exact.anomaly_score).any()


def test_text_features_are_two_unit_vectors(model):
    features = model.text_features()
    assert features.shape == (2, 16)
    assert_allclose(features.norm(dim=-1).detach(), [1, 1], atol=1e-6)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_without_prompts_the_model_only_encodes(tiny_files, images):
    model = load_tiny(tiny_files, checkpoint=None)
    assert model.encode_image(images)[0].shape == (3, 16)
    with pytest.raises(InputError, match="no prompts"):
        model.text_features()
    with pytest.raises(InputError, match="no prompts"):
        model.predict(images)

"""The figures that the authors' implementation gives on stand-in weights (reference/make_weights.py draws them)."""

import make_weights
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from scipy.ndimage import gaussian_filter

import AnomalyCLIP_lib
import metrics
from AnomalyCLIP_lib.losses import glocal_loss
from AnomalyCLIP_lib.scoring import image_logits
from dataset import read_mask
from pipeline.training.features import FeatureBatch
from pipeline.training.learning import BETAS, training_step

pytestmark = pytest.mark.smoke

NAMES = ("bolt", "cloth", "glass", "paper")
ANOMALOUS = ("bolt", "glass")
LAYERS = {"24": [24], "6_12_18_24": [6, 12, 18, 24]}


@pytest.fixture(scope="module")
def load(reference_files):
    def with_layers(layers):
        return AnomalyCLIP_lib.load(
            str(reference_files / "config.json"),
            str(reference_files / "clip.pt"),
            reference_files / "prompts.pth",
            features_list=layers,
            device="cpu",
            dpam_layer=20,
        )

    return with_layers


@pytest.fixture(scope="module")
def model(load):
    return load(LAYERS["6_12_18_24"])


@pytest.fixture(scope="module")
def images(model):
    return torch.stack([model.preprocess(Image.fromarray(make_weights.test_image(name))) for name in NAMES])


@pytest.fixture(scope="module")
def encoded(model, images):
    return model.encode_image(images)


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """(4, 518, 518) of 0 and 1, through the code that reads masks from files."""
    folder = tmp_path_factory.mktemp("masks")
    result = []
    for name in NAMES:
        mask = make_weights.test_mask(name) if name in ANOMALOUS else np.zeros((300, 420), np.uint8)
        Image.fromarray(mask).save(folder / f"{name}.png")
        result.append(read_mask(folder / f"{name}.png", 518, "auto"))
    return np.stack(result)


def test_default_settings_are_the_papers(load):
    settings = load(None).settings
    assert (settings.image_size, settings.features_list, settings.dpam, settings.dpam_layer) == (518, (24,), "vv", 20)
    assert (settings.n_ctx, settings.depth, settings.t_n_ctx, settings.sigma) == (12, 9, 4, 4.0)


def test_text_features(model, reference):
    assert_allclose(model.text_features().detach(), reference["text_features"], atol=1e-5)


def test_image_and_patch_features(encoded, reference):
    image_features, patch_features = encoded
    assert_allclose(image_features, reference["image_features"], atol=1e-5)
    sampled = np.stack([features[:, ::37].numpy() for features in patch_features])
    assert_allclose(sampled, reference["patch_features"], atol=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_scores_and_maps(load, images, reference, layers):
    prediction = load(LAYERS[layers]).predict(images)
    assert_allclose(prediction.anomaly_score, reference["score"], atol=1e-5)
    assert prediction.anomaly_map.dtype == torch.float32
    assert_allclose(prediction.anomaly_map[:, ::7, ::7], reference[f"map_{layers}"], atol=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_losses_and_gradients(model, encoded, masks, reference, layers):
    image_features, patch_features = encoded
    positions = [LAYERS["6_12_18_24"].index(layer) for layer in LAYERS[layers]]
    model.prompts.requires_grad_()
    model.zero_grad()
    text_features = model.text_features()
    probabilities = model.layer_probabilities(patch_features, text_features)
    loss = glocal_loss(
        image_logits(image_features, text_features),
        torch.tensor([name in ANOMALOUS for name in NAMES]).long(),
        [probabilities[position] for position in positions],
        torch.from_numpy(masks),
    )
    assert_allclose([part.item() for part in loss], reference[f"loss_{layers}"], rtol=1e-5)
    loss.total.backward()
    norms = [parameter.grad.norm().item() for parameter in model.prompts.parameters()]
    assert_allclose(norms, reference[f"grad_norm_{layers}"], rtol=1e-4)


@pytest.mark.parametrize("layers", LAYERS)
def test_three_training_steps(load, encoded, masks, reference, layers):
    model = load(LAYERS[layers])
    model.prompts.requires_grad_()
    image_features, patch_features = encoded
    patch_features = [patch_features[LAYERS["6_12_18_24"].index(layer)] for layer in LAYERS[layers]]
    optimizer = torch.optim.Adam(model.prompts.parameters(), lr=1e-3, betas=BETAS)
    labels = torch.tensor([name in ANOMALOUS for name in NAMES]).long()
    losses = [
        training_step(model, optimizer, FeatureBatch(image_features, patch_features, torch.from_numpy(masks), labels))
        for _ in range(3)
    ]
    assert_allclose(losses, reference[f"train_losses_{layers}"], rtol=1e-5)
    assert_allclose(model.prompts.ctx_pos.detach(), reference[f"train_ctx_pos_{layers}"], atol=1e-4)
    assert_allclose(model.prompts.ctx_neg.detach(), reference[f"train_ctx_neg_{layers}"], atol=1e-4)
    deep = torch.stack(list(model.prompts.compound_prompts_text)).detach()
    assert_allclose(deep, reference[f"train_deep_{layers}"], atol=1e-4)


def test_pixel_metrics(masks, reference):
    rng = np.random.default_rng(7)
    maps = np.stack(
        [
            gaussian_filter(rng.standard_normal((518, 518)), 12) * 8 + 0.5 * gaussian_filter(mask.astype(float), 9)
            for mask in masks
        ]
    ).astype(np.float32)
    assert_allclose(metrics.pixel_aupro(masks, maps), reference["metric_aupro"], atol=1e-5)
    assert_allclose(metrics.pixel_auroc(masks, maps), reference["metric_pixel_auroc"], atol=1e-5)

"""The figures that the methods' public code gives on stand-in weights (reference/make_method_inputs.py draws them)."""

from pathlib import Path

import make_method_inputs as inputs
import make_weights
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

import AnomalyCLIP_lib
from AnomalyCLIP_lib.baselines import load_baseline
from AnomalyCLIP_lib.baselines.coop import CoOp
from AnomalyCLIP_lib.detector import FeatureBatch
from dataset import read_mask

pytestmark = pytest.mark.smoke

TOLERANCE = 1e-5
LARGE = {"atol": 1e-5, "rtol": 1e-6}  # values up to 18, of which fp32 keeps seven digits
HUNDREDFOLD = {"atol": 5e-5}  # logits times 100
CLASSES = list(inputs.CLASSES)
DISTINCT = list(dict.fromkeys(CLASSES))


@pytest.fixture(scope="session")
def reference():
    with np.load(Path(inputs.__file__).with_name("reference_methods.npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Folder with every input, checkpoints in the methods' own forms."""
    folder = tmp_path_factory.mktemp("methods")
    inputs.main(folder)
    torch.save({"context": {"ctx": inputs.coop_context()}}, folder / "coop.pth")
    torch.save({"trainable_linearlayer": inputs.linear_layers()}, folder / "vand.pth")
    return folder


@pytest.fixture(scope="session")
def load(files):
    def method(name, checkpoint=None, weights="clip", config=None, image_size=inputs.SIZE, **settings):
        return load_baseline(
            name,
            str(files / f"{config or weights}.json"),
            str(files / f"{weights}.pt"),
            checkpoint and files / checkpoint,
            device="cpu",
            image_size=image_size,
            **settings,
        )

    return method


@pytest.fixture(scope="session")
def winclip(load):
    return lambda **settings: load("winclip", weights="win", image_size=240, **settings)


def images(model):
    return torch.stack([model.preprocess(Image.fromarray(make_weights.test_image(name))) for name in inputs.IMAGES])


def batch(model, files, maps):
    """The four images as one batch of training."""
    masks = []
    for name, label in zip(inputs.IMAGES, inputs.LABELS, strict=True):
        drawn = read_mask(files / f"{name}_mask.png", inputs.SIZE, "auto") if label else np.zeros((inputs.SIZE,) * 2)
        masks.append(torch.from_numpy(drawn.astype(np.uint8)))
    features = model.encode_image(images(model), maps=maps)
    return FeatureBatch(*features, torch.stack(masks), torch.tensor(inputs.LABELS), CLASSES)


def three_steps(model, batch, optimizer):
    losses = []
    for _ in range(3):
        loss = model.loss(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_plain_features(load, reference):
    model = load("clip")
    image_features, (patch_features,) = model.encode_image(images(model))
    assert_allclose(image_features, reference["clip_image_features"], atol=TOLERANCE)
    assert_allclose(patch_features[:, 1::5], reference["clip_patch_features"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("key", "method", "settings"),
    [("clip", "clip", {}), ("clipac", "clip-ac", {}), ("clipac7", "clip-ac", {"templates": 7})],
)
def test_clip_and_clip_ac(load, reference, key, method, settings):
    model = load(method, **settings)
    prediction = model.score(images(model), CLASSES)
    assert_allclose(model.text_features(DISTINCT), reference[f"{key}_text_features"], atol=TOLERANCE)
    assert_allclose(prediction.anomaly_score, reference[f"{key}_score"], atol=TOLERANCE)
    if f"{key}_map" in reference:
        assert_allclose(prediction.anomaly_map[:, ::2, ::2], reference[f"{key}_map"], atol=TOLERANCE)


def test_coop(load, files, reference):
    model = load("coop", "coop.pth", training=True)
    assert_allclose(model.text_features(DISTINCT).detach(), reference["coop_text_features"], atol=TOLERANCE)
    losses = three_steps(model, batch(model, files, maps=False), model.optimizer(0.2))
    assert_allclose(losses, reference["coop_train_losses"], rtol=1e-5)
    assert_allclose(model.learned.ctx.detach(), reference["coop_train_ctx"], atol=TOLERANCE)
    scores = model.score(images(model), CLASSES, maps=False).anomaly_score
    assert_allclose(scores, reference["coop_trained_score"], atol=TOLERANCE)


def test_coop_learning_rates(reference):
    rates = [CoOp.learning_rate(epoch, 50) for epoch in range(50)]
    assert_allclose(rates, reference["coop_lr"], rtol=1e-12)


def test_winclip_features(winclip, reference):
    model = winclip()
    image_features, windows = model.encode_image(images(model))
    assert_allclose(image_features, reference["win_image_features"], atol=TOLERANCE)
    for scale, features in zip((2, 3), windows, strict=True):
        assert_allclose(features[:, ::7], reference[f"win_windows_{scale}"], atol=TOLERANCE)


def test_winclip_scores_and_maps(winclip, reference):
    model = winclip()
    prediction = model.score(images(model), CLASSES)
    assert_allclose(model.text_features(DISTINCT), reference["win_text_features"], atol=TOLERANCE)
    assert_allclose(prediction.anomaly_score, reference["win_score"], atol=TOLERANCE)
    assert_allclose(prediction.anomaly_map[:, ::4, ::4], reference["win_map"], atol=TOLERANCE)
    _, windows = model.encode_image(images(model))
    scales = model.scale_maps(windows, model.text_features(CLASSES))
    for scale, values in zip((2, 3), scales, strict=True):
        assert_allclose(values, reference[f"win_scale_{scale}"], atol=TOLERANCE)
    assert_allclose(model.join_scales(scales, prediction.anomaly_score), reference["win_grid"], atol=TOLERANCE)


def test_winclip_with_the_other_templates_and_temperature(winclip, reference):
    model = winclip(templates=21)
    scores = model.score(images(model), CLASSES, maps=False).anomaly_score
    assert_allclose(model.text_features(DISTINCT), reference["win21_text_features"], atol=TOLERANCE)
    assert_allclose(scores, reference["win21_score"], atol=TOLERANCE)
    prediction = winclip(temperature=0.01).score(images(model), CLASSES)
    assert_allclose(prediction.anomaly_score, reference["win_tau001_score"], **HUNDREDFOLD)
    assert_allclose(prediction.anomaly_map[:, ::4, ::4], reference["win_tau001_map"], **HUNDREDFOLD)


def test_vand(load, reference):
    model = load("vand", "vand.pth", config="clip_gelu")
    image_features, tokens = model.encode_image(images(model))
    assert_allclose(model.text_features(DISTINCT), reference["vand_text_features"], atol=TOLERANCE)
    assert_allclose(image_features, reference["vand_image_features"], atol=TOLERANCE)
    assert_allclose(torch.stack(tokens)[:, :, ::7], reference["vand_patch_tokens"], **LARGE)
    prediction = model.score(images(model), CLASSES)
    assert_allclose(prediction.anomaly_score, reference["vand_score"], atol=TOLERANCE)
    assert_allclose(prediction.anomaly_map[:, ::2, ::2], reference["vand_map"], **HUNDREDFOLD)


def test_vand_in_training(load, files, reference):
    model = load("vand", "vand.pth", config="clip_gelu", training=True)
    first = batch(model, files, maps=True)
    focal, dice = zip(*model.layer_losses(first), strict=True)
    assert_allclose(torch.stack(focal).detach(), reference["vand_loss_focal"], rtol=1e-5)
    assert_allclose(torch.stack(dice).detach(), reference["vand_loss_dice"], rtol=1e-5)
    assert_allclose(three_steps(model, first, model.optimizer()), reference["vand_train_losses"], rtol=1e-5)
    weights = torch.stack([layer.weight for layer in model.learned.fc]).detach()
    # Adam turns a gradient near zero into a whole step, up or down: where rounding decides, a weight may go astray.
    differences = (weights - torch.from_numpy(reference["vand_train_weight"])).abs().flatten().sort().values
    assert differences[-4] < 1e-4 and differences[-1] < 3 * 1e-3
    biases = torch.stack([layer.bias for layer in model.learned.fc]).detach()
    assert_allclose(biases, reference["vand_train_bias"], atol=1e-4)
    maps = model.score(images(model), CLASSES).anomaly_map[:, ::2, ::2]
    assert_allclose(maps, reference["vand_trained_map"], atol=1e-4)


@pytest.mark.parametrize("dpam", ["vv", "qq", "kk", "none"])
def test_attention_of_the_local_path(files, reference, dpam):
    model = AnomalyCLIP_lib.load(
        str(files / "clip.json"),
        str(files / "clip.pt"),
        "handwritten",
        device="cpu",
        image_size=inputs.SIZE,
        features_list=list(inputs.LAYERS),
        dpam=dpam,
        dpam_layer=9,
    )
    image_features, layers = model.encode_image(images(model))
    assert_allclose(image_features, reference["abl_image_features"], atol=TOLERANCE)
    assert_allclose(torch.stack(layers)[:, :, 1::5], reference[f"abl_patch_{dpam}"], atol=TOLERANCE)


def test_object_aware_and_shared_prompts(files, reference, tmp_path):
    state = inputs.object_prompts()
    torch.save({"prompt_learner": state}, tmp_path / "two.pth")
    torch.save({"prompt_learner": state | {"ctx_neg": state["ctx_pos"]}}, tmp_path / "shared.pth")

    def text_features(checkpoint, class_names=None, **settings):
        config, weights = str(files / "clip.json"), str(files / "clip.pt")
        model = AnomalyCLIP_lib.load(config, weights, tmp_path / checkpoint, device="cpu", **settings)
        return model.text_features(class_names)

    aware = text_features("two.pth", DISTINCT, prompts="object-aware")
    assert_allclose(aware, reference["abl_object_aware_text_features"], atol=TOLERANCE)
    assert_allclose(text_features("two.pth"), reference["abl_object_agnostic_text_features"], atol=TOLERANCE)
    assert_allclose(text_features("shared.pth"), reference["abl_shared_text_features"], atol=TOLERANCE)

"""CLIP, CLIP-AC, CoOp, WinCLIP and VAND: what holds for each, whatever its weights."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY_CONFIG
from PIL import Image

import AnomalyCLIP_lib
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.baselines import load_baseline
from AnomalyCLIP_lib.baselines.vand import draw_mosaic, paste_mosaic
from AnomalyCLIP_lib.baselines.winclip import WinCLIP, WindowEncoder, windows
from AnomalyCLIP_lib.checkpoint import describe_training, write_checkpoint
from AnomalyCLIP_lib.detector import FeatureBatch, NotFiniteError
from AnomalyCLIP_lib.weights import random_clip

METHODS = ("clip", "clip-ac", "coop", "winclip", "vand")
LEARNING = ("coop", "vand")
NAMES = ["metal nut", "cable", "metal nut"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A tiny backbone of 4 x 4 patches, which WinCLIP's windows fit in."""
    path = tmp_path_factory.mktemp("baselines") / "square.json"
    vision = TINY_CONFIG["vision_cfg"] | {"image_size": 56}
    path.write_text(json.dumps(TINY_CONFIG | {"vision_cfg": vision, "anomalyclip": {"image_size": 56}}))
    return path


@pytest.fixture(scope="module")
def load(config):
    torch.manual_seed(0)
    weights = config.with_name("square.pt")
    clip = random_clip(find_backbone(str(config)))
    for parameter in clip.visual.parameters():  # far enough from the initial zeros for patches to differ
        parameter.data += 0.2 * torch.randn_like(parameter)
    torch.save(clip.state_dict(), weights)

    def method(name, checkpoint=None, **settings):
        settings = {"training": name in LEARNING and checkpoint is None} | settings
        return load_baseline(name, str(config), str(weights), checkpoint, device="cpu", **settings)

    return method


@pytest.fixture(scope="module")
def model(load):
    return {name: load(name) for name in METHODS}


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))


def training_batch(model, images):
    masks = torch.zeros(3, 56, 56, dtype=torch.uint8)
    masks[0, 10:30, 20:40] = 1
    return FeatureBatch(*model.encode_image(images), masks, torch.tensor([1, 0, 0]), NAMES)


@pytest.mark.parametrize("name", METHODS)
def test_every_image_is_scored_by_itself_and_by_its_own_class(model, images, name):
    together = model[name].score(images, NAMES)
    assert together.anomaly_map.shape == (3, 56, 56) and together.layers == (4 if name == "vand" else 1)
    assert together.anomaly_map.min() >= 0 and together.anomaly_map.max() <= together.layers
    for row, class_name in enumerate(NAMES):
        alone = model[name].score(images[row : row + 1], [class_name])
        torch.testing.assert_close(alone.anomaly_score[0], together.anomaly_score[row], atol=3e-5, rtol=0)
        torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[row], atol=1e-4, rtol=0)
    other = model[name].score(images, ["cable", *NAMES[1:]])
    assert other.anomaly_score[0] != together.anomaly_score[0] and other.anomaly_score[2] == together.anomaly_score[2]


@pytest.mark.parametrize("name", METHODS)
def test_without_maps_the_scores_are_the_same(model, images, name):
    prediction = model[name].score(images, NAMES, maps=False)
    assert prediction.anomaly_map.shape == (3, 0, 0)
    expected = model[name].score(images, NAMES).anomaly_score
    torch.testing.assert_close(prediction.anomaly_score, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_demo_backbone_is_used_on_request(name):
    model = load_baseline(name, "demo", device="cpu", training=name in LEARNING)
    prediction = model.predict(Image.new("RGB", (50, 40), (90, 90, 200)), class_name="washer")
    assert prediction.anomaly_map.shape == (1, model.image_size, model.image_size)
    assert model.name == name and name in model.describe() and "demo" in model.describe()
    assert model.settings_dict()["method"] == name and json.dumps(model.settings_dict())


def test_loading_goes_through_one_door(config, load):
    weights = str(config.with_name("square.pt"))
    model = AnomalyCLIP_lib.load(str(config), weights, method="clip", device="cpu", sigma=0)
    assert model.name == "clip" and model.settings.sigma == 0
    assert AnomalyCLIP_lib.load("demo", method="anomalyclip", device="cpu").name == "anomalyclip"


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_stays_near(load, images, name):
    torch.manual_seed(3)
    exact = load(name).score(images, NAMES)
    torch.manual_seed(3)
    rough = load(name, precision="bf16").score(images, NAMES)
    assert 0 < (exact.anomaly_score - rough.anomaly_score).abs().max() < 0.1
    assert (exact.anomaly_map - rough.anomaly_map).abs().max() < 0.3 * exact.layers


# --- class names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_text_features_are_made_once_for_each_class(load, images, monkeypatch, name):
    model = load(name, training=False) if name not in LEARNING else load(name).requires_grad_(False)
    made, original = [], type(model).encode_texts
    monkeypatch.setattr(
        type(model), "encode_texts", lambda self, names: (made.append(list(names)), original(self, names))[1]
    )
    for _ in range(2):
        model.score(images, NAMES, maps=False)
    model.score(images, ["glass", "cable", "glass"], maps=False)
    assert made == [["metal nut", "cable"], ["glass"]]


def test_an_underscore_is_a_space_to_coop_alone(model):
    pairs = ["metal_nut", "metal nut"]
    equal = {name: torch.equal(*model[name].text_features(pairs)) for name in METHODS}
    assert equal == {name: name == "coop" for name in METHODS}


def test_braces_in_a_class_name_are_characters(model):
    for name in METHODS:
        assert model[name].text_features(["{}{0}{bolt}"]).isfinite().all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("names", [None, [], ["metal nut", "", "cable"]])
def test_a_missing_class_name_is_asked_for(model, images, name, names):
    with pytest.raises(InputError, match=rf"{name} .*--class_name"):
        model[name].score(images, names)


def test_every_image_needs_a_class_name(model, images):
    with pytest.raises(InputError, match="1 class names for 3 images"):
        model["clip"].score(images, ["cable"])


def test_a_class_name_that_clip_cannot_read_is_refused(model, images):
    for name in METHODS:
        with pytest.raises(InputError, match="--class_name"):
            model[name].score(images[:1], ["long " * 80])


# --- WinCLIP -----------------------------------------------------------------------------------------------------


def test_windows_are_all_blocks_row_by_row():
    assert windows(15, 2).shape == (196, 5) and windows(15, 3).shape == (169, 10)
    assert windows(3, 2).tolist() == [[0, 1, 2, 4, 5], [0, 2, 3, 5, 6], [0, 4, 5, 7, 8], [0, 5, 6, 8, 9]]


def test_a_window_depends_on_its_own_patches_alone(model, images):
    encoder = model["winclip"].visual_encoder
    assert isinstance(encoder, WindowEncoder)
    changed = images.clone()
    changed[:, :, 14:28, 28:42] += 1  # the patch in row 1 and column 2: token 7 of 1 to 16
    _, before = model["winclip"].encode_image(images)
    _, after = model["winclip"].encode_image(changed)
    for scale, old, new in zip((2, 3), before, after, strict=True):
        holds_it = (windows(4, scale) == 1 + 1 * 4 + 2).any(dim=1)
        assert 0 < holds_it.sum() < len(holds_it) or scale == 3
        moved = (old - new).abs().amax(dim=(0, 2))
        assert (moved[holds_it] > 1e-3).all() and (moved[~holds_it] < 1e-6).all()


def test_harmonic_means_written_out(model):
    """On 4 x 4 patches, with the windows of each patch looked up one by one."""
    text = torch.nn.functional.normalize(torch.randn(1, 2, 16), dim=-1)
    features = [torch.nn.functional.normalize(torch.randn(1, len(windows(4, scale)), 16), dim=-1) for scale in (2, 3)]
    maps = model["winclip"].scale_maps(features, text)
    for scale, layer, found in zip((2, 3), features, maps, strict=True):
        scores = (layer[0] @ text[0].T / 0.07).softmax(dim=-1)[:, 1].numpy()
        for patch in range(16):
            holding = scores[(windows(4, scale) == 1 + patch).any(dim=1).numpy()]
            assert found[0, patch // 4, patch % 4].item() == pytest.approx(len(holding) / (1 / holding).sum(), rel=1e-5)


def test_a_score_of_zero_makes_the_map_zero_and_hides_nothing_else():
    scales = [torch.full((2, 3, 3), 0.5), torch.full((2, 3, 3), 0.5)]
    scales[0][0, 1, 1] = 0
    scales[1][1, 0, 0] = torch.nan
    joined = WinCLIP.join_scales(scales, torch.tensor([0.5, 0.5]))
    assert joined[0, 1, 1] == 0 and joined[1, 0, 0].isnan() and joined[0, 0, 0] == 0.5


@pytest.mark.parametrize("name", METHODS)
def test_values_that_are_not_finite_are_reported(load, images, name):
    broken = images.clone()
    broken[1] = torch.nan
    with pytest.raises(NotFiniteError) as caught:
        load(name).score(broken, NAMES)
    assert caught.value.rows == [1]


@pytest.mark.parametrize("name", METHODS)
def test_fewer_images_at_once_where_memory_does_not_suffice(load, images, monkeypatch, name):
    torch.manual_seed(4)
    expected, asked = load(name).score(images, NAMES), []
    torch.manual_seed(4)
    model = load(name)
    original = type(model.visual_encoder).forward

    def forward(self, part, maps):
        asked.append(len(part))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, part, maps)

    monkeypatch.setattr(type(model.visual_encoder), "forward", forward)
    found = model.score(images, NAMES)
    assert asked == [3, 1, 1, 1]
    torch.testing.assert_close(found.anomaly_map, expected.anomaly_map, atol=1e-4, rtol=0)


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNING)
def test_only_what_learns_changes_and_the_checkpoint_keeps_it(load, images, tmp_path, name):
    model = load(name)
    batch = training_batch(model, images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer, losses = model.optimizer(1e-4), []
    for _ in range(5):
        loss = model.loss(batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key, value in model.state_dict(keep_vars=True).items() if value.requires_grad}

    provenance = model.provenance
    training = {"train_dataset": "visa"}
    saved = describe_training(model.settings, model.backbone, provenance.fingerprint, provenance.pretrained, training)
    write_checkpoint(tmp_path / "epoch_1.pth", model.learned, saved, 1)
    loaded = load(name, tmp_path / "epoch_1.pth")
    assert torch.load(tmp_path / "epoch_1.pth", weights_only=True)["settings"]["method"] == name
    assert "epoch_1.pth, trained on visa" in loaded.describe()
    assert loaded.settings == model.settings and not any(p.requires_grad for p in loaded.parameters())
    expected = model.score(images, NAMES)
    assert torch.equal(loaded.score(images, NAMES).anomaly_map, expected.anomaly_map)
    assert loaded.settings_dict() == model.settings_dict() != load(name).settings_dict()
    weights = torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    torch.save(weights | {"settings": weights["settings"] | {"fingerprint": "0" * 64}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth .*--pretrained"):
        load(name, tmp_path / "other.pth")


def test_vands_released_form_needs_no_settings(load, tmp_path):
    layers = load("vand").learned.state_dict()
    torch.save({"trainable_linearlayer": layers}, tmp_path / "mvtec_pretrained.pth")
    model = load("vand", tmp_path / "mvtec_pretrained.pth")
    assert all(torch.equal(value, layers[key]) for key, value in model.learned.state_dict().items())
    assert model.settings.features_list == (1, 2, 3, 4)


def test_mosaics():
    folders = [["good 0", "good 1"], ["cut 0"]]
    drawn = [draw_mosaic(folders, np.random.default_rng(seed)) for seed in range(500)]
    assert all(len(four) == 4 for four in drawn)
    cut = sum(four.count("cut 0") for four in drawn) / 2000  # folders are equally probable, not images
    assert 0.45 < cut < 0.55
    colours = [(10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0)]
    sizes = [(5, 3), (5, 3), (2, 2), (9, 9)]
    mosaic = paste_mosaic([Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)])
    expected = np.zeros((6, 10), int)
    expected[:3, :5], expected[:3, 5:], expected[3:5, :2], expected[3:, 5:] = 10, 20, 30, 40
    assert mosaic.size == (10, 6) and np.array_equal(np.asarray(mosaic)[..., 0], expected)
    assert paste_mosaic([Image.new("L", (2, 2), 255)] * 4).mode == "L"


# --- what cannot be used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("winclip", {"image_size": 112}, r"--image_size 112 .*winclip.* 56"),
        ("winclip", {"sigma": 4.0}, "--sigma .*winclip"),
        ("clip", {"dpam": "vv"}, "--dpam .*clip"),
        ("clip", {"templates": 80}, "--templates 80 .*clip"),
        ("clip-ac", {"templates": 22}, "--templates 22 .*80 or 7"),
        ("vand", {"temperature": 0.07}, "--temperature .*vand"),
        ("vand", {"features_list": [9]}, "--features_list 9 "),
        ("clip", {"temperature": 0.0}, "--temperature 0.0"),
        ("clip", {"image_size": 50}, "--image_size 50"),
        ("clop", {}, "--method clop .*clip-ac"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(load, name, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        load(name, **settings)


@pytest.mark.parametrize("name", LEARNING)
def test_a_method_that_learns_needs_its_checkpoint(load, name):
    with pytest.raises(InputError, match=f"{name} .*--checkpoint_path"):
        load(name, training=False)


def test_a_checkpoint_of_another_method_is_refused(load, tmp_path, reference_files):
    torch.save({"context": {"ctx": torch.zeros(16, 16)}}, tmp_path / "coop.pth")
    torch.save({"something": {}}, tmp_path / "strange.pth")
    with pytest.raises(InputError, match=r"coop\.pth .*--method coop"):
        load("vand", tmp_path / "coop.pth")
    with pytest.raises(InputError, match=r"coop\.pth .*--method coop"):
        AnomalyCLIP_lib.load("demo", checkpoint=tmp_path / "coop.pth")
    with pytest.raises(InputError, match=r"prompts\.pth .*--method anomalyclip"):
        load("coop", reference_files / "prompts.pth")
    with pytest.raises(InputError, match=r"strange\.pth .*train\.py"):
        load("coop", tmp_path / "strange.pth")
    with pytest.raises(InputError, match=r"coop\.pth .*winclip"):
        load("winclip", tmp_path / "coop.pth")


def test_a_checkpoint_of_another_width_or_number_of_layers_is_refused(load, tmp_path):
    layers = load("vand").learned.state_dict()
    torch.save({"trainable_linearlayer": {k: v for k, v in layers.items() if "3" not in k}}, tmp_path / "three.pth")
    torch.save({"trainable_linearlayer": layers | {"fc.0.weight": torch.zeros(16, 65)}}, tmp_path / "wide.pth")
    torch.save({"context": {"ctx": torch.zeros(16, 17)}}, tmp_path / "context.pth")
    torch.save({"context": {"ctx": torch.full((16, 16), torch.nan)}}, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=r"three\.pth .*fc\.3\.bias"):
        load("vand", tmp_path / "three.pth")
    with pytest.raises(InputError, match=r"wide\.pth .*\(16, 65\)"):
        load("vand", tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"context\.pth .*\(16, 17\)"):
        load("coop", tmp_path / "context.pth")
    with pytest.raises(InputError, match=r"nan\.pth .*not finite"):
        load("coop", tmp_path / "nan.pth")


def test_backbones_that_a_method_is_not_defined_for(tiny_files):
    with pytest.raises(InputError, match="RN50"):
        load_baseline("clip", "RN50")
    with pytest.raises(InputError, match=r"winclip.* 2 x 2 .*--backbone"):
        load_baseline("winclip", str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), device="cpu")


@pytest.mark.parametrize(
    ("name", "backbone", "expected"),
    [
        ("clip", None, "'openai' of ViT-L-14-336-quickgelu"),
        ("winclip", None, "'laion400m_e31' of ViT-B-16-plus-240"),
        ("winclip", "ViT-B/32", "'openai' of ViT-B-32-quickgelu"),
        ("vand", None, "'openai' of ViT-L-14-336 are"),
        ("vand", "ViT-L/14@336px", "'openai' of ViT-L-14-336 are"),
        ("vand", "ViT-B-16-quickgelu", "'openai' of ViT-B-16 are"),
    ],
)
def test_weights_by_default(name, backbone, expected, monkeypatch, tmp_path):
    """Where there is no network, the sentence names what would have been fetched."""
    monkeypatch.setattr("AnomalyCLIP_lib.weights._network_reaches", lambda _: False)
    monkeypatch.setattr("AnomalyCLIP_lib.weights.CHECKPOINTS", tmp_path)
    with pytest.raises(InputError, match=expected):
        load_baseline(name, backbone, device="cpu", cache_dir=str(tmp_path), training=name in LEARNING)

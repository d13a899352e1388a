"""Variants of AnomalyCLIP that the paper compares, each against the same computation written plainly."""

import json

import pytest
import torch
import torch.nn.functional as F

import AnomalyCLIP_lib
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.checkpoint import describe_training, read_checkpoint, write_checkpoint
from AnomalyCLIP_lib.detector import FeatureBatch
from AnomalyCLIP_lib.loading import load_for_training
from AnomalyCLIP_lib.losses import GlocalLoss, glocal_loss
from AnomalyCLIP_lib.scoring import anomaly_maps
from AnomalyCLIP_lib.settings import default_settings
from benchmarks import naive

NAMES = ["metal_nut", "cable", "metal nut"]


@pytest.fixture(scope="module")
def train(tiny_files):
    """A model with fresh prompts, the same for the same settings."""

    def fresh(**settings):
        torch.manual_seed(5)
        weights = str(tiny_files / "tiny.safetensors")
        return load_for_training(str(tiny_files / "tiny.json"), weights, device="cpu", **settings)

    return fresh


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 42, 42, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def masks():
    masks = torch.zeros(3, 42, 42, dtype=torch.uint8)
    masks[0, 5:20, 10:30] = 1
    return masks


def saved(model, path):
    training = describe_training(model.settings, model.backbone, model.provenance.fingerprint, None, {})
    write_checkpoint(path, model.prompts, training, 1)
    return path


def load(tiny_files, checkpoint, **settings):
    weights = str(tiny_files / "tiny.safetensors")
    return AnomalyCLIP_lib.load(str(tiny_files / "tiny.json"), weights, checkpoint, device="cpu", **settings)


# --- attention ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [["qq", "kk", "vv"], ["qk", "qq", "kk", "vv"], ["kk"]])
@pytest.mark.parametrize("dpam_layer", [3, 5])
def test_an_ensemble_averages_its_members_logits_before_the_softmax(train, images, members, dpam_layer):
    model = train(dpam="ensemble", dpam_members=members, dpam_layer=dpam_layer)
    text_features = model.text_features().detach()
    plain = []
    for layer in model.settings.features_list:
        logits = []
        for member in members:
            _, (features,) = naive.encode(model.visual_encoder.visual, images, [layer], member, dpam_layer)
            logits.append(F.normalize(features.detach(), dim=-1)[:, 1:] @ text_features.T / 0.07)
        probabilities = torch.stack(logits).mean(dim=0).softmax(dim=-1)
        plain.append(F.interpolate(probabilities.transpose(1, 2).unflatten(2, (3, 3)), 42, mode="bilinear"))
    found = model.score(images).anomaly_map
    torch.testing.assert_close(found, anomaly_maps(plain, model.settings.sigma), atol=1e-5, rtol=0)


def test_an_ensemble_of_one_is_that_one(train, images):
    one = train(dpam="ensemble", dpam_members=["kk"]).score(images)
    torch.testing.assert_close(one.anomaly_map, train(dpam="kk").score(images).anomaly_map)


def test_the_attention_leaves_image_scores_alone(train, images):
    scores = [train(dpam=dpam).score(images).anomaly_score for dpam in ("ensemble", "vv", "none")]
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


# --- prompts -----------------------------------------------------------------------------------------------------


def test_object_aware_prompts_take_each_image_to_its_class(train, images):
    model = train(prompts="object-aware")
    assert model.needs_class_names and not train().needs_class_names
    texts = model.text_features(NAMES)
    assert texts.shape == (3, 2, 16) and texts.requires_grad
    assert torch.equal(texts[0], texts[2]) and not torch.equal(texts[0], texts[1])  # `_` reads as a space
    torch.testing.assert_close(model.text_features(["object"])[0], train().text_features())
    together = model.score(images, NAMES)
    for row, name in enumerate(NAMES):
        alone = model.score(images[row : row + 1], [name])
        torch.testing.assert_close(alone.anomaly_map[0], together.anomaly_map[row], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="--class_name"):
        model.score(images)


def test_object_aware_prompts_learn_from_each_images_class(train, images, masks):
    """The batch's loss is that of its images one by one, where it is a mean over them."""
    model = train(prompts="object-aware", losses=["global"])
    labels = torch.tensor([1, 0, 1])
    features = model.encode_image(images)
    together = model.loss(FeatureBatch(*features, masks, labels, NAMES)).total
    alone = []
    for row, name in enumerate(NAMES):
        one = slice(row, row + 1)
        layers = [layer[one] for layer in features[1]]
        alone.append(model.loss(FeatureBatch(features[0][one], layers, masks[one], labels[one], [name])).total)
    torch.testing.assert_close(together, torch.stack(alone).mean())
    together.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.prompts.parameters())


def test_another_word_for_abnormal(tiny_files, train, tmp_path):
    model, damaged = train(abnormal_word="badly scratched"), train()
    assert model.prompts.sentences("object") == ("X X X object.", "X X X badly scratched object.")
    normal, abnormal = zip(model.text_features(), damaged.text_features(), strict=True)
    assert torch.allclose(*normal, atol=1e-6) and not torch.allclose(*abnormal, atol=1e-3)
    file = saved(model, tmp_path / "epoch_1.pth")
    assert torch.equal(load(tiny_files, file).text_features(), model.text_features())
    other = load(tiny_files, file, abnormal_word="damaged")
    torch.testing.assert_close(other.text_features(), damaged.text_features().detach())
    assert any("abnormal_word" in notice for notice in other.provenance.notices)


def test_one_context_for_both_prompts(tiny_files, train, tmp_path):
    model, two = train(shared_context=True), train()
    counts = [sum(p.numel() for p in each.prompts.parameters()) for each in (two, model)]
    assert counts[0] - counts[1] == 3 * 16
    with torch.no_grad():
        two.prompts.ctx_pos.copy_(model.prompts.ctx_pos)
        two.prompts.ctx_neg.copy_(model.prompts.ctx_pos)
        for mine, theirs in zip(model.prompts.compound_prompts_text, two.prompts.compound_prompts_text, strict=True):
            theirs.copy_(mine)
    assert torch.equal(model.text_features(), two.text_features())
    file = saved(model, tmp_path / "epoch_1.pth")
    loaded = load(tiny_files, file)
    assert loaded.settings.shared_context and loaded.prompts.ctx_neg is loaded.prompts.ctx_pos
    assert torch.equal(loaded.text_features(), model.text_features())
    with pytest.raises(InputError, match=r"--shared_context .*other\.pth"):
        load(tiny_files, saved(train(), tmp_path / "other.pth"), shared_context=True)


def test_fixed_words_are_the_handwritten_ones(tiny_files, train, images):
    handwritten = load(tiny_files, "handwritten")
    model = train(prompts="fixed", depth=3)
    assert model.settings.n_ctx == 4
    assert {name for name, p in model.prompts.named_parameters() if p.requires_grad} == {
        "compound_prompts_text.0",
        "compound_prompts_text.1",
    }
    with pytest.raises(InputError, match=r"--prompts fixed .*--depth 1"):
        train(prompts="fixed", depth=1)
    with pytest.raises(InputError, match="--n_ctx 12"):
        train(prompts="fixed", n_ctx=12)
    prompts = model.prompts()
    expected = handwritten.text_features()
    found = F.normalize(model.text_encoder(prompts.embeddings, prompts.tokens), dim=-1)
    torch.testing.assert_close(found, expected)


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [["global"], ["focal"], ["dice"], ["focal", "dice"], ["global", "dice"]])
def test_only_the_chosen_losses_count(train, images, masks, losses):
    model = train(losses=losses)
    labels = torch.tensor([1, 0, 0])
    batch = FeatureBatch(*model.encode_image(images), masks, labels)
    probabilities = model.layer_probabilities(batch.patch_features, model.text_features())
    logits = batch.image_features @ model.text_features().T / 0.07
    full = glocal_loss(logits, labels, probabilities, masks)
    loss = model.loss(batch)
    expected = GlocalLoss(
        full.image if "global" in losses else torch.tensor(0.0),
        full.focal if "focal" in losses else torch.tensor(0.0),
        *((full.dice_abnormal, full.dice_normal) if "dice" in losses else (torch.tensor(0.0),) * 2),
    )
    for part, wanted in zip(loss, expected, strict=True):
        torch.testing.assert_close(part, wanted)
    torch.testing.assert_close(loss.total, loss.image + 4 * (loss.focal + loss.dice_abnormal + loss.dice_normal))
    everything = naive.loss(logits, labels, probabilities, masks.float())
    torch.testing.assert_close(full.total, everything)


# --- settings ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_carries_its_variant(tiny_files, train, tmp_path):
    variant = {
        "prompts": "object-aware",
        "abnormal_word": "flawed",
        "losses": ("global", "dice"),
        "dpam": "ensemble",
        "dpam_members": ("qq", "qk"),
    }
    model = train(**variant)
    loaded = load(tiny_files, saved(model, tmp_path / "epoch_1.pth"))
    assert loaded.settings == model.settings and json.dumps(loaded.settings_dict())
    assert loaded.settings_dict() == model.settings_dict()
    with torch.no_grad():
        model.prompts.ctx_pos.add_(0.1)
    assert loaded.settings_dict() != model.settings_dict()
    model = load(tiny_files, tmp_path / "epoch_1.pth")
    assert {name: getattr(loaded.settings, name) for name in variant} == variant
    assert torch.equal(loaded.text_features(NAMES), model.text_features(NAMES))


def test_a_checkpoint_of_before_means_the_same(tiny_files, train, tmp_path):
    model = train()
    content = torch.load(saved(model, tmp_path / "new.pth"), weights_only=True)
    known = ("image_size", "features_list", "dpam", "dpam_layer", "n_ctx", "depth", "t_n_ctx", "sigma", "precision")
    settings = {name: content["settings"][name] for name in (*known, "backbone", "fingerprint")}
    torch.save(content | {"settings": settings}, tmp_path / "old.pth")
    loaded = load(tiny_files, tmp_path / "old.pth")
    assert loaded.settings == default_settings(find_backbone(str(tiny_files / "tiny.json"))) == model.settings
    assert torch.equal(loaded.text_features(), model.text_features())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"prompts": "object-aware "}, "--prompts object-aware "),
        ({"abnormal_word": " "}, "--abnormal_word"),
        ({"abnormal_word": "very " * 90}, "--abnormal_word"),
        ({"losses": ["global", "local"]}, "--losses local"),
        ({"losses": []}, "--losses"),
        ({"losses": ["dice", "dice"]}, "--losses dice dice"),
        ({"dpam": "ensemble", "dpam_members": ["vk"]}, "--dpam_members vk"),
        ({"dpam_members": ["qq"]}, "--dpam_members .*--dpam vv"),
        ({"templates": 80}, "--templates .*anomalyclip"),
    ],
)
def test_variants_that_do_not_exist(train, settings, complaint):
    with pytest.raises(InputError, match=complaint):
        train(**settings)


@pytest.mark.parametrize(
    ("name", "value"), [("shared_context", 1), ("losses", [1]), ("abnormal_word", 3), ("dpam_members", "qq")]
)
def test_damaged_settings_in_a_file(train, tmp_path, name, value):
    content = torch.load(saved(train(), tmp_path / "good.pth"), weights_only=True)
    torch.save(content | {"settings": content["settings"] | {name: value}}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=rf"{name} .*bad\.pth"):
        read_checkpoint(tmp_path / "bad.pth")

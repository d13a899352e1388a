"""Which CLIP, which prompts, which settings: what may be combined, and what is reported when it may not."""

import json
import socket

import make_weights
import pytest
import torch
from safetensors.torch import save_file

import AnomalyCLIP_lib
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.backbone import find_backbone, supported_names
from AnomalyCLIP_lib.checkpoint import find_prompts, read_checkpoint
from AnomalyCLIP_lib.settings import default_settings, resolve_settings
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import fingerprint, load_clip, random_clip


def load_reference(folder, checkpoint="prompts.pth", **settings):
    config, weights = str(folder / "config.json"), str(folder / "clip.pt")
    prompts = folder / checkpoint if checkpoint != "handwritten" else checkpoint
    return AnomalyCLIP_lib.load(config, weights, prompts, device="cpu", **settings)


# --- backbones ---------------------------------------------------------------------------------------------------


def test_the_papers_name_means_quickgelu():
    backbone = find_backbone("ViT-L/14@336px")
    assert backbone.name == "ViT-L-14-336-quickgelu" and backbone.config["quick_gelu"]
    assert find_backbone("ViT-B/32").config["quick_gelu"]
    assert not find_backbone("ViT-B-32").config.get("quick_gelu")


def test_quickgelu_is_what_runs(tiny_files):
    clip = random_clip(find_backbone(str(tiny_files / "tiny.json")))
    kinds = {type(module).__name__ for module in clip.modules()}
    assert "QuickGELU" in kinds and "GELU" not in kinds


def test_defaults_follow_the_backbone():
    large = default_settings(find_backbone("ViT-L/14@336px"))
    assert (large.image_size, large.features_list, large.dpam_layer, large.depth) == (518, (24,), 20, 9)
    base = default_settings(find_backbone("ViT-B/16"))
    assert (base.image_size, base.features_list, base.dpam_layer) == (512, (12,), 11)


@pytest.mark.parametrize(
    "name, complaint",
    [
        ("ViT-L/15", "unknown.*ViT-L/14.*demo"),
        ("RN50", "ResNet"),
        ("ViT-B-16-SigLIP", "cannot be used"),
        ("coca_ViT-B-32", "CoCa|second text decoder"),
        ("roberta-ViT-B-32", "CLIP's tokens"),
        ("nowhere/config.json", "cannot be read"),
    ],
)
def test_other_backbones_are_refused_by_name(name, complaint):
    with pytest.raises(InputError, match=complaint):
        find_backbone(name)


def test_many_open_clip_models_are_accepted():
    names = supported_names()
    assert {"ViT-L-14-336-quickgelu", "ViT-B-16", "ViT-H-14"} <= set(names)
    assert not any(name.startswith(("RN", "coca", "convnext")) for name in names)


def test_broken_configs(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"embed_dim": 3}')
    with pytest.raises(InputError, match="not valid JSON"):
        find_backbone(str(tmp_path / "a.json"))
    with pytest.raises(InputError, match="lacks embed_dim, vision_cfg or text_cfg"):
        find_backbone(str(tmp_path / "b.json"))


def test_too_long_a_prompt_is_refused_not_cut():
    assert tokenize(["a photo"]).shape == (1, 77)
    with pytest.raises(ValueError, match="77"):
        tokenize(["word " * 90])


# --- weights -----------------------------------------------------------------------------------------------------


class OpenAIArchive(torch.nn.Module):
    """Parameters under OpenAI's names in fp16, with the extra buffers of their archive."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            module, *path, leaf = self, *name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def half_weights(tiny_files):
    clip = random_clip(find_backbone(str(tiny_files / "tiny.json")))
    return {name: value.half() for name, value in clip.state_dict().items()}


@pytest.fixture(scope="module")
def weight_files(half_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_file(half_weights, folder / "clip.safetensors")
    torch.save(half_weights, folder / "clip.pth")
    torch.save({"state_dict": {f"module.{name}": value for name, value in half_weights.items()}}, folder / "nested.pt")
    torch.jit.save(torch.jit.trace(OpenAIArchive(half_weights), torch.zeros(1)), folder / "openai.pt")
    return folder


def test_all_weight_formats_give_the_same_model(tiny_files, weight_files):
    backbone = find_backbone(str(tiny_files / "tiny.json"))
    prints = {path.name: fingerprint(load_clip(backbone, str(path))) for path in weight_files.iterdir()}
    assert len(prints) == 4 and len(set(prints.values())) == 1


def test_weights_are_frozen_and_fp32(tiny_files, weight_files):
    clip = load_clip(find_backbone(str(tiny_files / "tiny.json")), str(weight_files / "openai.pt"))
    assert not clip.training
    assert all(parameter.dtype == torch.float32 and not parameter.requires_grad for parameter in clip.parameters())


def test_custom_text_models_load_the_same_weights(tiny_files, weight_files, tmp_path):
    config = json.loads((tiny_files / "tiny.json").read_text()) | {"custom_text": True}
    (tmp_path / "custom.json").write_text(json.dumps(config))
    weights = str(weight_files / "clip.pth")
    plain, custom = (
        AnomalyCLIP_lib.load(str(path), weights, "handwritten", device="cpu")
        for path in (tiny_files / "tiny.json", tmp_path / "custom.json")
    )
    assert torch.equal(plain.text_features(), custom.text_features())


def test_openai_weights_need_quickgelu(tiny_files, weight_files, tmp_path):
    config = json.loads((tiny_files / "tiny.json").read_text()) | {"quick_gelu": False}
    (tmp_path / "gelu.json").write_text(json.dumps(config))
    backbone, weights = find_backbone(str(tmp_path / "gelu.json")), str(weight_files / "openai.pt")
    with pytest.raises(InputError, match="QuickGELU"):
        load_clip(backbone, weights)
    kinds = {type(module).__name__ for module in load_clip(backbone, weights, any_activation=True).modules()}
    assert "GELU" in kinds and "QuickGELU" not in kinds  # as VAND was published


def test_tags_of_another_activation_are_refused():
    with pytest.raises(InputError, match="use --backbone ViT-L-14-336-quickgelu"):
        load_clip(find_backbone("ViT-L-14-336"), "openai")


def test_weights_of_another_architecture_are_refused(tiny_files, half_weights, tmp_path):
    backbone = find_backbone(str(tiny_files / "tiny.json"))
    other_size = half_weights | {"visual.positional_embedding": torch.zeros(1 + 9, 64)}
    incomplete = {name: value for name, value in half_weights.items() if name != "visual.proj"}
    broken = half_weights | {"visual.proj": torch.full((64, 16), float("nan"))}
    for state, complaint in (
        (other_size, "another shape for visual.positional_embedding"),
        (incomplete, "lacks visual.proj"),
        (half_weights | {"extra": torch.zeros(1)}, "unknown extra"),
        (broken, "not finite"),
    ):
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(InputError, match=complaint):
            load_clip(backbone, str(tmp_path / "w.pt"))


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", b""])
@pytest.mark.parametrize("extension", [".pt", ".safetensors"])
def test_unreadable_weights(tiny_files, tmp_path, content, extension):
    path = tmp_path / f"weights{extension}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as CLIP weights"):
        load_clip(find_backbone(str(tiny_files / "tiny.json")), str(path))


def test_missing_weight_files_and_tags(tiny_files, monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.pt does not exist"):
        load_clip(find_backbone("ViT-B/32"), "nowhere.pt")
    with pytest.raises(InputError, match=r"opanai is neither a file nor a tag of ViT-B-32-quickgelu.*openai"):
        load_clip(find_backbone("ViT-B/32"), "opanai")
    with pytest.raises(InputError, match="--pretrained"):
        load_clip(find_backbone(str(tiny_files / "tiny.json")))

    def no_network(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", no_network)
    with pytest.raises(InputError, match=r"not on this machine.*ViT-L-14-336px\.pt.*--pretrained FILE.*demo"):
        load_clip(find_backbone("ViT-L/14@336px"), cache_dir=str(tmp_path))


# --- prompts -----------------------------------------------------------------------------------------------------


def test_released_checkpoint_with_unused_tensors_loads(reference_files):
    prompts = torch.load(reference_files / "prompts.pth", weights_only=True)["prompt_learner"]
    assert any(key.startswith("compound_prompt_projections") for key in prompts)
    model = load_reference(reference_files, image_size=28)
    assert torch.equal(model.prompts.ctx_neg, prompts["ctx_neg"])
    assert not any("projections" in name for name, _ in model.named_parameters())
    assert (model.settings.n_ctx, model.settings.depth, model.settings.t_n_ctx) == (12, 9, 4)


def test_prompt_sizes_come_from_the_tensors(reference_files, tmp_path):
    clip = make_weights.clip_state_dict()
    state = make_weights.full_prompt_state_dict(clip, n_ctx=5, depth=3, t_n_ctx=2)
    torch.save({"prompt_learner": state}, tmp_path / "other.pth")
    config, weights = str(reference_files / "config.json"), str(reference_files / "clip.pt")
    model = AnomalyCLIP_lib.load(config, weights, tmp_path / "other.pth", device="cpu")
    assert (model.settings.n_ctx, model.settings.depth, model.settings.t_n_ctx) == (5, 3, 2)
    with pytest.raises(InputError, match=r"--n_ctx 12 contradicts .*n_ctx 5"):
        AnomalyCLIP_lib.load(config, weights, tmp_path / "other.pth", device="cpu", n_ctx=12)


def test_released_prompts_of_other_weights_are_refused(reference_files, tmp_path):
    clip = make_weights.clip_state_dict()
    clip["token_embedding.weight"] = clip["token_embedding.weight"].flip(0)
    torch.save(clip, tmp_path / "clip.pt")
    with pytest.raises(InputError, match="other CLIP weights"):
        AnomalyCLIP_lib.load(
            str(reference_files / "config.json"),
            str(tmp_path / "clip.pt"),
            reference_files / "prompts.pth",
            device="cpu",
        )


def test_prompts_of_another_width_are_refused(reference_files, tiny_files):
    with pytest.raises(InputError, match="128 wide, but backbone tiny has text width 16"):
        AnomalyCLIP_lib.load(
            str(tiny_files / "tiny.json"),
            str(tiny_files / "tiny.safetensors"),
            reference_files / "prompts.pth",
            depth=None,
            device="cpu",
        )


def damaged(state, **changes):
    return {key: value for key, value in (state | changes).items() if value is not None}


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"ctx_neg": None}, "lacks the prompt tensor ctx_neg"),
        ({"ctx_pos": torch.full((1, 1, 12, 128), float("inf"))}, "not finite"),
        ({"ctx_pos": torch.zeros(12, 128)}, "do not belong together"),
        ({"compound_prompts_text.3": None}, "do not belong together"),
        ({"compound_prompts_text.3": torch.zeros(4, 7)}, "do not belong together"),
        ({"ctx_pos": "text"}, "no tensor"),
        ({"token_suffix_pos": torch.zeros(1, 1, 2, 128)}, "wrong shape"),
    ],
)
def test_damaged_checkpoints(reference_files, tmp_path, changes, complaint):
    state = torch.load(reference_files / "prompts.pth", weights_only=True)["prompt_learner"]
    torch.save({"prompt_learner": damaged(state, **changes)}, tmp_path / "prompts.pth")
    with pytest.raises(InputError, match=complaint):
        AnomalyCLIP_lib.load(
            str(reference_files / "config.json"),
            str(reference_files / "clip.pt"),
            tmp_path / "prompts.pth",
            device="cpu",
        )


class WritesAFile:
    """Unpickled without restrictions, it opens a file for writing, as any other code could run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_checkpoint_or_weight_file_never_runs(tiny_files, tmp_path):
    marker = tmp_path / "it ran"
    torch.save({"prompt_learner": WritesAFile(marker)}, tmp_path / "p.pth")
    with pytest.raises(InputError, match="not a checkpoint"):
        AnomalyCLIP_lib.load(checkpoint=tmp_path / "p.pth")
    with pytest.raises(InputError, match="cannot be read as CLIP weights"):
        load_clip(find_backbone(str(tiny_files / "tiny.json")), str(tmp_path / "p.pth"))
    assert not marker.exists()
    torch.load(tmp_path / "p.pth", weights_only=False)["prompt_learner"].close()
    assert marker.exists()  # it would have, without the restriction


@pytest.mark.parametrize("content", [b"<html>404</html>", b""])
def test_files_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / "p.pth").write_bytes(content)
    with pytest.raises(InputError, match="not a checkpoint"):
        AnomalyCLIP_lib.load(checkpoint=tmp_path / "p.pth")
    torch.save({"something": 1}, tmp_path / "q.pth")
    with pytest.raises(InputError, match="no 'prompt_learner'"):
        AnomalyCLIP_lib.load(checkpoint=tmp_path / "q.pth")
    with pytest.raises(InputError, match="does not exist"):
        AnomalyCLIP_lib.load(checkpoint=tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ([], "not a table"),
        ({"image_size": "128"}, "image_size .* '128'"),
        ({"features_list": 8}, "features_list .* 8"),
        ({"features_list": ["8"]}, "features_list"),
        ({"sigma": "x"}, "sigma"),
        ({"dpam": 3}, "dpam"),
        ({"pretrained": 5}, "pretrained"),
        ({"backbone": "demo"}, "names no backbone"),
    ],
)
def test_damaged_settings_of_a_checkpoint(reference_files, tmp_path, settings, complaint):
    content = torch.load(reference_files / "prompts.pth", weights_only=True) | {"settings": settings}
    torch.save(content, tmp_path / "p.pth")
    with pytest.raises(InputError, match=complaint) as error:
        AnomalyCLIP_lib.load(checkpoint=tmp_path / "p.pth")
    assert "p.pth" in str(error.value)


def test_unknown_arguments_are_not_swallowed():
    with pytest.raises(InputError, match=r"sigmaa .*image_size.*sigma"):
        AnomalyCLIP_lib.load("demo", sigmaa=9)


@pytest.fixture
def checkpoint_folders(reference_files, tmp_path, monkeypatch):
    """A checkpoints/ folder as a user may have it: the authors' folders, and later epochs of our own."""
    prompts = (reference_files / "prompts.pth").read_bytes()
    for name in ("9_12_4_multiscale/epoch_15.pth", "9_12_4_multiscale_visa/epoch_2.pth", "trained_on_visa/epoch_9.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(prompts)
    (tmp_path / "trained_on_visa" / "epoch_10.pth").write_bytes(prompts)
    (tmp_path / "9_12_4_multiscale_visa" / "epoch_3.pth").write_bytes(b"cut short")
    monkeypatch.setattr("AnomalyCLIP_lib.checkpoint.CHECKPOINTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "tested, expected",
    [
        ("mvtec", "trained_on_visa/epoch_10.pth"),  # never prompts that were trained on MVTec AD itself
        ("visa", "9_12_4_multiscale_visa/epoch_2.pth"),
        ("kvasir", "9_12_4_multiscale_visa/epoch_2.pth"),
        (None, "9_12_4_multiscale_visa/epoch_2.pth"),
    ],
)
def test_prompts_are_found_for_what_is_tested(checkpoint_folders, tested, expected):
    found = find_prompts(find_backbone("ViT-L/14@336px"), tested)
    assert found == checkpoint_folders / expected
    assert read_checkpoint(found).trained_on == ("visa" if tested == "mvtec" else "mvtec")


def test_released_prompts_are_for_the_papers_backbone_only(checkpoint_folders):
    assert find_prompts(find_backbone("ViT-L/14"), "visa") is None


# --- settings and device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed, complaint",
    [
        ({"image_size": 500}, "--image_size 500 is not a multiple of the patch size 14 .*; use 504"),
        ({"image_size": 0}, "--image_size 0"),
        ({"features_list": [0]}, "--features_list 0 does not exist.*1 to 24"),
        ({"features_list": [25]}, "--features_list 25 does not exist"),
        ({"features_list": [6, 6]}, "names a block twice"),
        ({"feature_map_layer": [3]}, "selects none"),
        ({"feature_map_layer": [-1]}, "negative"),
        ({"dpam": "xx"}, "--dpam xx is unknown"),
        ({"dpam_layer": 0}, "--dpam_layer 0"),
        ({"dpam_layer": 26}, "--dpam_layer 26"),
        ({"sigma": -1.0}, "--sigma -1.0"),
        ({"sigma": float("nan")}, "--sigma nan"),
        ({"sigma": 1e9}, "--sigma .* give 0 to 518 pixels"),
        ({"depth": 0}, "--depth 0"),
        ({"depth": 13}, "--depth 13"),
        ({"n_ctx": 0}, "--n_ctx 0"),
        ({"n_ctx": 80}, "--n_ctx 80"),
        ({"t_n_ctx": 15}, "--t_n_ctx 15"),
    ],
)
def test_settings_out_of_range(typed, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve_settings(typed, None, find_backbone("ViT-L/14@336px"))


def test_typed_values_replace_saved_ones_with_a_notice():
    backbone = find_backbone("ViT-L/14@336px")
    saved = {"image_size": 504, "features_list": [6, 24], "feature_map_layer": [1], "sigma": 2.0, "dpam": "qq"}
    settings, notices = resolve_settings({}, saved, backbone)
    assert (settings.image_size, settings.features_list, settings.sigma, settings.dpam) == (504, (6, 24), 2.0, "qq")
    assert settings.map_positions() == [1] and not notices
    settings, notices = resolve_settings({"image_size": 518, "features_list": [12], "sigma": 2.0}, saved, backbone)
    assert (settings.image_size, settings.features_list) == (518, (12,))
    assert len(notices) == 2 and "image_size 518 replaces 504" in notices[0] and "features_list 12" in notices[1]
    assert settings.map_positions() == [0]  # positions in the checkpoint's list say nothing about this one


def test_devices_that_are_not_there(tiny_files):
    def load_on(device, **settings):
        return AnomalyCLIP_lib.load(
            str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), device=device, **settings
        )

    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"--device cuda is not available.*cpu"):
            load_on("cuda")
    for name in ("nonsense", "meta"):
        with pytest.raises(InputError, match=f"--device {name}"):
            load_on(name)
    with pytest.raises(InputError, match="tf32 exists on CUDA"):
        load_on("cpu", precision="tf32")

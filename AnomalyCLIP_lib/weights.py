"""CLIP's weights: finding, fetching, reading and checking them, whatever file they come in."""

import hashlib
import socket
import urllib.parse
import urllib.request
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import nn

from AnomalyCLIP_lib.backbone import CHECKPOINTS, DEMO_BACKBONE, DEMO_FOLDER, Backbone
from AnomalyCLIP_lib.errors import InputError

OPENAI_WEIGHTS_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"
)
DEFAULT_TAGS = {"ViT-B-16-plus-240": "laion400m_e31"}
"""Of the backbones that OpenAI has no weights of, and a method is published with."""
NETWORK_TIMEOUT = 10  # seconds
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

Clip = open_clip.CLIP | open_clip.CustomTextCLIP


def load_clip(
    backbone: Backbone, pretrained: str | None = None, cache_dir: str | None = None, *, any_activation: bool = False
) -> Clip:
    """Build the open_clip model and load its weights: on the CPU, in fp32, frozen, in evaluation mode.

    Args:
        backbone: the architecture.
        pretrained: an open_clip tag or a local weight file; None: the demo's own file, or the backbone's default tag.
        cache_dir: where downloaded weights are kept; None: the Hugging Face default.
        any_activation: accept weights that were trained with the other one of GELU and QuickGELU, which gives other
            features; for methods that were published so.

    Raises:
        InputError: the tag or file does not exist, does not fit the architecture, or cannot be downloaded.
    """
    path = weight_file(backbone, pretrained, cache_dir, any_activation=any_activation)
    if not any_activation and _is_torchscript(path) and not backbone.config.get("quick_gelu"):
        raise InputError(
            f"{path} holds OpenAI's weights, which need QuickGELU; use --backbone {backbone.name}-quickgelu."
        )
    model = random_clip(backbone)
    state = _fitted_state(_read_state_dict(path), model, path, backbone)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def random_clip(backbone: Backbone) -> Clip:
    """The open_clip model of this architecture with freshly drawn weights, in fp32, trainable."""
    config = deepcopy(backbone.config)
    build = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    try:
        model = build(**config)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise InputError(f"The model config of {backbone.name} cannot be built by open_clip: {error}.") from error
    _check_towers(model, backbone)
    return model


def text_tower(clip: Clip) -> Any:
    """The module that holds token_embedding, transformer, ln_final and text_projection."""
    return clip.text if isinstance(clip, open_clip.CustomTextCLIP) else clip


def weight_file(
    backbone: Backbone,
    pretrained: str | None,
    cache_dir: str | None,
    download: bool = True,
    *,
    any_activation: bool = False,
) -> Path:
    """The file that holds the weights; downloaded by open_clip where `pretrained` is a tag that is not cached yet.

    Raises:
        InputError: there is no such file or tag, or it is not on this machine and cannot be fetched.
    """
    if pretrained is not None and _looks_like_file(pretrained):
        if not Path(pretrained).is_file():
            raise InputError(f"The weight file {pretrained} does not exist; check --pretrained.")
        return Path(pretrained)
    if backbone.is_demo and pretrained is None:
        return DEMO_FOLDER / "clip.safetensors"
    if not backbone.built_in and pretrained is None:
        raise InputError(f"Backbone {backbone.name} is a config file without weights; pass its file by --pretrained.")
    tag = pretrained or DEFAULT_TAGS.get(backbone.name, "openai")
    entry = open_clip.get_pretrained_cfg(backbone.name, tag)
    if not entry:
        tags = open_clip.list_pretrained_tags_by_model(backbone.name)
        offer = f"open_clip has the tags {', '.join(tags)}" if tags else "open_clip has no tag for it"
        raise InputError(
            f"--pretrained {tag} is neither a file nor a tag of {backbone.name}; {offer}, or give a local file."
        )
    if not any_activation and bool(entry.get("quick_gelu")) != bool(backbone.config.get("quick_gelu")):
        other = f"{backbone.name}-quickgelu" if entry.get("quick_gelu") else backbone.name.removesuffix("-quickgelu")
        raise InputError(
            f"The weights '{tag}' need another activation than that of {backbone.name}; use --backbone {other}."
        )
    cached = _cached_file(backbone, entry, cache_dir)
    if cached:
        return cached
    if download and _network_reaches(entry):
        try:
            return Path(open_clip.download_pretrained(entry, cache_dir=cache_dir))
        except Exception as error:  # the hub client raises many types for "no network", and their texts are long
            raise InputError(_no_download(backbone, tag, entry)) from error
    raise InputError(_no_download(backbone, tag, entry))


def _network_reaches(entry: dict[str, Any]) -> bool:
    """Whether the host that has these weights answers; the hub client alone would retry for a minute."""
    from huggingface_hub import constants

    if urllib.request.getproxies():
        return True  # the way to the host leads through a proxy: only trying tells
    address = urllib.parse.urlsplit(constants.ENDPOINT if entry.get("hf_hub") else entry.get("url", ""))
    try:
        port = address.port or {"http": 80, "https": 443}[address.scheme]
        socket.create_connection((address.hostname or "", port), timeout=NETWORK_TIMEOUT).close()
    except (OSError, KeyError):
        return False
    return True


def _cached_file(backbone: Backbone, entry: dict[str, Any], cache_dir: str | None) -> Path | None:
    """Weights that are on this machine already, so that no network is asked."""
    from huggingface_hub import try_to_load_from_cache

    beside = CHECKPOINTS / Path(entry.get("url", "")).name
    if entry.get("url") == OPENAI_WEIGHTS_URL and beside.is_file():
        return beside
    repository, _, file = entry.get("hf_hub", "").rpartition("/")
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    for name in names if repository else []:
        found = try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found)
    return None


def _no_download(backbone: Backbone, tag: str, entry: dict[str, Any]) -> str:
    source = entry.get("url") or f"https://huggingface.co/{entry.get('hf_hub', '').rstrip('/')}"
    return (
        f"The weights '{tag}' of {backbone.name} are not on this machine and could not be downloaded; fetch {source} "
        f"where there is a network and pass the file by --pretrained FILE (PRETRAINED=FILE for test.sh and train.sh), "
        f"or use --backbone {DEMO_BACKBONE}."
    )


def _looks_like_file(pretrained: str) -> bool:
    return Path(pretrained).suffix.lower() in (".pt", ".pth", ".bin", ".safetensors") or "/" in pretrained


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file, an OpenAI TorchScript archive or a plain state dict."""
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces the end of TorchScript; OpenAI's file stays one
                archive = torch.jit.load(str(path), map_location="cpu")
            return {key: value for key, value in archive.state_dict().items() if key not in _OPENAI_EXTRAS}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch each have error types of their own
        raise InputError(f"The weight file {path} cannot be read as CLIP weights; download it again.") from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise InputError(f"The weight file {path} is no state dict of tensors; give CLIP weights by --pretrained.")
    return {key.removeprefix("module."): value for key, value in loaded.items() if key not in _OPENAI_EXTRAS}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _fitted_state(
    state: dict[str, torch.Tensor], model: Clip, path: Path, backbone: Backbone
) -> dict[str, torch.Tensor]:
    """The state dict under the model's own names, or an error where it belongs to another architecture.

    open_clip would quietly interpolate positional embeddings of another size; here that is an error, since it
    means weights of another model.
    """
    if isinstance(model, open_clip.CustomTextCLIP) and "positional_embedding" in state:
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    state = {key: value.reshape(()) if key == "logit_scale" else value for key, value in state.items()}
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    shapes = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    for keys, complaint in ((missing, "lacks"), (unknown, "has the unknown"), (shapes, "has another shape for")):
        if keys:
            raise InputError(
                f"The weights {path} do not fit backbone {backbone.name}: the file {complaint} {keys[0]} "
                f"({len(keys)} such tensors); choose the --backbone that these weights belong to."
            )
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise InputError(f"The weights {path} hold values that are not finite in {broken[0]}; download the file again.")
    return state


def _check_towers(model: Clip, backbone: Backbone) -> None:
    """The config has passed `_refusal`; this guards against what a later open_clip may build from it."""
    visual: Any = model.visual
    text = text_tower(model)
    blocks = [*visual.transformer.resblocks, *text.transformer.resblocks]
    if (
        not isinstance(visual, VisionTransformer)
        or not isinstance(text, (open_clip.CLIP, TextTransformer))
        or not all(type(block) is ResidualAttentionBlock for block in blocks)
    ):
        raise InputError(
            f"Backbone {backbone.name} has towers other than open_clip's own transformers; choose another."
        )


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and fp32 values of all parameters, in the order of their names.

    The same weights give the same fingerprint from whichever file format they came.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()

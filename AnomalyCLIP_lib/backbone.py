"""Which CLIP: from a name, a model-config file or a checkpoint to a frozen open_clip model with its weights."""

import difflib
import hashlib
import json
import warnings
import zipfile
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import nn

from AnomalyCLIP_lib.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
CHECKPOINTS = REPOSITORY / "checkpoints"
DEMO_FOLDER = CHECKPOINTS / "demo"

PAPER_BACKBONE = "ViT-L/14@336px"
DEMO_BACKBONE = "demo"
DEMO_DESCRIPTION = "the small embedded demo CLIP (trained on drawn pictures; not the paper's model)"

# OpenAI trained with QuickGELU; open_clip's plain names run GELU and would silently give other features.
OPENAI_NAMES = {
    "ViT-L/14@336px": "ViT-L-14-336-quickgelu",
    "ViT-L/14": "ViT-L-14-quickgelu",
    "ViT-B/16": "ViT-B-16-quickgelu",
    "ViT-B/32": "ViT-B-32-quickgelu",
}
OPENAI_WEIGHTS_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"
)
CONTEXT_LENGTH = 77

Clip = open_clip.CLIP | open_clip.CustomTextCLIP
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Backbone:
    """A CLIP architecture, known before any weight is loaded.

    Attributes:
        name: an open_clip name, "demo", or the stem of a model-config file; written into checkpoints.
        config: open_clip's model config (embed_dim, vision_cfg, text_cfg, quick_gelu, ...).
        defaults: settings of ours that the config file carries under "anomalyclip" (image_size, dpam_layer, ...).
        built_in: the name alone is enough to find the config again (open_clip's own models and "demo").
    """

    name: str
    config: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    built_in: bool = True

    @property
    def is_demo(self) -> bool:
        return self.built_in and self.name == DEMO_BACKBONE

    @property
    def vision_layers(self) -> int:
        return self.config["vision_cfg"]["layers"]

    @property
    def text_layers(self) -> int:
        return self.config["text_cfg"].get("layers", 12)

    @property
    def patch_size(self) -> int:
        return self.config["vision_cfg"].get("patch_size", 16)

    @property
    def text_width(self) -> int:
        return self.config["text_cfg"].get("width", 512)

    def description(self) -> dict[str, Any]:
        """What a checkpoint records: the name, and the config where the name alone does not give it."""
        return {"name": self.name, "config": None if self.built_in else deepcopy(self.config)}


def find_backbone(name: str) -> Backbone:
    """The architecture behind the paper's name, an open_clip name, a model-config JSON file, or "demo".

    Raises:
        InputError: nothing of that name exists, or its towers are not ones this method is defined for.
    """
    if name == DEMO_BACKBONE:
        return _from_file(DEMO_FOLDER / "config.json", DEMO_BACKBONE, built_in=True)
    if name.lower().endswith(".json") or Path(name).is_file():
        return _from_file(Path(name), Path(name).stem, built_in=False)
    clip_name = OPENAI_NAMES.get(name, name.replace("/", "-"))
    config = open_clip.get_model_config(clip_name) if "hf-hub:" not in name and "local-dir:" not in name else None
    if config is None:
        raise InputError(_unknown_backbone(name))
    return _checked(Backbone(clip_name, config))


def backbone_from_description(description: Any, file: Path) -> Backbone:
    """The inverse of `Backbone.description`, for the checkpoint `file`."""
    if not isinstance(description, dict) or not isinstance(description.get("name"), str):
        raise InputError(f"{file} names no backbone in its settings; pass --backbone.")
    if description.get("config") is None:
        return find_backbone(description["name"])
    return _checked(_from_config(description["config"], description["name"], str(file), built_in=False))


def supported_names() -> list[str]:
    """The open_clip names whose config describes towers that this method is defined for."""
    return [name for name in open_clip.list_models() if _refusal(open_clip.get_model_config(name) or {}, name) is None]


def _from_file(path: Path, name: str, built_in: bool) -> Backbone:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The model config {path} cannot be read ({error.strerror}); give an open_clip model-config JSON."
        ) from error
    except ValueError as error:
        raise InputError(f"The model config {path} is not valid JSON ({error}); mend or replace the file.") from error
    return _checked(_from_config(config, name, str(path), built_in))


def _from_config(config: Any, name: str, source: str, built_in: bool) -> Backbone:
    if not isinstance(config, dict) or not all(key in config for key in ("embed_dim", "vision_cfg", "text_cfg")):
        raise InputError(
            f"The model config {source} lacks embed_dim, vision_cfg or text_cfg; give an open_clip model-config JSON."
        )
    config = deepcopy(config)
    defaults = config.pop("anomalyclip", {})
    return Backbone(name, config, defaults, built_in)


def _checked(backbone: Backbone) -> Backbone:
    reason = _refusal(backbone.config, backbone.name)
    if reason:
        raise InputError(
            f"Backbone {backbone.name} cannot be used: {reason}; choose {PAPER_BACKBONE}, ViT-B/16 or the like."
        )
    return backbone


def _refusal(config: dict[str, Any], name: str) -> str | None:
    """Why the DPAM encoder and the deep text tokens are not defined for this config; None if they are."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if not isinstance(vision, dict) or not isinstance(text, dict):
        return "its vision_cfg and text_cfg are not tables"
    if "multimodal_cfg" in config:
        return "CoCa models carry a second text decoder"
    if vision.get("timm_model_name"):
        return "its image tower is a timm model, not open_clip's VisionTransformer"
    if not isinstance(vision.get("layers"), int):
        return "its image tower is a ResNet, not a vision transformer"
    if vision.get("attentional_pool") or vision.get("pool_type", "tok") != "tok":
        return "its image tower does not pool by the class token"
    if vision.get("no_ln_pre"):
        return "its image tower has no ln_pre"
    if vision.get("final_ln_after_pool"):
        return "its image tower pools before ln_post"
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "siglip" in name.lower():
        return "its text tower does not read CLIP's tokens"
    if text.get("context_length", CONTEXT_LENGTH) != CONTEXT_LENGTH:
        return f"its text tower reads {text['context_length']} tokens, not {CONTEXT_LENGTH}"
    if text.get("vocab_size", 49408) != 49408:
        return "its text tower does not use CLIP's vocabulary"
    if text.get("embed_cls") or text.get("no_causal_mask") or text.get("pool_type", "argmax") != "argmax":
        return "its text tower does not read the feature at the end-of-text token under a causal mask"
    if text.get("proj_type", "linear") != "linear" or text.get("proj_bias"):
        return "its text tower lacks CLIP's plain text projection"
    custom = (
        "block_type",
        "qk_norm",
        "scaled_cosine_attn",
        "scale_heads",
        "scale_attn_inner",
        "scale_attn",
        "scale_fc",
    )
    if any(tower.get(key) for tower in (vision, text) for key in custom):
        return "its attention blocks are not the standard ones"
    return None


def _unknown_backbone(name: str) -> str:
    names = supported_names()
    close = difflib.get_close_matches(name, [*OPENAI_NAMES, DEMO_BACKBONE, *names], n=3, cutoff=0.6)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return (
        f"Backbone {name} is unknown{hint}; choose {', '.join(OPENAI_NAMES)}, {DEMO_BACKBONE}, "
        f"the path of an open_clip model-config JSON, or one of open_clip's: {', '.join(names)}."
    )


# --- weights -----------------------------------------------------------------------------------------------


def load_clip(backbone: Backbone, pretrained: str | None = None, cache_dir: str | None = None) -> Clip:
    """Build the open_clip model and load its weights: on the CPU, in fp32, frozen, in evaluation mode.

    Args:
        backbone: the architecture.
        pretrained: an open_clip tag or a local weight file; None: the demo's own file, or the tag "openai".
        cache_dir: where downloaded weights are kept; None: the Hugging Face default.

    Raises:
        InputError: the tag or file does not exist, does not fit the architecture, or cannot be downloaded.
    """
    path = weight_file(backbone, pretrained, cache_dir)
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


def tokenize(texts: list[str]) -> torch.Tensor:
    """CLIP's token ids (len(texts), 77), int64. Raises ValueError where a text is too long rather than cut it."""
    longest = max(len(_tokenizer().encode(text)) for text in texts) + 2
    if longest > CONTEXT_LENGTH:
        raise ValueError(f"a prompt has {longest} tokens, but CLIP reads {CONTEXT_LENGTH}")
    return _tokenizer()(texts)


def weight_file(backbone: Backbone, pretrained: str | None, cache_dir: str | None, download: bool = True) -> Path:
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
    tag = pretrained or "openai"
    entry = open_clip.get_pretrained_cfg(backbone.name, tag)
    if not entry:
        tags = open_clip.list_pretrained_tags_by_model(backbone.name)
        offer = f"open_clip has the tags {', '.join(tags)}" if tags else "open_clip has no tag for it"
        raise InputError(f"--pretrained {tag} is no file and no tag of {backbone.name}; {offer}, or give a local file.")
    if bool(entry.get("quick_gelu")) != bool(backbone.config.get("quick_gelu")):
        other = f"{backbone.name}-quickgelu" if entry.get("quick_gelu") else backbone.name.removesuffix("-quickgelu")
        raise InputError(
            f"The weights '{tag}' need another activation than that of {backbone.name}; use --backbone {other}."
        )
    cached = _cached_file(backbone, entry, cache_dir)
    if cached:
        return cached
    if download:
        try:
            return Path(open_clip.download_pretrained(entry, cache_dir=cache_dir))
        except Exception as error:  # the hub client raises many types for "no network", and their texts are long
            raise InputError(_no_download(backbone, tag, entry)) from error
    raise InputError(_no_download(backbone, tag, entry))


def _cached_file(backbone: Backbone, entry: dict[str, Any], cache_dir: str | None) -> Path | None:
    """Weights that are on this machine already, so that no network is asked."""
    from huggingface_hub import try_to_load_from_cache

    beside = CHECKPOINTS / Path(entry.get("url", "")).name
    if backbone.name == OPENAI_NAMES[PAPER_BACKBONE] and beside.is_file():
        return beside
    repository, _, file = entry.get("hf_hub", "").rpartition("/")
    names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    for name in names if repository else []:
        found = try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(found, str):
            return Path(found)
    return None


def _no_download(backbone: Backbone, tag: str, entry: dict[str, Any]) -> str:
    source = OPENAI_WEIGHTS_URL if backbone.name == OPENAI_NAMES[PAPER_BACKBONE] and tag == "openai" else None
    source = source or entry.get("url") or f"https://huggingface.co/{entry.get('hf_hub', '').rstrip('/')}"
    return (
        f"The weights '{tag}' of {backbone.name} are not on this machine and could not be downloaded; fetch {source} "
        f"where there is a network and pass the file by --pretrained FILE, or use --backbone {DEMO_BACKBONE}."
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
    if _is_torchscript(path) and not backbone.config.get("quick_gelu"):
        raise InputError(
            f"{path} holds OpenAI's weights, which need QuickGELU; use --backbone {backbone.name}-quickgelu."
        )
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


_TOKENIZER: list[SimpleTokenizer] = []


def _tokenizer() -> SimpleTokenizer:
    if not _TOKENIZER:  # reading the vocabulary takes a second, so only where text is tokenised
        _TOKENIZER.append(SimpleTokenizer(context_length=CONTEXT_LENGTH))
    return _TOKENIZER[0]

"""Which CLIP: from a name, a model-config file or a checkpoint's record to an architecture that can be used."""

import difflib
import json
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.errors import InputError

# In a checkout, checkpoints/ lies beside the library. Installed, the library carries the demo model with it, and
# prompts and weights are looked for in the folder where the user stands.
_BESIDE = Path(__file__).resolve().parent.parent / "checkpoints"
_IN_CHECKOUT = (_BESIDE / "demo").is_dir()
CHECKPOINTS = _BESIDE if _IN_CHECKOUT else Path("checkpoints")
DEMO_FOLDER = _BESIDE / "demo" if _IN_CHECKOUT else Path(__file__).resolve().parent / "demo_model"

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
CONTEXT_LENGTH = 77


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
    def pretraining_size(self) -> int:
        """Of the images that the weights were trained on, pixels."""
        return self.config["vision_cfg"].get("image_size", 224)

    @property
    def text_width(self) -> int:
        return self.config["text_cfg"].get("width", 512)

    def to_dict(self) -> dict[str, Any]:
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
    import open_clip  # brings torch, which commands that only name a backbone do not wait for

    clip_name = OPENAI_NAMES.get(name, name.replace("/", "-"))
    config = open_clip.get_model_config(clip_name) if "hf-hub:" not in name and "local-dir:" not in name else None
    if config is None:
        raise InputError(_unknown_backbone(name))
    return _checked(Backbone(clip_name, config))


def backbone_from_dict(description: Any, file: Path) -> Backbone:
    """The inverse of `Backbone.to_dict`, for the checkpoint `file`."""
    if not isinstance(description, dict) or not isinstance(description.get("name"), str):
        raise InputError(f"{file} names no backbone in its settings; pass --backbone.")
    if description.get("config") is None:
        return find_backbone(description["name"])
    return _checked(_from_config(description["config"], description["name"], str(file), built_in=False))


def supported_names() -> list[str]:
    """The open_clip names whose config describes towers that this method is defined for."""
    import open_clip

    return [name for name in open_clip.list_models() if _refusal(open_clip.get_model_config(name) or {}, name) is None]


def _from_file(path: Path, name: str, built_in: bool) -> Backbone:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"The model config {path} cannot be read ({error.strerror}); give an open_clip model-config JSON."
        ) from error
    except ValueError as error:
        raise InputError(f"The model config {path} is not valid JSON ({error}); fix or replace the file.") from error
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

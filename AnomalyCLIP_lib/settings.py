"""Model settings: what the user typed, what the checkpoint says, what method and backbone imply, in this order.

The fields of `Settings` are the one list of them: flags, `load(...)`, checkpoints and caches are generated from it.
Nothing here needs torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from AnomalyCLIP_lib.errors import InputError

if TYPE_CHECKING:
    from AnomalyCLIP_lib.backbone import Backbone

ANOMALYCLIP = "anomalyclip"
METHODS = (ANOMALYCLIP, "clip", "clip-ac", "coop", "winclip", "vand")
TEMPLATES = {"clip": (1,), "clip-ac": (80, 7), "winclip": (22, 21), "vand": (35,)}
"""Of the methods with handwritten sentences: how many are made of each word for normal and abnormal; default first."""
PROMPTS = ("object-agnostic", "object-aware", "fixed")
OBJECT_AGNOSTIC, OBJECT_AWARE, FIXED = PROMPTS
FIXED_CONTEXT = ("a", "photo", "of", "a")
LOSSES = ("global", "focal", "dice")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
DPAM_MEMBERS = ("qq", "kk", "vv", "qk")
DPAM_VARIANTS = ("vv", "qq", "kk", "none", "ensemble")

# Learned tokens have these shapes, so another value is a mistake; everything else may be varied on purpose.
PROMPT_SIZES = ("n_ctx", "depth", "t_n_ctx", "shared_context")
LISTS = {"features_list": int, "feature_map_layer": int, "dpam_members": str, "losses": str}
PAPER_IMAGE_SIZE = 518


def _setting(
    description: str, choices: tuple[str, ...] | None = None, methods: tuple[str, ...] = (ANOMALYCLIP,)
) -> Any:
    """A field with what the help of its flag says, and the methods that have it."""
    return field(metadata={"help": description, "choices": choices, "methods": methods})


@dataclass(frozen=True)
class Settings:
    """Everything that decides what the model computes, besides weights and prompts.

    A method has those that its computation reads; the others are of no effect, and nobody may set them.

    Attributes:
        method: what scores the images, one of `METHODS`.
        image_size: S, pixels; a multiple of the patch size.
        features_list: 1-based numbers of the blocks that give patch features.
        feature_map_layer: 0-based positions in features_list of the maps that count; None: all of them.
        dpam: "vv", "qq" or "kk": what attends to what on the local path; "none": there is no local path; "ensemble":
            several local paths, whose similarities are averaged before the softmax (where exactly is our reading).
        dpam_layer: n gives the last n - 1 blocks a local path.
        dpam_members: attentions of the ensemble.
        prompts: "object-agnostic"; "object-aware": with the class's name in place of "object"; "fixed": "a photo of a"
            in place of the learnable words, so that only deep tokens learn (the paper does not say what it puts there).
        abnormal_word: the word for abnormal in the abnormal prompt.
        shared_context: whether both prompts have the same learnable words.
        losses: which parts of the loss count.
        n_ctx: learnable words per prompt.
        depth: text blocks 2..depth receive deep tokens.
        t_n_ctx: deep tokens per block.
        templates: sentences made of each word, one of the method's `TEMPLATES`.
        temperature: of the softmax over the similarities to normal and abnormal.
        sigma: standard deviation of the map's Gaussian filter, pixels.
        precision: "fp32", "tf32" (CUDA only), "bf16" or "fp16" of the image encoder.
    """

    method: str = _setting("what scores the images (anomalyclip)", METHODS, METHODS)
    image_size: int = _setting("S; images are resized to S x S (518; of winclip 240)", methods=METHODS)
    features_list: tuple[int, ...] = _setting(
        "blocks that give patch features, from 1 (24; of vand 6 12 18 24)", methods=(ANOMALYCLIP, "vand")
    )
    feature_map_layer: tuple[int, ...] | None = _setting("positions in --features_list whose maps count, from 0 (all)")
    dpam: str = _setting("attention of the local path (vv)", DPAM_VARIANTS)
    dpam_layer: int = _setting("n: the last n - 1 blocks have a local path (20)")
    dpam_members: tuple[str, ...] = _setting("attentions that --dpam ensemble averages (qq kk vv)", DPAM_MEMBERS)
    prompts: str = _setting("what they name (object-agnostic); fixed: nothing but deep tokens learns", PROMPTS)
    abnormal_word: str = _setting("in the abnormal prompt (damaged)")
    shared_context: bool = _setting("the same learnable words in both prompts (no)")
    losses: tuple[str, ...] = _setting("parts of the loss that count (all)", LOSSES)
    n_ctx: int = _setting("learnable words per prompt (12; of coop 16)", methods=(ANOMALYCLIP, "coop"))
    depth: int = _setting("text blocks 2..depth receive deep tokens (9)")
    t_n_ctx: int = _setting("deep tokens per block (4)")
    templates: int = _setting("sentences per word: 80 or 7 of clip-ac, 22 or 21 of winclip", methods=(*TEMPLATES,))
    temperature: float = _setting("of the softmax (0.07)", methods=("clip", "clip-ac", "coop", "winclip"))
    sigma: float = _setting(
        "of the maps' Gaussian filter, in pixels (4)", methods=(ANOMALYCLIP, "clip", "clip-ac", "coop")
    )
    precision: str = _setting("of the image encoder (fp32)", PRECISIONS, METHODS)

    def map_positions(self) -> list[int]:
        """Positions in features_list whose maps count in the loss and the anomaly map."""
        count = len(self.features_list)
        if self.feature_map_layer is None:
            return list(range(count))
        return [position for position in self.feature_map_layer if position < count]

    def to_dict(self) -> dict[str, Any]:
        """Those of the method, as plain types, for checkpoints and JSON."""
        values = {name: getattr(self, name) for name in setting_names(self.method)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


SETTING_NAMES = tuple(field.name for field in fields(Settings))
CHOICES = {field.name: field.metadata["choices"] for field in fields(Settings) if field.metadata["choices"]}


def setting_names(method: str) -> list[str]:
    """The settings that a method has."""
    return [field.name for field in fields(Settings) if method in field.metadata["methods"]]


def default_settings(backbone: "Backbone", method: str = ANOMALYCLIP) -> Settings:
    """The paper's settings, carried over to a backbone of another depth and patch size."""
    layers, patch = backbone.vision_layers, backbone.patch_size
    values: dict[str, Any] = {
        "method": method,
        "image_size": max(PAPER_IMAGE_SIZE // patch, 1) * patch,
        "features_list": (layers,),
        "feature_map_layer": None,
        "dpam": "vv",
        "dpam_layer": min(layers - layers // 4 + 2, layers + 1),
        "dpam_members": ("qq", "kk", "vv"),
        "prompts": OBJECT_AGNOSTIC,
        "abnormal_word": "damaged",
        "shared_context": False,
        "losses": LOSSES,
        "n_ctx": 12,
        "depth": min(9, backbone.text_layers),
        "t_n_ctx": 4,
        "templates": TEMPLATES.get(method, (0,))[0],
        "temperature": 0.07,
        "sigma": 4.0,
        "precision": "fp32",
    }
    own = _typed_values(check_types(backbone.defaults, f"the config of {backbone.name}"))
    if method != ANOMALYCLIP:
        own = {name: value for name, value in own.items() if name in ("image_size", "sigma")}
        own |= {"dpam": "none", "dpam_layer": 1, "depth": 1, "n_ctx": 16}
    if method == "winclip":
        own["image_size"] = backbone.pretraining_size
    if method == "vand":
        own |= {"temperature": 0.01, "sigma": 0.0}
        own["features_list"] = tuple(sorted({max(layers * quarter // 4, 1) for quarter in (1, 2, 3, 4)}))
    return Settings(**values | own)


def resolve_settings(
    typed: Mapping[str, Any], saved: Mapping[str, Any] | None, backbone: "Backbone", source: str = "the checkpoint"
) -> tuple[Settings, list[str]]:
    """Merge the three sources and check the result.

    Args:
        typed: values from the command line or the caller, the method among them; None means "not given".
        saved: values that a checkpoint carries (the sizes only, for a released one); None without a checkpoint.
        backbone: gives the defaults and the limits.
        source: how messages call the checkpoint.

    Returns:
        the settings and notices: one sentence per typed value that departs from the checkpoint's.

    Raises:
        InputError: a name is unknown or no setting of the method, a value is out of range, or contradicts the shapes
            of the checkpoint's prompts.
    """
    unknown = [name for name in typed if name not in SETTING_NAMES]
    if unknown:
        raise InputError(f"{unknown[0]} is no setting; choose from {', '.join(SETTING_NAMES)}.")
    given = _typed_values(typed)
    method = given.get("method", ANOMALYCLIP)
    if method not in METHODS:
        raise InputError(f"--method {method} is unknown; choose {', '.join(METHODS)}.")
    names = setting_names(method)
    foreign = [name for name in given if name not in names]
    if foreign:
        raise InputError(f"--{foreign[0]} is no setting of --method {method}, which has {', '.join(names)}; omit it.")
    kept = {name: value for name, value in _typed_values(saved or {}).items() if name in names}
    if "features_list" in given and "feature_map_layer" not in given:
        kept.pop("feature_map_layer", None)  # positions in a list that is no longer used
    notices = []
    for name, value in given.items():
        if name not in kept or kept[name] == value:
            continue
        if name in PROMPT_SIZES:
            raise InputError(
                f"--{name} {value} contradicts {source}, whose prompts were learned with {name} {kept[name]}; "
                f"omit --{name} or give another checkpoint."
            )
        notices.append(f"{name} {_text(value)} replaces {_text(kept[name])}, which {source} was trained with.")
    values = default_settings(backbone, method).__dict__ | kept | given
    if values["prompts"] == FIXED and "n_ctx" not in given:
        values["n_ctx"] = len(FIXED_CONTEXT)
    if "dpam_members" in given and values["dpam"] != "ensemble":
        raise InputError(f"--dpam_members does not go with --dpam {values['dpam']}; use --dpam ensemble.")
    settings = Settings(**values)
    _check(settings, backbone)
    return settings, notices


def check_types(values: Any, source: str) -> dict[str, Any]:
    """Settings that were read from a file, as they are, if their types are right.

    Raises:
        InputError: it is not a table, or a value of a setting has a wrong type; the sentence names `source`.
    """
    if not isinstance(values, dict):
        raise InputError(f"The settings in {source} are not a table; the file is damaged, use another.")
    for name, kind in get_type_hints(Settings).items():
        value = values.get(name)
        numbers = int | float if kind is float else kind
        if name in LISTS:
            fits = isinstance(value, list) and all(type(part) is LISTS[name] for part in value)
        else:
            fits = isinstance(value, numbers) and isinstance(value, bool) == (kind is bool)
        if value is not None and not fits:
            raise InputError(f"The setting {name} in {source} has the unusable value {value!r}; use another file.")
    return values


def _typed_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Known settings that are given (not None), lists as tuples."""
    known = {name: values[name] for name in SETTING_NAMES if values.get(name) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}


def _text(value: Any) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)


def _check(settings: Settings, backbone: "Backbone") -> None:
    layers, patch = backbone.vision_layers, backbone.patch_size
    name = "the demo backbone" if backbone.is_demo else f"backbone {backbone.name}"
    size = settings.image_size
    if size < patch or size % patch:
        near = max(round(size / patch), 1) * patch
        raise InputError(f"--image_size {size} is not a multiple of the patch size {patch} of {name}; use {near}.")
    if settings.method == "winclip" and size != backbone.pretraining_size:
        raise InputError(
            f"--image_size {size} cannot be used by --method winclip, whose windows are of patches at the size of "
            f"{name} itself, {backbone.pretraining_size}; omit it."
        )
    if not settings.features_list:
        raise InputError(f"--features_list is empty; give block numbers from 1 to {layers}.")
    for layer in settings.features_list:
        if not 1 <= layer <= layers:
            raise InputError(
                f"--features_list {layer} does not exist: {name} has the blocks 1 to {layers}, counted from 1."
            )
    if len(set(settings.features_list)) < len(settings.features_list):
        raise InputError(f"--features_list {_text(settings.features_list)} names a block twice; name each once.")
    if any(position < 0 for position in settings.feature_map_layer or ()):
        raise InputError("--feature_map_layer takes positions in --features_list, counted from 0; none is negative.")
    if not settings.map_positions():
        raise InputError(
            f"--feature_map_layer {_text(settings.feature_map_layer or ())} selects none of the "
            f"{len(settings.features_list)} entries of --features_list; positions count from 0."
        )
    for name, choices in CHOICES.items():
        value = getattr(settings, name)
        chosen = value if name in LISTS else (value,)
        unknown = [part for part in chosen if part not in choices]
        if unknown:
            raise InputError(f"--{name} {unknown[0]} is unknown; choose {', '.join(choices)}.")
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f"--{name} {_text(value)} has to name one or more of {', '.join(choices)}, each once.")
    if not settings.abnormal_word.strip():
        raise InputError("--abnormal_word is empty; give a word such as damaged.")
    if settings.prompts == FIXED and settings.n_ctx != len(FIXED_CONTEXT):
        raise InputError(
            f"--n_ctx {settings.n_ctx} does not go with --prompts fixed, '{' '.join(FIXED_CONTEXT)}'; omit it."
        )
    if not 1 <= settings.dpam_layer <= layers + 1:
        raise InputError(f"--dpam_layer {settings.dpam_layer} is out of range: {name} takes 1 (none) to {layers + 1}.")
    if settings.n_ctx < 1 or settings.n_ctx > 72:
        raise InputError(f"--n_ctx {settings.n_ctx} is out of range; CLIP's 77 tokens leave room for 1 to 72.")
    if not 1 <= settings.depth <= backbone.text_layers:
        raise InputError(f"--depth {settings.depth} is out of range: {name} takes 1 to {backbone.text_layers}.")
    if settings.depth > 1 and not 1 <= settings.t_n_ctx <= settings.n_ctx + 2:
        # position n_ctx + 3 is the normal prompt's end-of-text token, where its feature is read
        raise InputError(
            f"--t_n_ctx {settings.t_n_ctx} is out of range: prompts of --n_ctx {settings.n_ctx} take "
            f"1 to {settings.n_ctx + 2} deep tokens."
        )
    if settings.templates not in TEMPLATES.get(settings.method, (0,)):
        choices = " or ".join(map(str, TEMPLATES[settings.method]))
        raise InputError(f"--templates {settings.templates} is no set of {settings.method}; choose {choices}.")
    if not 0 < settings.temperature < float("inf"):
        raise InputError(f"--temperature {settings.temperature} is out of range; give a number above 0, such as 0.07.")
    if not 0 <= settings.sigma <= size:
        raise InputError(f"--sigma {settings.sigma} is no width of a Gaussian filter; give 0 to {size} pixels.")

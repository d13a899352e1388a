"""From names and files to a model that is ready to score: the one place where the pieces are put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from AnomalyCLIP_lib.backbone import (
    DEMO_BACKBONE,
    DEMO_FOLDER,
    PAPER_BACKBONE,
    Backbone,
    backbone_from_description,
    find_backbone,
)
from AnomalyCLIP_lib.checkpoint import Checkpoint, check_width, fill_prompt_learner, find_prompts, read_checkpoint
from AnomalyCLIP_lib.device import prepare_precision, resolve_device
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.model import AnomalyCLIP, Provenance
from AnomalyCLIP_lib.prompts import HandwrittenPrompts, PromptLearner
from AnomalyCLIP_lib.settings import resolve_settings
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import fingerprint, load_clip, text_tower, weight_file

HANDWRITTEN = "handwritten"


def load(
    backbone: str | None = None,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    image_size: int | None = None,
    features_list: list[int] | tuple[int, ...] | None = None,
    device: str = "auto",
    precision: str | None = None,
    *,
    cache_dir: str | None = None,
    tested_dataset: str | None = None,
    compile: bool = False,
    feature_map_layer: list[int] | tuple[int, ...] | None = None,
    dpam: str | None = None,
    dpam_layer: int | None = None,
    n_ctx: int | None = None,
    depth: int | None = None,
    t_n_ctx: int | None = None,
    sigma: float | None = None,
) -> AnomalyCLIP:
    """Load CLIP, the prompts and the settings.

    Every argument left at None is taken from the checkpoint, else from the backbone.

    Args:
        backbone: the paper's name ("ViT-L/14@336px", the default), an open_clip name, the path of an open_clip
            model-config JSON, or "demo": the small CLIP that comes with this repository.
        pretrained: an open_clip tag (default "openai") or a local weight file: OpenAI's TorchScript .pt, a state
            dict .pt/.pth, or .safetensors.
        checkpoint: a prompt checkpoint (the authors' or ours) or "handwritten"; None: the demo's own prompts for
            the demo backbone, else prompts found in checkpoints/, else none.
        image_size: S in pixels, a multiple of the patch size.
        features_list: 1-based block numbers that give patch features.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: "fp32" (default), "tf32", "bf16" or "fp16".
        cache_dir: where downloaded weights are kept.
        tested_dataset: `--dataset` name of what will be tested; decides which prompts in checkpoints/ are used.
        feature_map_layer, dpam, dpam_layer, n_ctx, depth, t_n_ctx, sigma: see `settings.Settings`.
        compile: run the image encoder through torch.compile: its first batch takes a minute or more.

    Raises:
        InputError: anything given does not exist or does not fit.
    """
    typed = {
        "image_size": image_size,
        "features_list": features_list,
        "feature_map_layer": feature_map_layer,
        "dpam": dpam,
        "dpam_layer": dpam_layer,
        "n_ctx": n_ctx,
        "depth": depth,
        "t_n_ctx": t_n_ctx,
        "sigma": sigma,
        "precision": precision,
    }
    architecture, saved = _find_parts(backbone, checkpoint, tested_dataset)
    handwritten = checkpoint == HANDWRITTEN
    model = _build(architecture, pretrained, saved, handwritten, False, typed, device, cache_dir)
    return _compiled(model) if compile else model


def load_for_training(
    backbone: str | None,
    pretrained: str | None,
    init_from: str | Path | None,
    typed: Mapping[str, Any],
    device: str = "auto",
    cache_dir: str | None = None,
    compile: bool = False,
) -> AnomalyCLIP:
    """As `load`, with freshly drawn prompts, or those of the checkpoint `init_from` as a start.

    Args:
        typed: values of `settings.Settings` that the user gave; None means "not given".
    """
    saved = read_checkpoint(init_from) if init_from is not None else None
    architecture = _architecture(backbone, saved)
    model = _build(architecture, pretrained, saved, False, True, typed, device, cache_dir)
    return _compiled(model) if compile else model


def weights_at_hand(backbone: Backbone, pretrained: str | None = None, cache_dir: str | None = None) -> bool:
    """Whether the weights of this backbone load without a network."""
    try:
        return weight_file(backbone, pretrained, cache_dir, download=False).is_file()
    except InputError:
        return False


def backbone_at_hand(
    backbone: str | None, pretrained: str | None, checkpoint: str | Path | None, cache_dir: str | None = None
) -> tuple[str | None, str]:
    """Which backbone to `load`, and why, for a sentence to the user.

    Where nothing was chosen (all None): the paper's (None) if its weights and prompts are on this machine, else the
    demo, so that a first try works without a download.
    """
    if backbone or pretrained or checkpoint:
        return backbone, "as the flags say"
    paper = find_backbone(PAPER_BACKBONE)
    lacking = []
    if not weights_at_hand(paper, cache_dir=cache_dir):
        lacking.append("weights")
    if find_prompts(paper) is None:
        lacking.append("prompts")
    if lacking:
        return DEMO_BACKBONE, f"the {' and '.join(lacking)} of {PAPER_BACKBONE} are not on this machine"
    return None, f"the weights and prompts of {PAPER_BACKBONE} are on this machine"


def _compiled(model: AnomalyCLIP) -> AnomalyCLIP:
    """Have torch.compile translate the image encoder at its first batch."""
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=model.device))  # a missing compiler shows here, in seconds
    except Exception as error:  # every backend has error types of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"--compile does not work on this machine ({reason}); omit it.") from error
    model.visual_encoder.compile()
    return model


def _find_parts(
    backbone: str | None, checkpoint: str | Path | None, tested_dataset: str | None
) -> tuple[Backbone, Checkpoint | None]:
    if checkpoint == HANDWRITTEN:
        return find_backbone(backbone or PAPER_BACKBONE), None
    if checkpoint is not None:
        saved = read_checkpoint(checkpoint)
        return _architecture(backbone, saved), saved
    architecture = find_backbone(backbone or PAPER_BACKBONE)
    path = DEMO_FOLDER / "prompts.pth" if architecture.is_demo else find_prompts(architecture, tested_dataset)
    return architecture, read_checkpoint(path) if path is not None else None


def _architecture(backbone: str | None, saved: Checkpoint | None) -> Backbone:
    if saved is None:
        return find_backbone(backbone or PAPER_BACKBONE)
    recorded = saved.settings.get("backbone")
    if recorded is None:  # a released file says nothing about itself
        architecture = find_backbone(backbone or PAPER_BACKBONE)
        check_width(saved, architecture)
        return architecture
    architecture = backbone_from_description(recorded, saved.path)
    if backbone is not None and find_backbone(backbone).config != architecture.config:
        raise InputError(
            f"--backbone {backbone} contradicts {saved.path}, whose prompts were learned on {architecture.name}; "
            "omit --backbone or give another checkpoint."
        )
    return architecture


def _build(
    architecture: Backbone,
    pretrained: str | None,
    saved: Checkpoint | None,
    handwritten: bool,
    training: bool,
    typed: Mapping[str, Any],
    device: str,
    cache_dir: str | None,
) -> AnomalyCLIP:
    place = resolve_device(device)
    source = saved.shown_path if saved is not None else "the checkpoint"
    settings, notices = resolve_settings(typed, saved.settings if saved is not None else None, architecture, source)
    prepare_precision(settings.precision, place)
    if saved is not None and pretrained is None:
        pretrained = saved.settings.get("pretrained")
    clip = load_clip(architecture, pretrained, cache_dir)
    weights = fingerprint(clip)
    if saved is not None and saved.settings.get("fingerprint", weights) != weights:
        raise InputError(
            f"The prompts in {saved.path} were learned on other weights of {architecture.name} than these; give the "
            "weights that they were learned on by --pretrained."
        )
    token_embedding = text_tower(clip).token_embedding
    prompts = None
    if handwritten:
        prompts = HandwrittenPrompts(token_embedding, tokenize)
    elif saved is not None or training:
        prompts = PromptLearner(token_embedding, tokenize, settings.n_ctx, settings.depth, settings.t_n_ctx)
        if saved is not None:
            fill_prompt_learner(prompts, saved, token_embedding, architecture)
        prompts.requires_grad_(training)  # frozen, their text features are computed once
    tag = None if pretrained is not None and Path(pretrained).is_file() else pretrained
    provenance = Provenance(weights, tag, saved, tuple(notices))
    return AnomalyCLIP(clip, architecture, settings, prompts, provenance).to(place).eval()

"""What every method is built of: the frozen CLIP, the settings, and where both come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from AnomalyCLIP_lib.backbone import PAPER_BACKBONE, Backbone, backbone_from_dict, find_backbone
from AnomalyCLIP_lib.checkpoint import Checkpoint
from AnomalyCLIP_lib.detector import Provenance
from AnomalyCLIP_lib.device import prepare_precision, resolve_device
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.settings import Settings, resolve_settings
from AnomalyCLIP_lib.weights import Clip, fingerprint, load_clip


class Parts(NamedTuple):
    """The first arguments of a method, in their order."""

    clip: Clip
    backbone: Backbone
    settings: Settings
    provenance: Provenance


def find_architecture(backbone: str | None, saved: Checkpoint | None, default: str = PAPER_BACKBONE) -> Backbone:
    """The backbone that was asked for or that the checkpoint records, else the default one.

    Raises:
        InputError: it is unknown, or not the one that the checkpoint was learned on.
    """
    recorded = saved.settings.get("backbone") if saved is not None else None
    if saved is None or recorded is None:  # a released file says nothing about itself
        return find_backbone(backbone or default)
    architecture = backbone_from_dict(recorded, saved.path)
    if backbone is not None and find_backbone(backbone).config != architecture.config:
        raise InputError(
            f"--backbone {backbone} contradicts {saved.path}, which was learned on {architecture.name}; omit "
            "--backbone or give another checkpoint."
        )
    return architecture


def load_parts(
    architecture: Backbone,
    pretrained: str | None,
    saved: Checkpoint | None,
    typed: Mapping[str, Any],
    device: str,
    cache_dir: str | None,
    *,
    any_activation: bool = False,
) -> Parts:
    """Settle the settings, then load the weights, on the CPU.

    Args:
        pretrained, cache_dir, any_activation: see `weights.load_clip`.
        saved: what was learned on this backbone.
        typed: see `settings.resolve_settings`.
        device: where the method will compute.

    Raises:
        InputError: anything does not exist or does not fit; the checkpoint was learned on other weights.
    """
    source = saved.shown_path if saved is not None else "the checkpoint"
    settings, notices = resolve_settings(typed, saved.settings if saved is not None else None, architecture, source)
    prepare_precision(settings.precision, resolve_device(device))
    if saved is not None and pretrained is None:
        pretrained = saved.settings.get("pretrained")
    clip = load_clip(architecture, pretrained, cache_dir, any_activation=any_activation)
    weights = fingerprint(clip)
    if saved is not None and saved.settings.get("fingerprint", weights) != weights:
        raise InputError(
            f"{saved.path} was learned on other weights of {architecture.name} than these; give the weights that it "
            "was learned on by --pretrained."
        )
    tag = None if pretrained is not None and Path(pretrained).is_file() else pretrained
    stopped = saved.notices if saved is not None else []
    return Parts(clip, architecture, settings, Provenance(weights, tag, saved, (*notices, *stopped), bool(notices)))

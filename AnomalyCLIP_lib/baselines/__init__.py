"""The methods beside which the paper puts AnomalyCLIP: CLIP, CLIP-AC, CoOp, WinCLIP and VAND.

Nothing heavy is imported before a method is loaded.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from AnomalyCLIP_lib.errors import InputError

if TYPE_CHECKING:
    from AnomalyCLIP_lib.checkpoint import Checkpoint
    from AnomalyCLIP_lib.clip_detector import ClipDetector

_HOME = {
    "clip": ("clip", "PlainCLIP"),
    "clip-ac": ("clip", "PlainCLIP"),
    "coop": ("coop", "CoOp"),
    "winclip": ("winclip", "WinCLIP"),
    "vand": ("vand", "VAND"),
}


def load_baseline(
    method: str,
    backbone: str | None = None,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    cache_dir: str | None = None,
    compile: bool = False,
    training: bool = False,
    **settings: Any,
) -> "ClipDetector":
    """Load a method with its own backbone and settings by default.

    Args:
        method: "clip", "clip-ac", "coop", "winclip" or "vand".
        backbone, pretrained, device, cache_dir, compile: as of `loading.load`. Of an open_clip name, VAND takes the
            config with GELU, whichever activation the weights were trained with.
        checkpoint: what CoOp or VAND has learned, in a file of ours or one of VAND's released ones.
        training: without a checkpoint, start from drawn values, and let them learn.
        settings: any field of `settings.Settings` that the method has.

    Raises:
        InputError: anything given does not exist or does not fit.
    """
    from AnomalyCLIP_lib.backbone import OPENAI_NAMES
    from AnomalyCLIP_lib.checkpoint import ENTRIES, read_checkpoint
    from AnomalyCLIP_lib.device import resolve_device
    from AnomalyCLIP_lib.parts import find_architecture, load_parts

    if method not in _HOME:
        raise InputError(f"--method {method} is unknown; choose anomalyclip, {', '.join(_HOME)}.")
    if checkpoint is not None and method not in ENTRIES:
        raise InputError(f"--checkpoint_path {checkpoint} cannot be used by --method {method}, which learns nothing.")
    if checkpoint is None and method in ENTRIES and not training:
        raise InputError(f"--method {method} has to learn before it scores; give its file by --checkpoint_path.")
    module, name = _HOME[method]
    kind: type[ClipDetector] = getattr(import_module(f"AnomalyCLIP_lib.baselines.{module}"), name)
    saved = read_checkpoint(checkpoint, method) if checkpoint is not None else None
    if kind.gelu and backbone is not None:
        backbone = OPENAI_NAMES.get(backbone, backbone).removesuffix("-quickgelu")
    architecture = find_architecture(backbone, saved, kind.default_backbone)
    typed = settings | {"method": method}
    parts = load_parts(architecture, pretrained, saved, typed, device, cache_dir, any_activation=kind.gelu)
    model = kind(*parts).requires_grad_(False)
    if model.learned is not None:
        if saved is not None:
            _fill(model, saved)
        model.learned.requires_grad_(training)
    model = model.to(resolve_device(device)).eval()
    if compile:
        model.compile_encoder()
    return model


def _fill(model: "ClipDetector", saved: "Checkpoint") -> None:
    """Copy the checkpoint's tensors, which have to be those that the method has with its settings."""
    assert model.learned is not None
    wanted = {key: tuple(value.shape) for key, value in model.learned.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in saved.tensors.items()}
    for key in sorted(wanted | found):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{saved.path} does not fit --method {model.name} on backbone {model.backbone.name}: {key} has the "
                f"shape {found.get(key)} in the file and {wanted.get(key)} here; give another checkpoint, or the "
                "--backbone and --features_list that it was learned on."
            )
    model.learned.load_state_dict(saved.tensors)

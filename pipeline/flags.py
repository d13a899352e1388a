"""The flags that commands share, and what follows from them: a model and its thresholds.

Nothing heavy is imported before the flags are parsed.
"""

import argparse
import os
from typing import TYPE_CHECKING, Any

from utils import mask_threshold, non_negative, rate, seed, threshold

if TYPE_CHECKING:
    from AnomalyCLIP_lib.decisions import Choice, Thresholds
    from AnomalyCLIP_lib.model import AnomalyCLIP
    from pipeline.distributed import Ranks

MOST_DEFAULT_WORKERS = 4
MODEL_SETTINGS = (
    "image_size",
    "features_list",
    "feature_map_layer",
    "dpam",
    "dpam_layer",
    "n_ctx",
    "depth",
    "t_n_ctx",
    "precision",
)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that train.py and test.py share. Those of the model default to None, which means "not given"."""
    model = parser.add_argument_group("model", "left out: what the checkpoint says, else what the backbone implies")
    model.add_argument("--backbone", help="ViT-L/14@336px (default), an open_clip name, a model-config JSON, or demo")
    model.add_argument("--pretrained", help="open_clip tag (default: openai) or a local weight file")
    model.add_argument("--cache_dir", help="where downloaded weights are kept")
    model.add_argument("--image_size", type=int, help="S; images are resized to S x S (518)")
    model.add_argument("--features_list", type=int, nargs="+", help="blocks that give patch features, from 1 (24)")
    model.add_argument(
        "--feature_map_layer", type=int, nargs="+", help="positions in --features_list whose maps count, from 0 (all)"
    )
    model.add_argument("--dpam", choices=("vv", "qq", "kk", "none"), help="attention of the local path (vv)")
    model.add_argument("--dpam_layer", type=int, help="n: the last n - 1 blocks have a local path (20)")
    model.add_argument("--n_ctx", type=int, help="learnable words per prompt (12)")
    model.add_argument("--depth", type=int, help="text blocks 2..depth receive deep tokens (9)")
    model.add_argument("--t_n_ctx", type=int, help="deep tokens per block (4)")
    model.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp16"), help="of the image encoder (fp32)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    machine.add_argument(
        "--workers",
        type=non_negative,
        default=min(MOST_DEFAULT_WORKERS, os.cpu_count() or 1),
        help="processes that read images (default: one a core, at most 4; here %(default)s)",
    )
    machine.add_argument(
        "--compile", action="store_true", help="translate the image encoder by torch.compile: slow start, then faster"
    )
    parser.add_argument("--seed", type=seed, default=111, help="default: %(default)s")
    parser.add_argument(
        "--mask_threshold",
        type=mask_threshold,
        default="auto",
        help="a mask's grey value above N is anomalous; auto: 127 for JPEG masks, else 0 (default: %(default)s)",
    )


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of whatever scores images: prompts, thresholds, model."""
    parser.add_argument("--checkpoint_path", help="prompts to use, or 'handwritten' (default: those in checkpoints/)")
    add_threshold_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--sigma", type=float, help="of the maps' Gaussian filter, in pixels (4)")


def add_threshold_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of everything that decides whether an image is anomalous."""
    group = parser.add_argument_group("decision", "left out: what the checkpoint stores, else 0.5")
    what = "a number from 0 to 1, or 'checkpoint'"
    group.add_argument("--threshold", type=threshold, help=f"image score from which an image is anomalous: {what}")
    group.add_argument(
        "--pixel_threshold",
        type=threshold,
        help=f"map value (over its number of layers) from which a pixel is anomalous: {what}",
    )
    group.add_argument(
        "--calibrate", metavar="FOLDER", help="take the thresholds left out above from the normal images in this folder"
    )
    group.add_argument(
        "--false_alarm_rate",
        type=rate,
        help="share of normal images that --calibrate lets be called anomalous, above 0 and below 1 (0.01)",
    )


def typed_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model settings among the flags; None where a flag was left out."""
    return {name: getattr(arguments, name) for name in MODEL_SETTINGS}


def load_model(
    arguments: argparse.Namespace, backbone: str | None, device: str, label: str | None = None
) -> "AnomalyCLIP":
    """The model of the flags.

    Args:
        backbone: as `load` takes it.
        label: of the dataset that is tested; decides which prompts in checkpoints/ are used.

    Raises:
        InputError: see `load`.
    """
    from AnomalyCLIP_lib.loading import load
    from generic_dataset_json.names import plain_name

    return load(
        backbone,
        arguments.pretrained,
        arguments.checkpoint_path,
        device=device,
        cache_dir=arguments.cache_dir,
        tested_dataset=plain_name(label),
        sigma=arguments.sigma,
        compile=arguments.compile,
        **typed_settings(arguments),
    )


def find_thresholds(
    model: "AnomalyCLIP", arguments: argparse.Namespace, batch_size: int, ranks: "Ranks"
) -> tuple["Thresholds", list[str]]:
    """The thresholds of the flags, and sentences for the user; see `calibration.run_thresholds`."""
    from pipeline.inference.calibration import run_thresholds

    return run_thresholds(model, *threshold_choice(arguments), batch_size, ranks)


def threshold_choice(arguments: argparse.Namespace) -> tuple["Choice", "Choice", str | None, float | None]:
    """The flags of `flags.add_threshold_flags`, as `calibration.check_flags` takes them."""
    return arguments.threshold, arguments.pixel_threshold, arguments.calibrate, arguments.false_alarm_rate

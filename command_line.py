"""What the commands of this repository share: how they end when the input is bad, and the flags of the model."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.thresholds import CHECKPOINT

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


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Call `main(None)` and turn bad input into one sentence on standard error and exit code 2.

    `main` takes the argument list (None: sys.argv) and returns the exit code. Code in other places
    calls `main(argv)` itself and sees `InputError`.
    """
    try:
        return main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        _drop_output()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print("error: the disk that this writes to is full; make room.", file=sys.stderr)
        return 2


def _drop_output() -> None:
    """What is still waiting for standard output cannot be written; Python would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def non_negative(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return value


def seed(text: str) -> int:
    """An argparse type: a seed that torch takes."""
    value = non_negative(text)
    if value >= 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number below 2 to the 64th")
    return value


def threshold(text: str) -> float | Literal["checkpoint"]:
    """An argparse type: "checkpoint" or a number from 0 to 1."""
    if text == CHECKPOINT:
        return "checkpoint"
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is neither {CHECKPOINT} nor a number from 0 to 1")
    return value


def rate(text: str) -> float:
    """An argparse type: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0 and below 1")
    return value


def mask_threshold(text: str) -> Literal["auto"] | int:
    """An argparse type: "auto" or a grey value; masks of 16 bits have values above 255."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither auto nor a grey value of at least 0")
    return int(text)

"""The flags that commands share, and what follows from them: a model and its thresholds.

Nothing heavy is imported before the flags are parsed.
"""

import argparse
import glob
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.settings import LISTS, SETTING_NAMES, Settings
from generic_dataset_json.meta_json import FILE_NAME, read_index
from utils import mask_threshold, non_negative, rate, seed, threshold

if TYPE_CHECKING:
    from AnomalyCLIP_lib.decisions import Thresholds
    from AnomalyCLIP_lib.detector import Detector
    from pipeline.distributed import Ranks
    from pipeline.reporting.pictures import PictureOptions

MOST_DEFAULT_WORKERS = 4
LEVELS = ("image-level", "pixel-level", "image-pixel-level")
NO_PICTURES = "none"
CACHE_FOLDER = "feature_cache"
STANDARD_INPUT = "-"
HANDWRITTEN = "handwritten"


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that train.py and test.py share. Those of the model default to None, which means "not given"."""
    model = parser.add_argument_group("model", "left out: what the checkpoint says, else what the backbone implies")
    model.add_argument("--backbone", help="ViT-L/14@336px (default), an open_clip name, a model-config JSON, or demo")
    model.add_argument("--pretrained", help="open_clip tag (default: openai) or a local weight file")
    model.add_argument("--cache_dir", help="where downloaded weights are kept")
    types = get_type_hints(Settings)
    for setting in fields(Settings):
        flag, description = f"--{setting.name}", setting.metadata["help"]
        if types[setting.name] is bool:
            model.add_argument(flag, action=argparse.BooleanOptionalAction, help=description)
            continue
        model.add_argument(
            flag,
            type=LISTS.get(setting.name, types[setting.name]),
            nargs="+" if setting.name in LISTS else None,
            choices=setting.metadata["choices"],
            help=description,
        )
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


def check_threshold_flags(arguments: argparse.Namespace) -> None:
    """Check --threshold, --pixel_threshold, --calibrate and --false_alarm_rate before anything is loaded.

    Raises:
        InputError: they contradict each other, or the folder is none.
    """
    folder = arguments.calibrate
    if folder is None:
        if arguments.false_alarm_rate is not None:
            raise InputError(
                "--false_alarm_rate says nothing without --calibrate; name a folder of normal images there, or omit it."
            )
        return
    if arguments.threshold is not None and arguments.pixel_threshold is not None:
        raise InputError(
            "--calibrate contradicts --threshold together with --pixel_threshold, which leave nothing to calibrate; "
            "omit one of the three."
        )
    if not Path(folder).is_dir():
        raise InputError(f"--calibrate {folder} is not a folder; name one that holds normal images.")


def refuse_to_write_there(folder: str | None, save_path: str) -> None:
    """Raise InputError where a run's pictures would replace images of --calibrate, or be taken for some later."""
    if folder is None:
        return
    normal, own = (os.path.join(os.path.realpath(path), "") for path in (folder, save_path))
    if own.startswith(normal) or normal.startswith(own):
        raise InputError(
            f"--save_path {save_path} and --calibrate {folder} lie in one another, so pictures of this run would get "
            "among the normal images; choose another --save_path."
        )


def check_inputs(dataset: str | None, images: Sequence[str] = (), checkpoint: str | None = None) -> None:
    """Report inputs that are not there before anything is loaded.

    Args:
        dataset: a folder with meta.json, or the file itself.
        images: of --image. A missing one among several is reported when its turn comes.
        checkpoint: a file, or "handwritten".

    Raises:
        InputError: one of them does not exist.
    """
    if dataset is not None and not any((Path(dataset) / name).is_file() for name in ("", FILE_NAME)):
        read_index(dataset)
    only = images[0] if len(images) == 1 else STANDARD_INPUT
    if only not in ("", STANDARD_INPUT) and glob.escape(only) == only and not os.path.lexists(only):
        raise InputError(f"{only} does not exist; check the path.")
    if checkpoint not in (None, HANDWRITTEN) and not os.path.lexists(checkpoint):
        raise InputError(f"The checkpoint {checkpoint} does not exist; check the path.")


def typed_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model settings among the flags; None where a flag was left out."""
    return {name: getattr(arguments, name) for name in SETTING_NAMES}


def load_model(
    arguments: argparse.Namespace, backbone: str | None, device: str, label: str | None = None
) -> "Detector":
    """The model of the flags.

    Args:
        backbone: as `load` takes it.
        label: of the dataset that is tested; decides which prompts in checkpoints/ are used.

    Raises:
        InputError: see `load`.
    """
    from AnomalyCLIP_lib.loading import load
    from generic_dataset_json.names import canonical_name

    return load(
        backbone,
        arguments.pretrained,
        arguments.checkpoint_path,
        device=device,
        cache_dir=arguments.cache_dir,
        tested_dataset=canonical_name(label),
        compile=arguments.compile,
        **typed_settings(arguments),
    )


def picture_options(arguments: argparse.Namespace, default: str) -> "PictureOptions":
    """What the flags of test.py ask to be drawn; `default` is the kind of pictures where they say none."""
    from pipeline.reporting.pictures import PictureOptions

    return PictureOptions(
        arguments.visualize or default,
        arguments.visualize_all,
        arguments.save_maps,
        arguments.picture_format,
        arguments.max_picture_side,
    )


def find_thresholds(
    detector: "Detector", arguments: argparse.Namespace, batch_size: int, ranks: "Ranks"
) -> tuple["Thresholds", list[str]]:
    """The thresholds of the flags, and sentences for the user; see `calibration.run_thresholds`."""
    from pipeline.inference.calibration import run_thresholds

    return run_thresholds(
        detector,
        arguments.threshold,
        arguments.pixel_threshold,
        arguments.calibrate,
        arguments.false_alarm_rate,
        batch_size,
        arguments.workers,
        ranks,
    )

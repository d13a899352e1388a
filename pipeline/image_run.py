"""A run on single images, from the flags of test.py to its files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.loading import backbone_at_hand
from pipeline.distributed import Ranks
from pipeline.flags import NO_PICTURES, STANDARD_INPUT, find_thresholds, load_model
from pipeline.inference.image_paths import ImageFile, find_image_files
from pipeline.inference.single_images import ImageOptions, run_settings, score_image_files
from pipeline.reporting.predictions import PredictionRow
from pipeline.reporting.predictions_file import EarlierRun, read_earlier_run
from pipeline.reporting.report.gallery import Gallery
from pipeline.reporting.run_folder import PREDICTIONS, REPORT, refuse_foreign

NAMED_ERRORS = 10


def run_on_images(arguments: argparse.Namespace, ranks: Ranks, command: str = "") -> int:
    """Score the images that `--image` names and write what the flags ask for.

    Args:
        arguments: of test.py.
        command: the command line, for the report.

    Returns:
        the exit code: 1 where an image among several was bad, else 0.

    Raises:
        InputError: the flags or the checkpoint do not fit, there is nothing to score, or the only image is bad.
    """

    def notify(*lines: str) -> None:
        if ranks.is_main and lines:
            print(*lines, sep="\n", file=sys.stderr)

    files, earlier = ranks.broadcast(_files_and_earlier_run(arguments) if ranks.is_main else ([], EarlierRun()))
    if arguments.go_on:
        left = len(earlier.left(files))
        nothing = "; nothing is left to do" if not left else ""
        notify(f"--continue: {len(files) - left} of {len(files)} images were done before{nothing}")
    backbone, reason = backbone_at_hand(
        arguments.backbone, arguments.pretrained, arguments.checkpoint_path, arguments.cache_dir
    )
    model = load_model(arguments, backbone, ranks.device, arguments.dataset)
    notify(f"model: {model.describe()} ({reason})", *model.provenance.notices)
    save_path = output_folder(arguments.save_path, "--save_path")
    thresholds, notices = find_thresholds(model, arguments, arguments.batch_size, ranks)
    notify(*notices, thresholds.describe())
    options = ImageOptions(
        thresholds, arguments.batch_size, arguments.workers, arguments.visualize or "overlay", arguments.save_maps
    )
    # A report shows whole runs: earlier maps are gone, and an image alone needs no gallery.
    gallery = Gallery({"": len(files)}) if _wants_report(arguments, files) else None
    observers = [gallery] if gallery is not None else []
    exit_code, rows = score_image_files(model, files, save_path, options, ranks, earlier, observers)
    if not ranks.is_main:
        return exit_code
    if gallery is not None:
        from pipeline.reporting.report.page import Report, write_report  # brings the charts and all metrics

        report = Report(
            title=", ".join("images" if path == STANDARD_INPUT else path for path in arguments.image),
            model=model.describe(),
            thresholds=thresholds,
            predictions=rows,
            gallery=gallery,
            settings=run_settings(model, thresholds),
            command=command,
            notices=[*model.provenance.notices, *notices, *_unreadable(rows)],
        )
        write_report(report, save_path)
    written = [*([REPORT] if gallery is not None else []), *(["heat maps"] if options.visualize != NO_PICTURES else [])]
    notify(f"{', '.join([PREDICTIONS, *written])}: in {save_path}")
    return exit_code


def _unreadable(rows: Sequence[PredictionRow]) -> list[str]:
    """What the report says of images that could not be read."""
    errors = [row.error for row in rows if row.error]
    more = len(errors) - NAMED_ERRORS
    return errors[:NAMED_ERRORS] + ([f"{more} more images could not be read."] if more > 0 else [])


def _wants_report(arguments: argparse.Namespace, files: Sequence[ImageFile]) -> bool:
    return not arguments.no_report and not arguments.go_on and len(files) > 1


def _files_and_earlier_run(arguments: argparse.Namespace) -> tuple[list[ImageFile], EarlierRun]:
    files = find_image_files(arguments.image, not arguments.no_recursive, arguments.save_path)
    if not arguments.go_on:
        refuse_foreign(Path(arguments.save_path))
    earlier = read_earlier_run(Path(arguments.save_path)) if arguments.go_on else EarlierRun()
    if len(files) == 1:
        for file in earlier.left(files):
            read_image(file.path)  # the only one is bad: say so before a model is loaded or anything is written
    return files, earlier

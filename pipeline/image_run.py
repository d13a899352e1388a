"""A run on single images, from the flags of test.py to its files."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.loading import backbone_at_hand
from pipeline.distributed import Ranks
from pipeline.flags import NO_PICTURES, STANDARD_INPUT, find_thresholds, load_model, picture_options
from pipeline.inference.image_paths import ImageFile, find_image_files
from pipeline.inference.single_images import ImageOptions, run_settings, score_image_files
from pipeline.output_folder import PREDICTIONS, REPORT, SETTINGS, STATE, OutputFolder
from pipeline.reporting.predictions import PredictionRow
from pipeline.reporting.report.gallery import MOST_CARDS, Gallery
from pipeline.run_record import RunRecord

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

    files = ranks.broadcast(_files(arguments) if ranks.is_main else [])
    backbone, reason = backbone_at_hand(
        arguments.backbone, arguments.pretrained, arguments.checkpoint_path, arguments.cache_dir
    )
    detector = load_model(arguments, backbone, ranks.device, arguments.dataset)
    notify(f"model: {detector.describe()} ({reason})", *detector.provenance.notices)
    folder = OutputFolder(arguments.save_path)
    with folder.held() if ranks.is_main else nullcontext():
        folder.check([PREDICTIONS, SETTINGS, REPORT])
        thresholds, notices = find_thresholds(detector, arguments, arguments.batch_size, ranks)
        notify(*notices, thresholds.describe())
        pictures = picture_options(arguments, "overlay")
        options = ImageOptions(thresholds, pictures, arguments.batch_size, arguments.workers)
        settings = run_settings(detector, thresholds)
        record = RunRecord(folder, settings, ranks, arguments.go_on)
        wanted = not arguments.no_report and (len(files) > 1 or arguments.go_on)  # an image alone needs no gallery
        gallery = Gallery({"": MOST_CARDS if arguments.go_on else len(files)}) if wanted else None
        observers = {"gallery": gallery} if gallery is not None else {}
        exit_code = score_image_files(detector, files, record, options, observers, ranks)
        if not ranks.is_main:
            return exit_code
        if gallery is not None:
            from pipeline.reporting.report.page import Report, render  # brings the charts and all metrics

            report = Report(
                title=", ".join("images" if path == STANDARD_INPUT else path for path in arguments.image),
                model=detector.describe(),
                thresholds=thresholds,
                predictions=record.rows,
                gallery=gallery,
                settings=settings,
                command=command,
                notices=[*detector.provenance.notices, *notices, *_unreadable(record.rows)],
            )
            folder.write_text(REPORT, render(report))
        drawn = ["heat maps"] if options.pictures.visualize != NO_PICTURES else []
        written = [PREDICTIONS, *([REPORT] if gallery is not None else []), *drawn]
        notify(f"{', '.join(written)}: in {folder.path}")
        return exit_code


def _unreadable(rows: Sequence[PredictionRow]) -> list[str]:
    """What the report says of images that could not be read."""
    errors = [row.error for row in rows if row.error]
    more = len(errors) - NAMED_ERRORS
    return errors[:NAMED_ERRORS] + ([f"{more} more images could not be read."] if more > 0 else [])


def _files(arguments: argparse.Namespace) -> list[ImageFile]:
    files = find_image_files(arguments.image, not arguments.no_recursive, arguments.save_path)
    if len(files) == 1 and not (arguments.go_on and (Path(arguments.save_path) / STATE).is_dir()):
        read_image(files[0].path)  # the only one is bad: say so before a model is loaded or anything is written
    return files

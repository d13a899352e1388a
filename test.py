"""Find anomalies: on a dataset, with the metrics of the paper, or on single images.

python test.py --data_path /data/visa --dataset visa
python test.py --image part.png another_folder/ 'photos/**/*.png'
find photos -name '*.png' | python test.py --image - --save_path results/photos --continue
torchrun --nproc_per_node=4 test.py ...     # four processes share the images
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.backbone import OPENAI_NAMES, PAPER_BACKBONE, REPOSITORY
from AnomalyCLIP_lib.distributed import Ranks, process_group
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.loading import backbone_at_hand, load
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.thresholds import Choice
from calibration import check_flags, refuse_to_write_there, run_thresholds
from command_line import add_model_flags, add_threshold_flags, positive, run, typed_settings
from dataset import (
    DatasetIndex,
    check_images,
    check_masks,
    mask_thresholds,
    read_index,
    summary,
    thresholds_text,
)
from evaluation import LEVELS, Evaluation, Observer, evaluate
from generic_dataset_json.names import find_dataset
from picture_files import Picture, find_pictures
from reporting.dataset_pictures import INDEX, DatasetPictures
from reporting.metrics_files import write_results
from reporting.pictures import KINDS
from reporting.predictions_file import EarlierRun, read_earlier_run
from reporting.report.gallery import Gallery
from reporting.report.page import FILE_NAME as REPORT
from reporting.report.page import Metrics, Report, write_report
from single_images import score_pictures
from streaming_metrics import METRICS
from utils import open_log, set_seed, silent_log

NO_PICTURES = "none"
TRAINED_ON_THIS = "these prompts were trained on this very dataset, so this is not a zero-shot result."


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    if bool(arguments.image) == bool(arguments.data_path):
        raise InputError("Give either --data_path (a dataset) or --image (files or folders).")
    if arguments.data_path and (arguments.go_on or arguments.no_recursive):
        flag = "--continue" if arguments.go_on else "--no_recursive"
        raise InputError(f"{flag} is for --image; leave it away with --data_path.")
    if arguments.visualize_all and arguments.visualize == NO_PICTURES:
        raise InputError("--visualize_all contradicts --visualize none; leave one of them away.")
    check_flags(*_threshold_choice(arguments))
    refuse_to_write_there(arguments.calibrate, arguments.save_path)
    set_seed(arguments.seed)
    with process_group(arguments.device) as ranks:
        return _test_images(arguments, ranks) if arguments.image else _test_dataset(arguments, ranks, argv)


def _test_images(arguments: argparse.Namespace, ranks: Ranks) -> int:
    def tell(*lines: str) -> None:
        if ranks.is_main and lines:
            print(*lines, sep="\n", file=sys.stderr)

    pictures, earlier = ranks.from_main(_pictures_and_earlier_run(arguments) if ranks.is_main else ([], EarlierRun()))
    if arguments.go_on:
        left = len(earlier.left(pictures))
        tell(f"--continue: {len(pictures) - left} of {len(pictures)} images were done before")
        if not left:
            tell("nothing is left to do")
            return 1 if earlier.has_errors else 0
    backbone, reason = backbone_at_hand(
        arguments.backbone, arguments.pretrained, arguments.checkpoint_path, arguments.cache_dir
    )
    model = _load(arguments, backbone, ranks, arguments.dataset)
    tell(f"model: {model.describe()} ({reason})", *model.provenance.notices)
    save_path = output_folder(arguments.save_path, "--save_path")
    thresholds, notices = run_thresholds(model, *_threshold_choice(arguments), arguments.batch_size, ranks)
    tell(*notices, thresholds.describe())
    visualize = arguments.visualize or "overlay"
    exit_code = score_pictures(
        model, pictures, save_path, arguments.batch_size, arguments.save_maps, thresholds, visualize, ranks, earlier
    )
    written = "predictions.csv is" if visualize == NO_PICTURES else "heat maps and predictions.csv are"
    tell(f"{written} in {save_path}")
    return exit_code


def _pictures_and_earlier_run(arguments: argparse.Namespace) -> tuple[list[Picture], EarlierRun]:
    pictures = find_pictures(arguments.image, not arguments.no_recursive, arguments.save_path)
    earlier = read_earlier_run(Path(arguments.save_path)) if arguments.go_on else EarlierRun()
    if len(pictures) == 1:
        for picture in earlier.left(pictures):
            read_image(picture.path)  # the only one is bad: say so before a model is loaded or anything is written
    return pictures, earlier


def _threshold_choice(arguments: argparse.Namespace) -> tuple[Choice, Choice, str | None, float | None]:
    return arguments.threshold, arguments.pixel_threshold, arguments.calibrate, arguments.false_alarm_rate


def _test_dataset(arguments: argparse.Namespace, ranks: Ranks, argv: Sequence[str]) -> int:
    index = read_index(arguments.data_path)
    check_images(index)
    notices = check_masks(index)
    if not index.split("test"):
        raise InputError(f"{index.root} lists no test images; check its meta.json.")
    label = arguments.dataset or (index.root.name if find_dataset(index.root.name) else None)
    model = _load(arguments, arguments.backbone, ranks, label)
    save_path = output_folder(arguments.save_path, "--save_path")
    visualize = arguments.visualize or "panel"
    pictures = DatasetPictures(
        save_path,
        index.split("test"),
        visualize,
        arguments.visualize_all,
        arguments.save_maps,
        len(model.settings.map_positions()),
        arguments.mask_threshold,
    )
    thresholds, threshold_notices = run_thresholds(model, *_threshold_choice(arguments), arguments.batch_size, ranks)
    observers: list[Observer] = [pictures]
    gallery = None if arguments.no_report else Gallery({name: len(part) for name, part in index.test.items() if part})
    if gallery is not None:
        observers.append(gallery)
    log = open_log(save_path) if ranks.is_main else silent_log()
    for line in (summary(index), f"model: {model.describe()}", *model.provenance.notices, *notices):
        log.info(line)
    mask_cuts = mask_thresholds(index.split("test"), arguments.mask_threshold)
    log.info(f"mask threshold: {thresholds_text(mask_cuts)}; settings: {model.settings.plain()}")
    for line in (*threshold_notices, thresholds.describe()):
        log.info(line)
    warnings = [TRAINED_ON_THIS] if _trained_on_this(model, label, index) else []
    for warning in warnings:
        log.info(f"WARNING: {warning}")

    evaluation = evaluate(
        model,
        index.test,
        arguments.metrics,
        arguments.mask_threshold,
        arguments.batch_size,
        arguments.workers,
        thresholds,
        observers,
        ranks,
        arguments.seed,
    )
    if not ranks.is_main:
        return 0
    log.info(evaluation.table())
    for row in _paper_rows(label):
        log.info(row)
    log.info(evaluation.decision_table())
    settings = _settings(arguments, model, index) | {
        "dataset": label,
        "thresholds": thresholds.plain(),
        "mask_thresholds_used": sorted(mask_cuts),
    }
    write_results(evaluation, settings, save_path)
    pictures.write_index()
    if gallery is not None:
        report = Report(
            title=arguments.dataset or index.root.name,
            model=_without_folders(model.describe(), model, index),
            thresholds=thresholds,
            predictions=evaluation.predictions,
            gallery=gallery,
            settings=settings,
            command=shlex.join(["python", "test.py", *argv]),
            notices=[
                _without_folders(notice, model, index) for notice in (*warnings, *model.provenance.notices, *notices)
            ],
            metrics=_report_metrics(evaluation, arguments, label, model),
        )
        write_report(report, save_path)
    report_file = f"{REPORT}, " if gallery is not None else ""
    drawn = "" if visualize == NO_PICTURES else f" and the heat maps that {INDEX} lists"
    log.info(f"{report_file}log.txt, metrics.json, metrics.csv, predictions.csv{drawn} are in {save_path}")
    return 0


def _load(arguments: argparse.Namespace, backbone: str | None, ranks: Ranks, label: str | None = None) -> AnomalyCLIP:
    typed = typed_settings(arguments)
    return load(
        backbone,
        arguments.pretrained,
        arguments.checkpoint_path,
        device=ranks.device,
        cache_dir=arguments.cache_dir,
        tested_dataset=_plain_name(label),
        sigma=arguments.sigma,
        compile=arguments.compile,
        **typed,
    )


def _plain_name(label: str | None) -> str | None:
    """The `--dataset` name of a label that may be the paper's or the authors' name for it, in any spelling."""
    datasets = find_dataset(label) if label else []
    return datasets[0].name if len(datasets) == 1 else label


def _trained_on_this(model: AnomalyCLIP, label: str | None, index: DatasetIndex) -> bool:
    checkpoint = model.provenance.checkpoint
    if checkpoint is None:
        return False
    same_label = label is not None and _plain_name(label) == _plain_name(checkpoint.trained_on)
    return same_label or checkpoint.settings.get("train_dataset_hash") == index.digest()


def _paper_rows(dataset: str | None) -> list[str]:
    """The paper's own figures beside ours, for a label that means one or several of the 17 datasets."""
    rows = []
    for facts in find_dataset(dataset) if dataset else []:
        figures = [f"{name} {'-' if getattr(facts, name) is None else getattr(facts, name)}" for name in METRICS]
        rows.append(f"the paper on {facts.paper_name} ({PAPER_BACKBONE}): {', '.join(figures)}")
    return rows


def _report_metrics(
    evaluation: Evaluation, arguments: argparse.Namespace, label: str | None, model: AnomalyCLIP
) -> Metrics:
    comparable = model.backbone.name == OPENAI_NAMES[PAPER_BACKBONE]
    return Metrics(evaluation, arguments.metrics, find_dataset(label) if label else [], PAPER_BACKBONE, comparable)


def _without_folders(text: str, model: AnomalyCLIP, index: DatasetIndex) -> str:
    """Without the folders of this machine, which a page that is handed on need not tell: files relative to their root.

    A checkpoint that was typed keeps its path as it was typed.
    """
    checkpoint = model.provenance.checkpoint
    if checkpoint is not None and checkpoint.path.is_relative_to(REPOSITORY):
        text = text.replace(str(checkpoint.path), checkpoint.path.relative_to(REPOSITORY).as_posix())
    return text.replace(f"{index.root}{os.sep}", "")


def _settings(arguments: argparse.Namespace, model: AnomalyCLIP, index: DatasetIndex) -> dict[str, Any]:
    checkpoint = model.provenance.checkpoint
    return {
        "dataset_hash": index.digest(),
        "metrics": arguments.metrics,
        "mask_threshold": arguments.mask_threshold,
        "backbone": model.backbone.name,
        "fingerprint": model.provenance.fingerprint,
        "checkpoint": arguments.checkpoint_path or (checkpoint.path.name if checkpoint else None),
        "trained_on": checkpoint.trained_on if checkpoint else None,
        "seed": arguments.seed,
        **model.settings.plain(),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", help="a dataset: folder with meta.json, or the file itself")
    parser.add_argument(
        "--image",
        "--image_path",
        nargs="+",
        metavar="PATH",
        help="image files, folders of images, quoted globs, or - for a list of these on standard input",
    )
    parser.add_argument(
        "--no_recursive", action="store_true", help="leave the subfolders of folders after --image out; default: search"
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on after a run on --image that was stopped: images with a row in predictions.csv are left out, those "
        "with an error are tried again; default: start anew",
    )
    parser.add_argument("--dataset", help="label of the dataset: selects the paper's row and the prompts")
    parser.add_argument("--checkpoint_path", help="prompts to use, or 'handwritten' (default: those in checkpoints/)")
    parser.add_argument("--save_path", default="./results", help="folder for all output (default: %(default)s)")
    parser.add_argument("--metrics", choices=LEVELS, default="image-pixel-level", help="default: %(default)s")
    parser.add_argument("--batch_size", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--save_maps", action="store_true", help="also write each smoothed map as .npy, (S, S) float32")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--visualize",
        choices=(NO_PICTURES, *KINDS),
        help="overlay: heat map and outline on the image; panel: image, heat map, outline and ground truth beside one "
        "another (default: overlay for --image, panel for --data_path)",
    )
    pictures.add_argument(
        "--visualize_all",
        action="store_true",
        help="draw every image of a dataset; left out: per class the three worst misses, best hits and worst false "
        "alarms, or what comes nearest to them",
    )
    parser.add_argument("--no_report", action="store_true", help="of a dataset: do not write report.html")
    add_threshold_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--sigma", type=float, help="of the maps' Gaussian filter, in pixels (4)")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

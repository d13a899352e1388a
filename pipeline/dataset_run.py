"""A run on a dataset, from the flags of test.py to its files."""

import argparse
import os
from typing import Any

from AnomalyCLIP_lib.backbone import OPENAI_NAMES, PAPER_BACKBONE
from AnomalyCLIP_lib.detector import Detector
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from dataset import DatasetIndex, check_images, check_masks, mask_thresholds, read_index, summary, thresholds_text
from generic_dataset_json.names import canonical_name, find_dataset
from metrics import PAPER_METRICS
from pipeline.distributed import Ranks
from pipeline.evaluation.evaluate import EvaluationOptions, evaluate
from pipeline.evaluation.results import Evaluation
from pipeline.flags import NO_PICTURES, find_thresholds, load_model
from pipeline.reporting.dataset_pictures import INDEX, DatasetPictures
from pipeline.reporting.metrics_files import write_results
from pipeline.reporting.report.gallery import Gallery
from pipeline.reporting.report.page import Metrics, Report, write_report
from pipeline.reporting.run_folder import REPORT, refuse_foreign, remove_results
from utils import open_log, silent_log

TRAINED_ON_THIS = "these prompts were trained on this very dataset, so this is not a zero-shot result."


def run_on_dataset(arguments: argparse.Namespace, ranks: Ranks, command: str = "") -> None:
    """Score a dataset's test images, print the metrics and write what the flags ask for.

    Args:
        arguments: of test.py.
        command: the command line, for the report.

    Raises:
        InputError: the flags, the dataset or the checkpoint do not fit, or an image cannot be read.
    """
    index = read_index(arguments.data_path)
    check_images(index)
    notices = check_masks(index)
    entries = index.split("test")
    if not entries:
        raise InputError(f"{index.root} lists no test images; check its meta.json.")
    label = arguments.dataset or (index.root.name if find_dataset(index.root.name) else None)
    detector = load_model(arguments, arguments.backbone, ranks.device, label)
    save_path = output_folder(arguments.save_path, "--save_path")
    refuse_foreign(save_path)
    visualize = arguments.visualize or "panel"
    pictures = DatasetPictures(
        save_path, entries, visualize, arguments.visualize_all, arguments.save_maps, arguments.mask_threshold
    )
    thresholds, threshold_notices = find_thresholds(detector, arguments, arguments.batch_size, ranks)
    gallery = None if arguments.no_report else Gallery({name: len(part) for name, part in index.test.items() if part})
    if ranks.is_main:
        remove_results(save_path)
    log = open_log(save_path) if ranks.is_main else silent_log()
    mask_cuts = mask_thresholds(entries, arguments.mask_threshold)
    warnings = [TRAINED_ON_THIS] if _trained_on_this(detector, label, index) else []
    for line in (
        summary(index),
        f"model: {detector.describe()}",
        *detector.provenance.notices,
        *notices,
        f"mask threshold: {thresholds_text(mask_cuts)}; settings: {detector.settings_dict()}",
        *threshold_notices,
        thresholds.describe(),
        *(f"WARNING: {warning}" for warning in warnings),
    ):
        log.info(line)

    options = EvaluationOptions(
        arguments.metrics,
        arguments.mask_threshold,
        arguments.batch_size,
        arguments.workers,
        thresholds,
        arguments.seed,
    )
    observers = [pictures, *([gallery] if gallery is not None else [])]
    evaluation = evaluate(detector, index.test, options, observers, ranks)
    if not ranks.is_main:
        return
    for text in (evaluation.table(), *_paper_rows(label), evaluation.decision_table()):
        log.info(text)
    settings = _settings(arguments, detector, index) | {
        "dataset": label,
        "thresholds": thresholds.to_dict(),
        "mask_thresholds_used": sorted(mask_cuts),
    }
    write_results(evaluation, settings, save_path)
    pictures.write_index()
    if gallery is not None:
        report = Report(
            title=arguments.dataset or index.root.name,
            model=detector.describe(),
            thresholds=thresholds,
            predictions=evaluation.predictions,
            gallery=gallery,
            settings=settings,
            command=command,
            notices=[
                notice.replace(f"{index.root}{os.sep}", "")  # a page that is handed on need not tell the folder
                for notice in (*warnings, *detector.provenance.notices, *notices, *threshold_notices)
            ],
            metrics=_report_metrics(evaluation, arguments, label, settings),
        )
        write_report(report, save_path)
    report_file = f"{REPORT}, " if gallery is not None else ""
    drawn = "" if visualize == NO_PICTURES else f" and the heat maps that {INDEX} lists"
    log.info(f"{report_file}log.txt, metrics.json, metrics.csv, predictions.csv{drawn} are in {save_path}")


def _trained_on_this(detector: Detector, label: str | None, index: DatasetIndex) -> bool:
    checkpoint = detector.provenance.checkpoint
    if checkpoint is None:
        return False
    same_label = label is not None and canonical_name(label) == canonical_name(checkpoint.trained_on)
    return same_label or checkpoint.settings.get("train_dataset_hash") == index.digest()


def _paper_rows(dataset: str | None) -> list[str]:
    """The paper's own figures beside ours, for a label that means one or several of the 17 datasets."""
    rows = []
    for facts in find_dataset(dataset) if dataset else []:
        figures = [f"{name} {'-' if getattr(facts, name) is None else getattr(facts, name)}" for name in PAPER_METRICS]
        rows.append(f"the paper on {facts.paper_name} ({PAPER_BACKBONE}): {', '.join(figures)}")
    return rows


def _report_metrics(
    evaluation: Evaluation, arguments: argparse.Namespace, label: str | None, settings: dict[str, Any]
) -> Metrics:
    comparable = settings["backbone"] == OPENAI_NAMES[PAPER_BACKBONE]
    return Metrics(evaluation, arguments.metrics, find_dataset(label) if label else [], PAPER_BACKBONE, comparable)


def _settings(arguments: argparse.Namespace, detector: Detector, index: DatasetIndex) -> dict[str, Any]:
    checkpoint = detector.provenance.checkpoint
    return {
        "dataset_hash": index.digest(),
        "metrics": arguments.metrics,
        "mask_threshold": arguments.mask_threshold,
        "checkpoint": arguments.checkpoint_path or (checkpoint.path.name if checkpoint else None),
        "trained_on": checkpoint.trained_on if checkpoint else None,
        "seed": arguments.seed,
        **detector.settings_dict(),
    }

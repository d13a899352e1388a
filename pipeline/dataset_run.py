"""A run on a dataset, from the flags of test.py to its files."""

import argparse
import os
from contextlib import nullcontext
from typing import Any

from AnomalyCLIP_lib.backbone import OPENAI_NAMES, PAPER_BACKBONE
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from dataset import DatasetIndex, check_images, check_masks, mask_thresholds, read_index, summary, thresholds_text
from generic_dataset_json.names import canonical_name, find_dataset
from metrics import PAPER_METRICS
from pipeline.distributed import Ranks
from pipeline.evaluation.evaluate import EvaluationOptions, evaluate
from pipeline.evaluation.results import Evaluation
from pipeline.flags import find_thresholds, load_model, picture_options
from pipeline.output_folder import LOG, METRICS, METRICS_TABLE, PREDICTIONS, REPORT, SETTINGS, OutputFolder
from pipeline.reporting.dataset_pictures import INDEX, DatasetPictures
from pipeline.reporting.metrics_files import write_results
from pipeline.reporting.report.gallery import Gallery
from pipeline.reporting.report.page import Metrics, Report, render
from pipeline.run_record import RunRecord
from utils import counted, open_log, silent_log

TRAINED_ON_THIS = "these prompts were trained on this very dataset, so this is not a zero-shot result."


def run_on_dataset(arguments: argparse.Namespace, ranks: Ranks, command: str = "") -> int:
    """Score a dataset's test images, print the metrics and write what the flags ask for.

    Args:
        arguments: of test.py.
        command: the command line, for the report.

    Returns:
        the exit code: 1 where an image could not be scored, else 0.

    Raises:
        InputError: the flags, the dataset or the checkpoint do not fit, or no image can be scored.
    """
    index = read_index(arguments.data_path)
    check_images(index)
    notices = check_masks(index)
    if not index.split("test"):
        raise InputError(f"{index.root} lists no test images; check its meta.json.")
    label = arguments.dataset or (index.root.name if find_dataset(index.root.name) else None)
    detector = load_model(arguments, arguments.backbone, ranks.device, label)
    detector.check()
    folder = OutputFolder(arguments.save_path)
    with folder.held() if ranks.is_main else nullcontext():
        folder.check([PREDICTIONS, SETTINGS, METRICS, METRICS_TABLE, REPORT, LOG])
        return _Run(arguments, ranks, command, index, notices, label, detector, folder).run()


class _Run:
    """What comes after everything is known to fit."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        ranks: Ranks,
        command: str,
        index: DatasetIndex,
        notices: list[str],
        label: str | None,
        detector: Detector,
        folder: OutputFolder,
    ):
        self.arguments, self.ranks, self.command = arguments, ranks, command
        self.index, self.label, self.detector, self.folder = index, label, detector, folder
        entries = index.split("test")
        self.mask_cuts = mask_thresholds(entries, arguments.mask_threshold)
        self.thresholds, found = find_thresholds(detector, arguments, arguments.batch_size, ranks)
        trained_on_this = [TRAINED_ON_THIS] if _trained_on_this(detector, label, index) else []
        self.notices = [*trained_on_this, *detector.provenance.notices, *notices, *found]
        self.settings = _settings(arguments, detector, index) | {
            "dataset": label,
            "thresholds": self.thresholds.to_dict(),
            "mask_thresholds_used": sorted(self.mask_cuts),
        }
        self.pictures = DatasetPictures(
            folder, entries, picture_options(arguments, "panel"), arguments.mask_threshold, self._predict
        )
        sizes = {name: len(part) for name, part in index.test.items() if part}
        self.gallery = None if arguments.no_report else Gallery(sizes)

    def run(self) -> int:
        arguments, folder = self.arguments, self.folder
        record = RunRecord(folder, self.settings, self.ranks, arguments.go_on)
        if self.ranks.is_main and not arguments.go_on:
            folder.begin(self.pictures.inputs)
        log = open_log(folder.claim(LOG)) if self.ranks.is_main else silent_log()
        for line in (
            summary(self.index),
            f"model: {self.detector.describe()}",
            f"mask threshold: {thresholds_text(self.mask_cuts)}; settings: {self.detector.settings_dict()}",
            *self.notices,
            self.thresholds.describe(),
        ):
            log.info(line)
        options = EvaluationOptions(
            arguments.metrics,
            arguments.mask_threshold,
            arguments.batch_size,
            arguments.workers,
            self.thresholds,
            arguments.seed,
            arguments.strict,
        )
        observers = {"pictures": self.pictures, **({"gallery": self.gallery} if self.gallery is not None else {})}
        evaluation = evaluate(self.detector, self.index.test, options, observers, record, self.ranks)
        bad = [row for row in evaluation.predictions if row.error]
        if not self.ranks.is_main:
            return 1 if bad else 0
        if bad:
            self.notices.insert(0, f"{counted(len(bad), 'image')} could not be scored and are not in the metrics.")
            log.info(f"WARNING: {self.notices[0]}")
        for text in (evaluation.table(), *_paper_rows(self.label), evaluation.decision_table()):
            log.info(text)
        self._write(evaluation)
        report_file = f"{REPORT}, " if self.gallery is not None else ""
        drawn = f" and the heat maps that {INDEX} lists" if self.pictures.draw is not None else ""
        log.info(f"{report_file}log.txt, metrics.json, metrics.csv, predictions.csv{drawn} are in {folder.path}")
        return 1 if bad else 0

    def _write(self, evaluation: Evaluation) -> None:
        write_results(evaluation, self.settings, self.folder, self.pictures.files_of)
        self.pictures.write_index()
        if self.gallery is None:
            return
        report = Report(
            title=self.arguments.dataset or self.index.root.name,
            model=self.detector.describe(),
            thresholds=self.thresholds,
            predictions=evaluation.predictions,
            gallery=self.gallery,
            settings=self.settings,
            command=self.command,
            # a page that is handed on need not say which folder it was
            notices=[notice.replace(f"{self.index.root}{os.sep}", "") for notice in self.notices],
            metrics=_report_metrics(evaluation, self.arguments, self.label, self.settings),
        )
        self.folder.write_text(REPORT, render(report))

    def _predict(self, position: int) -> Prediction:
        entry = self.index.split("test")[position]
        return self.detector.predict(entry.image_path, class_name=entry.class_name)[0]


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

"""A training run, from the flags of train.py to its checkpoints."""

import argparse
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.backbone import CHECKPOINTS
from AnomalyCLIP_lib.checkpoint import describe_training, read_checkpoint
from AnomalyCLIP_lib.decisions import SETTING
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.loading import load_for_training
from AnomalyCLIP_lib.model import AnomalyCLIP
from dataset import (
    AnomalyDataset,
    DatasetIndex,
    check_images,
    check_masks,
    mask_thresholds,
    read_index,
    summary,
    thresholds_text,
)
from generic_dataset_json.names import canonical_name, find_dataset
from pipeline.distributed import Ranks
from pipeline.flags import CACHE_FOLDER, typed_settings
from pipeline.output_folder import LOG, OutputFolder
from pipeline.training.features import CacheOptions, feature_batches, shuffled_batches
from pipeline.training.learning import TrainingOptions, checkpoint_name, learn, read_state
from pipeline.training.progress import TrainingProgress
from utils import named, open_log, set_seed, silent_log


def train(arguments: argparse.Namespace, ranks: Ranks, command: str = "") -> None:
    """Learn the prompts that the flags of train.py describe.

    Args:
        command: the command line, for the log.

    Raises:
        InputError: the flags, the dataset or the checkpoint do not fit, an image cannot be read, or the folder holds
            checkpoints that this run has not written.
    """
    index, label, notices = _dataset(arguments)
    set_seed(arguments.seed)
    model = load_for_training(
        arguments.backbone,
        arguments.pretrained,
        arguments.init_from,
        device=ranks.device,
        cache_dir=arguments.cache_dir,
        compile=arguments.compile,
        **typed_settings(arguments),
    )
    settings = _settings(arguments, model, index, label)
    folder = OutputFolder(arguments.save_path or CHECKPOINTS / f"trained_on_{label}")
    with folder.held() if ranks.is_main else nullcontext():
        found = _take_over(folder, arguments, settings) if ranks.is_main else None
        finished, state = ranks.broadcast((found == "finished", found if isinstance(found, dict) else None))
        if finished:
            print(f"{folder.path / checkpoint_name(arguments.epoch)} is the result of this training: nothing to do")
            return
        log = open_log(folder.claim(LOG), append=state is not None) if ranks.is_main else silent_log()
        entries = index.split("test")  # as in the paper: the auxiliary dataset's test split, which has anomalies
        cuts = mask_thresholds(entries, arguments.mask_threshold)
        versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
        resumed = [f"going on after epoch {state['epoch']}"] if state is not None else []
        for line in (
            *([command] if command else []),
            summary(index),
            model.describe(),
            *model.provenance.notices,
            *notices,
            f"mask threshold: {thresholds_text(cuts)}; settings: {model.settings.to_dict()}",
            f"seed {arguments.seed}, learning rate {arguments.learning_rate}, batch size {arguments.batch_size}, "
            f"{arguments.epoch} epochs on {model.device}; Python {platform.python_version()}, {versions}",
            *resumed,
        ):
            log.info(line)

        dataset = AnomalyDataset(entries, model.preprocess, arguments.mask_threshold)
        cache_folder = Path(arguments.feature_cache or folder.path.parent / CACHE_FOLDER)
        cache = CacheOptions(
            None if arguments.feature_cache == "off" else cache_folder,
            arguments.feature_cache_dtype,
            arguments.feature_cache_required,
        )
        order = shuffled_batches(len(dataset), arguments.batch_size, arguments.seed)
        batches = feature_batches(model, dataset, order, arguments.workers, cache, ranks, log.info)
        if batches is None:
            return
        if state is not None:
            batches.restore_order(state["order"])
        if ranks.is_main:
            options = TrainingOptions(
                arguments.epoch, arguments.learning_rate, arguments.print_freq, arguments.save_freq, label
            )
            progress = TrainingProgress(model, entries, arguments.mask_threshold, folder, log.info)
            learn(model, batches, options, settings, folder, log, progress, state)
        else:  # this process encodes, the main one learns, and then looks for thresholds
            for _ in range(arguments.epoch + 1 - (state["epoch"] if state is not None else 0)):
                for _ in batches:
                    pass


def _dataset(arguments: argparse.Namespace) -> tuple[DatasetIndex, str, list[str]]:
    """The dataset, its label, and sentences for the user."""
    index = read_index(arguments.train_data_path)
    if not arguments.dataset and not find_dataset(index.root.name):
        raise InputError(
            f"--dataset is needed: the folder {index.root.name} is named like none of the known datasets; give the "
            "label that the checkpoints shall carry."
        )
    label = canonical_name(arguments.dataset or index.root.name) or ""
    check_images(index)
    notices = check_masks(index, training=True)
    labels = {entry.anomaly for entry in index.split("test")}
    if not labels:
        raise InputError(f"{index.root} lists no test images, and prompts are learned on those; check its meta.json.")
    if len(labels) < 2:
        raise InputError(f"{index.root} has images of one kind only; prompts are learned on normal and anomalous ones.")
    return index, label, notices


def _settings(arguments: argparse.Namespace, model: AnomalyCLIP, index: DatasetIndex, label: str) -> dict[str, Any]:
    """What the checkpoints carry."""
    training = {
        "train_dataset": label,
        "train_dataset_hash": index.digest(),
        "epochs": arguments.epoch,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "mask_threshold": arguments.mask_threshold,
    }
    provenance = model.provenance
    return describe_training(model.settings, model.backbone, provenance.fingerprint, provenance.pretrained, training)


def _take_over(folder: OutputFolder, arguments: argparse.Namespace, settings: dict[str, Any]) -> Any:
    """Make the folder this run's: the state to go on from, "finished", or None for a training that starts anew."""
    checkpoints = sorted(folder.path.glob("*.pth"))
    if arguments.resume:
        state = read_state(folder, settings)
        last = folder.path / checkpoint_name(arguments.epoch)
        if state is None and last.is_file():
            saved = read_checkpoint(last).settings
            same = all(saved.get(name) == value for name, value in settings.items() if name != "versions")
            if SETTING in saved and same:
                return "finished"
        if state is not None:
            return state
    if checkpoints and not arguments.overwrite:
        raise InputError(
            f"{folder.path} holds checkpoints already ({named(checkpoints)}); choose another --save_path, go on with a "
            "stopped training by --resume and its flags, or replace those of an earlier run of train.py by --overwrite."
        )
    if not folder.wrote(checkpoints):
        raise InputError(
            f"{folder.path} holds checkpoints that train.py has not written there ({named(checkpoints)}) and never "
            "removes; choose another --save_path."
        )
    if arguments.init_from and Path(arguments.init_from).resolve() in [path.resolve() for path in checkpoints]:
        raise InputError(f"--overwrite would remove {arguments.init_from} of --init_from; choose another --save_path.")
    folder.check([LOG, *(checkpoint_name(epoch) for epoch in range(1, arguments.epoch + 1))])
    folder.begin()
    return None

"""Find anomalies: on a dataset, with the metrics of the paper, or on single images.

python test.py --data_path /data/visa --dataset visa
python test.py --image part.png another_folder/
torchrun --nproc_per_node=4 test.py ...     # four processes share the images
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from AnomalyCLIP_lib.backbone import PAPER_BACKBONE
from AnomalyCLIP_lib.distributed import Ranks, process_group
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.loading import backbone_at_hand, load
from AnomalyCLIP_lib.model import AnomalyCLIP
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
from evaluation import LEVELS, evaluate, write_results
from generic_dataset_json.names import find_dataset
from reporting.dataset_pictures import DatasetPictures
from single_images import find_pictures, score_pictures
from streaming_metrics import METRICS
from utils import open_log, set_seed, silent_log

PICTURES_PER_CLASS = 3


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if bool(arguments.image) == bool(arguments.data_path):
        raise InputError("Give either --data_path (a dataset) or --image (files or folders).")
    set_seed(arguments.seed)
    with process_group(arguments.device) as ranks:
        return _test_images(arguments, ranks) if arguments.image else _test_dataset(arguments, ranks)


def _test_images(arguments: argparse.Namespace, ranks: Ranks) -> int:
    pictures = find_pictures(arguments.image)
    backbone, reason = backbone_at_hand(
        arguments.backbone, arguments.pretrained, arguments.checkpoint_path, arguments.cache_dir
    )
    model = _load(arguments, backbone, ranks, arguments.dataset)
    if ranks.is_main:
        print(f"model: {model.describe()} ({reason})", *model.provenance.notices, sep="\n", file=sys.stderr)
    thresholds = model.thresholds(arguments.threshold, arguments.pixel_threshold)
    if ranks.is_main:
        print(thresholds.describe(), file=sys.stderr)
    save_path = output_folder(arguments.save_path, "--save_path")
    exit_code = score_pictures(model, pictures, save_path, arguments.batch_size, arguments.save_maps, thresholds, ranks)
    if ranks.is_main:
        print(f"heat maps and predictions.csv are in {save_path}", file=sys.stderr)
    return exit_code


def _test_dataset(arguments: argparse.Namespace, ranks: Ranks) -> int:
    index = read_index(arguments.data_path)
    check_images(index)
    notices = check_masks(index)
    if not index.split("test"):
        raise InputError(f"{index.root} lists no test images; check its meta.json.")
    label = arguments.dataset or (index.root.name if find_dataset(index.root.name) else None)
    model = _load(arguments, arguments.backbone, ranks, label)
    thresholds = model.thresholds(arguments.threshold, arguments.pixel_threshold)
    save_path = output_folder(arguments.save_path, "--save_path")
    pictures = DatasetPictures(save_path, index.split("test"), PICTURES_PER_CLASS, arguments.save_maps)
    log = open_log(save_path) if ranks.is_main else silent_log()
    for line in (summary(index), f"model: {model.describe()}", *model.provenance.notices, *notices):
        log.info(line)
    mask_cuts = mask_thresholds(index.split("test"), arguments.mask_threshold)
    log.info(f"mask threshold: {thresholds_text(mask_cuts)}; settings: {model.settings.plain()}")
    log.info(thresholds.describe())
    if _trained_on_this(model, label, index):
        log.info("WARNING: these prompts were trained on this very dataset, so this is not a zero-shot result.")

    evaluation = evaluate(
        model,
        index.test,
        arguments.metrics,
        arguments.mask_threshold,
        arguments.batch_size,
        arguments.workers,
        thresholds,
        [pictures],
        ranks,
    )
    if not ranks.is_main:
        return 0
    log.info(evaluation.table())
    for row in _paper_rows(label):
        log.info(row)
    settings = _settings(arguments, model, index) | {
        "dataset": label,
        "thresholds": thresholds.plain(),
        "mask_thresholds_used": sorted(mask_cuts),
    }
    write_results(evaluation, settings, save_path)
    log.info(f"log.txt, metrics.json, predictions.csv and heat maps are in {save_path}")
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
    parser.add_argument("--image", "--image_path", nargs="+", metavar="PATH", help="image files, or folders of images")
    parser.add_argument("--dataset", help="label of the dataset: selects the paper's row and the prompts")
    parser.add_argument("--checkpoint_path", help="prompts to use, or 'handwritten' (default: those in checkpoints/)")
    parser.add_argument("--save_path", default="./results", help="folder for all output (default: %(default)s)")
    parser.add_argument("--metrics", choices=LEVELS, default="image-pixel-level", help="default: %(default)s")
    parser.add_argument("--batch_size", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--save_maps", action="store_true", help="also write each smoothed map as .npy, (S, S) float32")
    add_threshold_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--sigma", type=float, help="of the maps' Gaussian filter, in pixels (4)")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))

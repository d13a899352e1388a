"""Measure the demo: learned, handwritten and no prompts' worth of training, with and without DPAM, class by class.

    python -m demo.make_dataset && python -m demo.report

prints one table per variant and one of their means, in percent. --prompts adds prompts of your own to the comparison.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from AnomalyCLIP_lib.backbone import DEMO_BACKBONE, find_backbone
from AnomalyCLIP_lib.checkpoint import epochs_in
from AnomalyCLIP_lib.loading import HANDWRITTEN, load
from AnomalyCLIP_lib.weights import random_clip
from dataset import DatasetIndex, read_index
from demo.pretrain import save_clip
from metrics import PAPER_METRICS
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import Metrics
from utils import run

UNTRAINED_DRAWS = 5


def measure(index: DatasetIndex, **model: Any) -> Evaluation:
    """Evaluate the demo backbone on all test images; `model` goes to `AnomalyCLIP_lib.load`."""
    return evaluate(load(DEMO_BACKBONE, **model), index.test)


def untrained_weights(path: Path, seed: int = 0) -> Path:
    """Write freshly drawn weights of the demo's architecture to `path`: the control that must stay at chance."""
    torch.manual_seed(seed)
    save_clip(random_clip(find_backbone(DEMO_BACKBONE)), path)
    return path


def measure_untrained(index: DatasetIndex, draws: int = UNTRAINED_DRAWS) -> Metrics:
    """Mean metrics, percent, of several draws: where a random text direction points is chance, their mean is not."""
    with tempfile.TemporaryDirectory() as folder:
        files = [untrained_weights(Path(folder) / f"{seed}.safetensors", seed) for seed in range(draws)]
        means = [measure(index, checkpoint=HANDWRITTEN, pretrained=str(file)).mean for file in files]
    return {name: float(np.mean([mean[name] or 0 for mean in means])) for name in PAPER_METRICS}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="data/demo/unseen", help="default: %(default)s")
    parser.add_argument(
        "--prompts",
        type=Path,
        help="a checkpoint, or a training's folder, to compare with the committed one; the other variants are left out",
    )
    arguments = parser.parse_args(argv)
    index = read_index(arguments.data_path)
    variants: dict[str, dict[str, Any]] = {"committed prompts": {}}
    if arguments.prompts:
        prompts = epochs_in(arguments.prompts)[0][1] if arguments.prompts.is_dir() else arguments.prompts
        variants[str(prompts)] = {"checkpoint": prompts}
    else:
        variants |= {
            "handwritten prompts": {"checkpoint": HANDWRITTEN},
            "committed prompts, --dpam none": {"dpam": "none"},
            "handwritten prompts, --dpam none": {"checkpoint": HANDWRITTEN, "dpam": "none"},
        }
    means: dict[str, Metrics] = {}
    for name, model in variants.items():
        evaluation = measure(index, **model)
        print(f"{name}\n{evaluation.table()}\n", flush=True)
        means[name] = evaluation.mean
    if not arguments.prompts:
        means[f"untrained weights, handwritten prompts, mean of {UNTRAINED_DRAWS} draws"] = measure_untrained(index)
    rows = [[name, *(f"{mean[metric] or 0:.1f}" for metric in PAPER_METRICS)] for name, mean in means.items()]
    print(tabulate(rows, headers=["mean", *PAPER_METRICS], tablefmt="pipe", disable_numparse=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))

"""Training from cached features: the plain computation, which encodes in every epoch, against ours, which does once."""

import tempfile
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.prompts import PromptLearner
from benchmarks import naive
from benchmarks.drawn_dataset import draw_dataset
from benchmarks.table import Row
from benchmarks.timing import measured, ratio
from dataset import AnomalyDataset, read_index
from pipeline.distributed import ALONE
from pipeline.training.features import CacheOptions, feature_batches, shuffled_batches
from pipeline.training.learning import BETAS, training_step

SEED = 111
LEARNING_RATE = 1e-3


def cached_training(model: AnomalyCLIP, images: int, batch: int, epochs: int, naive_epochs: int) -> Row:
    """Both learn from the same prompts on, on the same batches in the same order.

    Ours is timed in full: reading and encoding the images, writing the cache, and all epochs.

    Args:
        naive_epochs: how many of the epochs the plain computation goes through; its time is multiplied up to all of
            them. Where it goes through all, the learned prompts are compared, else the losses of its steps, each
            taken from prompts that the steps before have changed.
    """
    naive_epochs = min(naive_epochs, epochs)
    learner = model.prompts
    assert isinstance(learner, PromptLearner)
    untrained = deepcopy(learner.state_dict())
    with tempfile.TemporaryDirectory() as name:
        size = model.settings.image_size
        draw_dataset(Path(name), images, size)
        dataset = AnomalyDataset(read_index(name).split("test"), model.preprocess, size)
        expected, slow = measured(lambda: _plain(model, dataset, batch, naive_epochs))
        expected_prompts = _values(learner)

        learner.load_state_dict(untrained)
        cache = CacheOptions(Path(name) / "cache", required=True)
        losses, fast = measured(lambda: _cached(model, dataset, batch, epochs, cache))
        prompts = _values(learner)
        learner.load_state_dict(untrained)
    if naive_epochs == epochs:
        difference = f"{float((expected_prompts - prompts).abs().max()):.1e} (learned prompts)"
    else:
        largest = max(abs(a - b) for a, b in zip(expected, losses, strict=False))
        difference = f"{largest:.1e} (losses of {len(expected)} steps)"
    slow = slow * (epochs / naive_epochs)
    multiplied = f", from {naive_epochs} of {epochs} epochs" if naive_epochs < epochs else ""
    what = f"training from cached features, {images} images of {size} x {size}, {epochs} epochs, batch {batch}"
    return Row(what, f"{slow}{multiplied}", str(fast), ratio(slow, fast), difference)


def _plain(model: AnomalyCLIP, dataset: AnomalyDataset, batch: int, epochs: int) -> list[float]:
    """Losses of all steps."""
    optimizer = _optimizer(model)
    batches = shuffled_batches(len(dataset), batch, SEED)
    losses = []
    for _ in range(epochs):
        for positions in batches:
            images, masks, _, labels, *_ = zip(*(dataset[position] for position in positions), strict=True)
            images, masks, labels = torch.stack(images), torch.stack(masks).float(), torch.tensor(labels)
            losses.append(float(naive.training_step(model, optimizer, images, labels, masks)))
    return losses


def _cached(model: AnomalyCLIP, dataset: AnomalyDataset, batch: int, epochs: int, cache: CacheOptions) -> list[float]:
    """Losses of all steps."""
    optimizer = _optimizer(model)
    batches = feature_batches(
        model, dataset, shuffled_batches(len(dataset), batch, SEED), 0, cache, ALONE, lambda _: None
    )
    assert batches is not None  # there is but one process
    return [sum(training_step(model, optimizer, features)) for _ in range(epochs) for features in batches]


def _optimizer(model: AnomalyCLIP) -> torch.optim.Optimizer:
    assert model.prompts is not None
    return torch.optim.Adam(model.prompts.parameters(), lr=LEARNING_RATE, betas=BETAS)


def _values(learner: PromptLearner) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in learner.parameters()])

"""Where training gets its batches from: from the encoder in every epoch, or from features that it computed once.

The encoder is frozen and images are not augmented, so the features of an image never change. Both sources give the
same batches in the same order, as often as they are iterated over.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.model import AnomalyCLIP
from dataset import AnomalyDataset, read_mask
from pipeline.distributed import Ranks
from pipeline.read_ahead import in_order, thread_pool, to_device
from pipeline.training.feature_cache import (
    CacheEntry,
    CacheUnusable,
    CacheWriter,
    RowType,
    content_digests,
    readable_size,
)

CACHE_DTYPES = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class FeatureBatch:
    """What one training step reads.

    Attributes:
        image_features: (B, D) float32, L2-normalised.
        patch_features: per layer (B, 1 + N, D) float32, L2-normalised.
        masks: (B, S, S) uint8 of 0 and 1.
        labels: (B,) int64, 1 anomalous.
    """

    image_features: Tensor
    patch_features: list[Tensor]
    masks: Tensor
    labels: Tensor


@dataclass(frozen=True)
class CacheOptions:
    """What the user wants of the feature cache.

    Attributes:
        folder: where it is; None: features are not kept.
        dtype: "fp32" or "fp16".
        required: stop where the cache cannot be used; False: go on without it.
    """

    folder: Path | None
    dtype: str = "fp32"
    required: bool = False


class EncodedBatches:
    """Batches whose images are read and encoded whenever they are iterated over.

    Each of the processes of a run reads and encodes its share. The main one gets all batches; on the others the
    iteration gives nothing, but has to be run through.

    Args:
        dataset: what is trained on.
        batches: positions in it, batch by batch; the same in all processes.
        workers: threads that read images.
    """

    def __init__(self, model: AnomalyCLIP, dataset: AnomalyDataset, batches: BatchSampler, workers: int, ranks: Ranks):
        self.model, self.dataset, self.batches, self.workers, self.ranks = model, dataset, batches, workers, ranks

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[FeatureBatch]:
        own = self._encoded()
        for _ in range(0, len(self), self.ranks.size):
            for tensors in self.ranks.gather_tensors_lazily(next(own, []), self.model.device):
                if tensors:  # in the last round there may be fewer batches than processes
                    image_features, masks, labels, *patch_features = tensors
                    yield FeatureBatch(image_features, patch_features, masks, labels)

    def _encoded(self) -> Iterator[list[Tensor]]:
        device = self.model.device
        own = list(self.batches)[self.ranks.rank :: self.ranks.size]
        with thread_pool(self.workers) as pool:
            ahead = len(own[0]) + self.workers if own else 0
            samples = in_order(pool, self.dataset.__getitem__, (row for rows in own for row in rows), ahead)
            for rows in own:
                images, masks, _, labels, *_ = zip(*islice(samples, len(rows)), strict=True)
                image_features, patch_features = self.model.encode_image(to_device(torch.stack(images), device))
                yield [image_features, torch.stack(masks), torch.tensor(labels), *patch_features]


class CachedBatches:
    """Batches from a feature cache; the next one is read while the current one is in use.

    Args:
        features, masks: whole entries, rows in the order of `labels`.
        labels: 0 or 1 per image.
        batches: as for `EncodedBatches`.
        layers: names of the arrays of patch features, in the order of the settings.
        image_size: S.
        device: where the tensors are needed.
    """

    def __init__(
        self,
        features: CacheEntry,
        masks: CacheEntry,
        labels: Sequence[int],
        batches: BatchSampler,
        layers: Sequence[str],
        image_size: int,
        device: torch.device,
    ):
        self.features, self.masks, self.batches = features, masks, batches
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.layers, self.image_size, self.device = layers, image_size, device

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[FeatureBatch]:
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = None
            for rows in self.batches:
                current, ahead = ahead, reader.submit(self._read, rows)
                if current is not None:
                    yield self._on_device(current.result())
            if ahead is not None:
                yield self._on_device(ahead.result())

    def _read(self, rows: list[int]) -> FeatureBatch:
        features = [torch.from_numpy(self.features.read(name, rows)) for name in ("image_features", *self.layers)]
        pixels = self.image_size**2
        masks = np.unpackbits(self.masks.read("masks", rows), axis=1, count=pixels)
        masks = torch.from_numpy(masks).unflatten(1, (self.image_size, self.image_size))
        if self.device.type == "cuda":
            features, masks = [tensor.pin_memory() for tensor in features], masks.pin_memory()
        return FeatureBatch(features[0], features[1:], masks, self.labels[rows])

    def _on_device(self, batch: FeatureBatch) -> FeatureBatch:
        image_features, *patch_features = [
            tensor.to(self.device, non_blocking=True).float()
            for tensor in (batch.image_features, *batch.patch_features)
        ]
        masks = batch.masks.to(self.device, non_blocking=True)
        return FeatureBatch(image_features, patch_features, masks, batch.labels.to(self.device))


def shuffled_batches(count: int, batch_size: int, seed: int) -> BatchSampler:
    """Another shuffled order in each epoch; it depends on nothing but the arguments.

    Args:
        count: images in the dataset.
    """
    generator = torch.Generator().manual_seed(seed)
    # A DataLoader with workers and shuffle=True draws its workers' seed first: this keeps to the order of such a one.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    return BatchSampler(RandomSampler(range(count), generator=generator), batch_size, drop_last=False)


def feature_batches(
    model: AnomalyCLIP,
    dataset: AnomalyDataset,
    batch_size: int,
    seed: int,
    workers: int,
    options: CacheOptions,
    ranks: Ranks,
    tell: Callable[[str], object],
) -> EncodedBatches | CachedBatches | None:
    """The batches of training, from the cache if the options and the disk allow it; it is filled first.

    Args:
        dataset: every anomalous entry has a mask.
        tell: receives sentences for the user.

    Returns:
        None on processes that are not needed any more: reading from the cache is work for one.

    Raises:
        InputError: an image cannot be read, or the cache is required and cannot be used.
    """
    batches = shuffled_batches(len(dataset), batch_size, seed)
    if options.folder is not None:
        cache = _Cache(model, dataset, options)
        if cache.fill(batch_size, workers, options.required, ranks, tell):
            return cache.batches(batches) if ranks.is_main else None
    return EncodedBatches(model, dataset, batches, workers, ranks)


class _Cache:
    """The two cache entries of a training run."""

    def __init__(self, model: AnomalyCLIP, dataset: AnomalyDataset, options: CacheOptions):
        assert options.folder is not None
        self.model, self.dataset = model, dataset
        self.folder, self.dtype = options.folder, CACHE_DTYPES[options.dtype]
        settings = model.settings
        self.layers = [f"patch_features_{layer}" for layer in settings.features_list]

    def fill(self, batch_size: int, workers: int, required: bool, ranks: Ranks, tell: Callable[[str], object]) -> bool:
        """Compute what the cache lacks; whether it can be used now, the same answer in all processes."""

        def do_without(error: CacheUnusable) -> None:
            if required:
                raise error
            tell(f"{error} Training goes on without the cache: every epoch encodes all images again.")

        state = "unusable"
        writing, writer = ExitStack(), None
        if ranks.is_main:
            try:
                writer = self._prepare(writing, tell)
                state = "complete" if writer is None else "lacking"
            except CacheUnusable as error:
                do_without(error)
        state = ranks.broadcast(state)
        if state == "lacking":
            try:
                with writing:
                    self._write_features(writer, self._encoded(batch_size, workers, ranks))
                state = "complete"
            except CacheUnusable as error:
                state = "unusable"
                do_without(error)
            state = ranks.broadcast(state)
        if state == "complete":
            ranks.finish()  # reading from the cache is work for one: the others need not wait for it
        return state == "complete"

    def _prepare(self, writing: ExitStack, tell: Callable[[str], object]) -> CacheWriter | None:
        """Write the masks if need be; a writer for the features, closed by `writing`, unless they are there."""
        self.features, self.masks = self._feature_entry(), self._mask_entry()
        found = self.features.exists()
        tell(self._description(found))
        if not self.masks.exists():
            self._write_masks()
        return None if found else writing.enter_context(self.features.written())

    def _write_features(self, writer: CacheWriter | None, encoded: EncodedBatches) -> None:
        batches = iter(encoded)
        try:
            for batch in tqdm(batches, total=len(encoded), desc="encoding", leave=False, disable=writer is None):
                assert writer is not None  # processes without one receive no batches
                tensors = [batch.image_features, *batch.patch_features]
                arrays = [tensor.cpu().numpy() for tensor in tensors]
                writer.append(dict(zip(("image_features", *self.layers), arrays, strict=True)))
        except OSError:
            if encoded.ranks.size > 1:
                for _ in batches:  # the other processes go on until everything is encoded
                    pass
            raise

    def batches(self, batches: BatchSampler) -> CachedBatches:
        """The batches of a filled cache."""
        labels = [entry.anomaly for entry in self.dataset.entries]
        size, device = self.model.settings.image_size, self.model.device
        return CachedBatches(self.features, self.masks, labels, batches, self.layers, size, device)

    def _feature_entry(self) -> CacheEntry:
        model, settings = self.model, self.model.settings
        width = model.backbone.config["embed_dim"]
        tokens = 1 + (settings.image_size // model.backbone.patch_size) ** 2
        arrays = {"image_features": RowType(self.dtype, (width,))}
        arrays |= {name: RowType(self.dtype, (tokens, width)) for name in self.layers}
        key = {
            "weights": model.provenance.fingerprint,
            "architecture": model.backbone.config,  # equal weights can belong to GELU and QuickGELU
            "images": _digest(content_digests([entry.image_path for entry in self.dataset.entries])),
            "image_size": settings.image_size,
            "layers": list(settings.features_list),
            "dpam": settings.dpam,
            "dpam_layer": settings.dpam_layer,
            "precision": settings.precision,
            "dtype": self.dtype,
        }
        return CacheEntry(self.folder, "features", key, len(self.dataset), arrays)

    def _mask_entry(self) -> CacheEntry:
        size = self.model.settings.image_size
        masks = [entry.mask_path if entry.anomaly else None for entry in self.dataset.entries]
        key = {
            "masks": _digest(content_digests(masks)),
            "image_size": size,
            "mask_threshold": self.dataset.mask_threshold,
        }
        return CacheEntry(
            self.folder, "masks", key, len(self.dataset), {"masks": RowType("uint8", (-(-(size**2) // 8),))}
        )

    def _write_masks(self) -> None:
        entries, size, threshold = self.dataset.entries, self.model.settings.image_size, self.dataset.mask_threshold
        block = 64  # bounds how many wait in memory
        with self.masks.written() as writer, ThreadPoolExecutor() as pool:
            for start in range(0, len(entries), block):
                masks = pool.map(lambda entry: read_mask(entry, size, threshold), entries[start : start + block])
                writer.append({"masks": np.stack([np.packbits(mask) for mask in masks])})

    def _encoded(self, batch_size: int, workers: int, ranks: Ranks) -> EncodedBatches:
        """All images in the dataset's order; their masks are not read."""
        dataset = self.dataset
        images = AnomalyDataset(dataset.entries, dataset.preprocess, with_masks=False)
        ordered = BatchSampler(SequentialSampler(range(len(images))), batch_size, drop_last=False)
        return EncodedBatches(self.model, images, ordered, workers, ranks)

    def _description(self, found: bool) -> str:
        layers = len(self.layers)
        image_and_layer = self.features.arrays[self.layers[0]].row_bytes
        return (
            f"feature cache: {len(self.dataset)} images x {layers} {'layer' if layers == 1 else 'layers'} x "
            f"{readable_size(image_and_layer)}, {readable_size(self.features.size)} in all, "
            f"{'found' if found else 'to be written'} in {self.folder}"
        )


def _digest(parts: Sequence[str | None]) -> str:
    return hashlib.sha256("\n".join(part or "-" for part in parts).encode()).hexdigest()

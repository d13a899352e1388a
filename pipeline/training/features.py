"""Where training gets its batches from: from the encoder in every epoch, or from features that it computed once.

The encoder is frozen and images are not augmented, so the features of an image never change. Both sources give the
same batches in the same order, as often as they are iterated over.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.detector import FeatureBatch
from AnomalyCLIP_lib.model import AnomalyCLIP
from dataset import AnomalyDataset, read_mask
from pipeline.distributed import Ranks
from pipeline.read_ahead import in_order, thread_pool, to_device
from pipeline.training.feature_cache import ArrayCache, ArrayType, CacheUnusable, content_digests, readable_size
from utils import counted

CACHE_DTYPES = {"fp32": "float32", "fp16": "float16"}
NO_MASK = "normal"  # in place of a digest: a normal image's mask is all zero


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


class _Batches:
    """Batches of training, shuffled anew whenever they are iterated over."""

    batches: BatchSampler

    def __len__(self) -> int:
        return len(self.batches)

    def order_state(self) -> Tensor:
        """Of the random numbers that decide the order of the next epochs."""
        return self._generator().get_state()

    def restore_order(self, state: Tensor) -> None:
        """Go on with the order of the epochs after one that ended with this state."""
        self._generator().set_state(state)

    def _generator(self) -> torch.Generator:
        sampler = self.batches.sampler
        assert isinstance(sampler, RandomSampler) and isinstance(sampler.generator, torch.Generator)
        return sampler.generator


class EncodedBatches(_Batches):
    """Batches whose images are read and encoded whenever they are iterated over.

    Each of the processes of a run reads and encodes its share. The main one gets all batches; on the others the
    iteration gives nothing, but has to be run through.

    Args:
        dataset: what is trained on.
        batches: positions in it, batch by batch; the same in all processes.
        workers: threads that read images.
    """

    def __init__(
        self,
        model: AnomalyCLIP,
        dataset: AnomalyDataset,
        batches: BatchSampler,
        workers: int,
        ranks: Ranks,
    ):
        self.model, self.dataset, self.batches, self.workers, self.ranks = model, dataset, batches, workers, ranks

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


class CachedBatches(_Batches):
    """Batches from a filled cache; the next one is read while the current one is in use.

    Args:
        cache: of the features and masks of the dataset.
        batches: as for `EncodedBatches`.
        workers: threads that read.
    """

    def __init__(self, cache: "TrainingCache", batches: BatchSampler, workers: int):
        self.cache, self.batches, self.workers = cache, batches, workers

    def __iter__(self) -> Iterator[FeatureBatch]:
        batches = list(self.batches)
        with thread_pool(self.workers) as pool:
            rows = in_order(pool, self.cache.read, (row for rows in batches for row in rows), 2 * len(batches[0]))
            for batch in batches:
                yield self._joined(list(islice(rows, len(batch))))

    def _joined(self, rows: list[tuple[list[Tensor], Tensor, int]]) -> FeatureBatch:
        device = self.cache.model.device
        features, masks, labels = zip(*rows, strict=True)
        image_features, *patch_features = (
            to_device(torch.stack(parts), device).float() for parts in zip(*features, strict=True)
        )
        labels = torch.tensor(labels, device=device)
        return FeatureBatch(image_features, patch_features, to_device(torch.stack(masks), device), labels)


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
    batches: BatchSampler,
    workers: int,
    options: CacheOptions,
    ranks: Ranks,
    report: Callable[[str], object],
) -> EncodedBatches | CachedBatches | None:
    """The batches of training, from the cache if the options and the disk allow it; it is filled first.

    Args:
        dataset: every anomalous entry has a mask.
        report: receives sentences for the user.

    Returns:
        None on processes that are not needed any more: reading from the cache is work for one.

    Raises:
        InputError: an image cannot be read, or the cache is required and cannot be used.
    """
    if options.folder is None:
        return EncodedBatches(model, dataset, batches, workers, ranks)
    cache = TrainingCache(model, dataset, options.folder, CACHE_DTYPES[options.dtype])
    unusable: CacheUnusable | None = None
    chunks: list[list[int]] = []
    if ranks.is_main:
        try:
            chunks = cache.prepare(batches.batch_size, report)
        except CacheUnusable as error:
            unusable = error
    chunks = ranks.broadcast(chunks)
    if chunks:
        images = AnomalyDataset(dataset.entries, dataset.preprocess, with_masks=False)
        encoded = EncodedBatches(model, images, _Chunks(chunks), workers, ranks)
        hidden = None if ranks.is_main else True
        bar = tqdm(encoded, total=len(chunks), desc="encoding", leave=False, disable=hidden)
        for batch, rows in zip(bar, chunks, strict=ranks.is_main):  # the other processes get no batches
            try:
                if unusable is None:
                    cache.write(rows, batch)
            except CacheUnusable as error:  # the other processes go on until everything is encoded
                unusable = error
    usable = ranks.broadcast(unusable is None)
    if usable:
        ranks.finish()  # reading from the cache is work for one: the others need not wait for it
        return CachedBatches(cache, batches, workers) if ranks.is_main else None
    if unusable is not None and options.required:
        raise unusable
    report(f"{unusable} Training goes on without the cache: every epoch encodes all images again.")
    return EncodedBatches(model, dataset, batches, workers, ranks)


class _Chunks(BatchSampler):
    """These batches, in this order."""

    def __init__(self, chunks: Sequence[list[int]]):
        super().__init__(SequentialSampler(range(sum(map(len, chunks)))), 1, drop_last=False)
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class TrainingCache:
    """The features and masks of a dataset."""

    def __init__(self, model: AnomalyCLIP, dataset: AnomalyDataset, folder: Path, dtype: str):
        settings, width = model.settings, model.backbone.config["embed_dim"]
        tokens = 1 + (settings.image_size // model.backbone.patch_size) ** 2
        self.model, self.entries = model, dataset.entries
        self.threshold: Literal["auto"] | int = dataset.mask_threshold
        self.root, self.size = folder, settings.image_size
        self.layers = [f"patch_features_{layer}" for layer in settings.features_list]
        key = {
            "weights": model.provenance.fingerprint,
            "architecture": model.backbone.config,  # equal weights can belong to GELU and QuickGELU
            "image_size": settings.image_size,
            "layers": list(settings.features_list),
            "dpam": settings.dpam,
            "dpam_members": list(settings.dpam_members),
            "dpam_layer": settings.dpam_layer,
            "precision": settings.precision,
            "dtype": dtype,
        }
        arrays = {"image_features": ArrayType(dtype, (width,))}
        arrays |= {name: ArrayType(dtype, (tokens, width)) for name in self.layers}
        self.features = ArrayCache(folder, "features", key, arrays)
        mask_key = {"image_size": self.size, "mask_threshold": self.threshold}
        self.masks = ArrayCache(folder, "masks", mask_key, {"mask": ArrayType("uint8", (-(-(self.size**2) // 8),))})

    def prepare(self, batch_size: int, report: Callable[[str], object]) -> list[list[int]]:
        """Write the masks that are missing, and find the images whose features are.

        Returns:
            their positions in batches to encode. These are batches of the whole dataset, equal images once, so that
            the same images are always encoded together, whatever a killed run has left: it decides the last bits.

        Raises:
            CacheUnusable: there is no room, or the folder cannot be written to.
        """
        self.images = content_digests([entry.image_path for entry in self.entries])
        missing = set(self.features.missing(self.images))
        first = {digest: position for position, digest in reversed(list(enumerate(self.images)))}
        positions = sorted(first.values())
        total = readable_size(len(first) * self.features.file_size)
        report(
            f"feature cache: {counted(len(self.entries), 'image')} x {counted(len(self.layers), 'layer')} x "
            f"{readable_size(self.features.arrays[self.layers[0]].size)}, {total} in all, "
            f"{f'{len(missing)} to be written' if missing else 'found'} in {self.root}"
        )
        self.features.make_room(len(missing))
        self._write_masks()
        chunks = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
        return [chunk for chunk in chunks if any(self.images[position] in missing for position in chunk)]

    def write(self, positions: Sequence[int], batch: FeatureBatch) -> None:
        """Keep what the encoder gave for the images at these positions.

        Raises:
            CacheUnusable: the disk is full.
        """
        columns = [tensor.cpu().numpy() for tensor in (batch.image_features, *batch.patch_features)]
        for position, *row in zip(positions, *columns, strict=True):
            self.features.write(self.images[position], dict(zip(("image_features", *self.layers), row, strict=True)))

    def read(self, position: int) -> tuple[list[Tensor], Tensor, int]:
        """Image and patch features, the mask (S, S), and the label of one image."""
        features = self.features.read(self.images[position])
        pixels, digest = self.size**2, self.mask_digests[position]
        mask = np.zeros(pixels, np.uint8)
        if digest != NO_MASK:
            mask = np.unpackbits(self.masks.read(digest)["mask"], count=pixels)
        return (
            [torch.from_numpy(features[name]) for name in ("image_features", *self.layers)],
            torch.from_numpy(mask).unflatten(0, (self.size, self.size)),
            self.entries[position].anomaly,
        )

    def _write_masks(self) -> None:
        with_mask = [entry for entry in self.entries if entry.anomaly]
        digests = iter(content_digests([entry.mask_path for entry in with_mask if entry.mask_path is not None]))
        self.mask_digests = [next(digests) if entry.anomaly else NO_MASK for entry in self.entries]
        owners = dict(zip(self.mask_digests, self.entries, strict=True))
        missing = self.masks.missing([digest for digest in owners if digest != NO_MASK])
        self.masks.make_room(len(missing))

        def write(digest: str) -> None:
            mask = read_mask(owners[digest], self.size, self.threshold)
            self.masks.write(digest, {"mask": np.packbits(mask)})

        with thread_pool(4) as pool:
            for _ in in_order(pool, write, missing, 64):
                pass

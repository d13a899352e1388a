"""The image encoder and training: the plain computation against ours, and the share of the machine's peak."""

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.device import autocast
from AnomalyCLIP_lib.model import AnomalyCLIP, Provenance
from AnomalyCLIP_lib.prompts import PromptLearner
from AnomalyCLIP_lib.settings import resolve_settings
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import random_clip, text_tower
from benchmarks import naive
from benchmarks.table import Row
from benchmarks.timing import measured, pair, seconds
from pipeline.training import learning
from pipeline.training.features import FeatureBatch

CPU = torch.device("cpu")


def random_model(backbone: str, image_size: int | None, seed: int = 0) -> AnomalyCLIP:
    """A model of this architecture with randomly drawn weights and fresh prompts."""
    torch.manual_seed(seed)
    architecture = find_backbone(backbone)
    clip = random_clip(architecture)
    settings, _ = resolve_settings({"image_size": image_size}, None, architecture)
    prompts = PromptLearner(
        text_tower(clip).token_embedding, tokenize, settings.n_ctx, settings.depth, settings.t_n_ctx
    )
    return AnomalyCLIP(clip, architecture, settings, prompts, Provenance("random", None, None)).eval()


def encoder(model: AnomalyCLIP, batch: int, repetitions: int, compiled: bool) -> Iterator[Row]:
    """fp32 and bf16 (autocast) against the plain computation; torch.compile, where asked for, against fp32 without."""
    settings = model.settings
    size = settings.image_size
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    arguments = (images, settings.features_list, settings.dpam, settings.dpam_layer)
    visual_encoder = model.visual_encoder

    def plain() -> Tensor:
        with torch.inference_mode():
            return _joined(naive.encode(visual_encoder.visual, *arguments))

    def ours(encode: Callable[..., Any], precision: str) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad(), autocast(precision, CPU):
                return _joined(encode(*arguments))

        return run

    where = f"{batch} x {size} x {size}"
    yield pair(f"encoder, fp32, {where}", plain, ours(visual_encoder, "fp32"), _largest, repetitions)
    yield _share_of_peak(model, ours(visual_encoder, "fp32"), batch, 10 * repetitions)
    if compiled:
        faster = torch.compile(visual_encoder)
        what = f"encoder, fp32, --compile against ours without it, {where}"
        yield pair(what, ours(visual_encoder, "fp32"), ours(faster, "fp32"), _largest, repetitions)
    yield pair(f"encoder, bf16, {where}", plain, ours(visual_encoder, "bf16"), _largest, 1)


def training_step(model: AnomalyCLIP, batch: int, repetitions: int) -> Row:
    """One step that encodes its images, as every step of an uncached epoch does."""
    size = model.settings.image_size
    generator = torch.Generator().manual_seed(2)
    images, labels = torch.randn(batch, 3, size, size, generator=generator), torch.arange(batch) % 2
    masks = torch.zeros(batch, size, size)
    masks[1::2, size // 4 : size // 2, size // 4 : size // 2] = 1
    optimizer = torch.optim.Adam(model.prompts.parameters(), lr=0.0)  # type: ignore[union-attr]

    def ours() -> float:
        return sum(learning.training_step(model, optimizer, FeatureBatch(*model.encode_image(images), masks, labels)))

    return pair(
        f"training step of {batch}, encoded anew",
        lambda: float(naive.training_step(model, optimizer, images, labels, masks)),
        ours,
        lambda expected, result: abs(expected - result),
        repetitions,
    )


def matmul_peak(tries: int) -> float:
    """FLOP/s of the best of several products of the encoder's own shape."""
    rows, weights, out = torch.randn(1370, 1024), torch.randn(1024, 4096), torch.empty(1370, 4096)
    best = float("inf")
    for _ in range(tries):
        start = time.perf_counter()
        torch.mm(rows, weights, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * 1370 * 1024 * 4096 / best


def encoder_flops(model: AnomalyCLIP) -> float:
    """Multiplications and additions of one image in the products that the encoder does; elementwise work left out."""
    visual = cast(VisionTransformer, model.visual_encoder.visual)
    blocks = visual.transformer.resblocks
    width = visual.conv1.out_channels
    hidden = cast(Any, blocks[0]).mlp.c_fc.out_features
    tokens = 1 + (model.settings.image_size // model.backbone.patch_size) ** 2
    attention = 4 * tokens**2 * width + 2 * tokens * width**2  # both products and out_proj
    block = 6 * tokens * width**2 + attention + 4 * tokens * width * hidden
    last = 4 * tokens * width**2  # keys and values; the class token's own work is negligible
    return (len(blocks) - 1) * block + last + (model.settings.dpam_layer - 1) * attention


def _share_of_peak(model: AnomalyCLIP, run: Callable[[], Tensor], batch: int, tries: int) -> Row:
    times = []
    peaks = []
    for _ in range(2):
        peaks.append(matmul_peak(tries))
        times.append(measured(run)[1].wall)
    reached, peak = batch * encoder_flops(model) / min(times), max(peaks)
    return Row(
        "encoder, fp32: share of the matmul peak",
        f"peak {peak / 1e9:.0f} GFLOP/s",
        f"{reached / 1e9:.0f} GFLOP/s ({seconds(min(times) / batch)} an image)",
        f"{reached / peak:.0%}",
    )


def _joined(encoded: tuple[Tensor, list[Tensor]]) -> Tensor:
    image_features, patch_features = encoded
    features = [image_features, *(layer.flatten(0, 1) for layer in patch_features)]
    return torch.cat([torch.nn.functional.normalize(part.float(), dim=-1) for part in features])


def _largest(expected: Tensor, result: Tensor) -> float:
    return float((expected - result).abs().max())

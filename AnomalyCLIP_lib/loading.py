"""From names and files to a model that is ready to score: the one place where the pieces are put together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from AnomalyCLIP_lib.backbone import DEMO_BACKBONE, DEMO_FOLDER, PAPER_BACKBONE, Backbone, find_backbone
from AnomalyCLIP_lib.baselines import load_baseline
from AnomalyCLIP_lib.checkpoint import Checkpoint, check_width, fill_prompt_learner, find_prompts, read_checkpoint
from AnomalyCLIP_lib.clip_detector import ClipDetector
from AnomalyCLIP_lib.device import resolve_device
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.parts import find_architecture, load_parts
from AnomalyCLIP_lib.prompts import HandwrittenPrompts, PromptLearner
from AnomalyCLIP_lib.settings import ANOMALYCLIP, FIXED
from AnomalyCLIP_lib.tokenizer import tokenize
from AnomalyCLIP_lib.weights import text_tower, weight_file

HANDWRITTEN = "handwritten"


def load(
    backbone: str | None = None,
    pretrained: str | None = None,
    checkpoint: str | Path | None = None,
    *,
    method: str | None = None,
    device: str = "auto",
    cache_dir: str | None = None,
    tested_dataset: str | None = None,
    compile: bool = False,
    **settings: Any,
) -> ClipDetector:
    """Load CLIP, the prompts and the settings.

    Every argument left at None is taken from the checkpoint, else from the backbone.

    Args:
        backbone: the paper's name ("ViT-L/14@336px", the default), an open_clip name, the path of an open_clip
            model-config JSON, or "demo": the small CLIP that comes with this repository.
        pretrained: an open_clip tag (default "openai") or a local weight file: OpenAI's TorchScript .pt, a state
            dict .pt/.pth, or .safetensors.
        checkpoint: a prompt checkpoint (the authors' or ours) or "handwritten"; None: the demo's own prompts for
            the demo backbone, else prompts found in checkpoints/, else none.
        method: "anomalyclip" (default), "clip", "clip-ac", "coop", "winclip" or "vand"; for the others than the first,
            see `baselines.load_baseline`.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        cache_dir: where downloaded weights are kept.
        tested_dataset: `--dataset` name of what will be tested; decides which prompts in checkpoints/ are used.
        compile: run the image encoder through torch.compile: its first batch takes a minute or more.
        settings: any field of `settings.Settings`: image_size, features_list, dpam, sigma, precision, ...

    Raises:
        InputError: anything given does not exist or does not fit.
    """
    if method not in (None, ANOMALYCLIP):
        return load_baseline(
            method, backbone, pretrained, checkpoint, device=device, cache_dir=cache_dir, compile=compile, **settings
        )
    handwritten = checkpoint == HANDWRITTEN
    architecture, saved = _find_parts(backbone, None if handwritten else checkpoint)
    if saved is None and not handwritten:
        path = DEMO_FOLDER / "prompts.pth" if architecture.is_demo else find_prompts(architecture, tested_dataset)
        saved = read_checkpoint(path) if path is not None else None
    kind = HandwrittenPrompts if handwritten else None
    return _build(architecture, pretrained, saved, kind, settings, device, cache_dir, compile).requires_grad_(False)


def load_for_training(
    backbone: str | None = None,
    pretrained: str | None = None,
    init_from: str | Path | None = None,
    *,
    device: str = "auto",
    cache_dir: str | None = None,
    compile: bool = False,
    **settings: Any,
) -> AnomalyCLIP:
    """As `load`, with prompts that learn: freshly drawn ones, or those of the checkpoint `init_from` as a start."""
    if settings.get("method") not in (None, ANOMALYCLIP):
        raise InputError(f"--method {settings['method']} is not what is trained here; use anomalyclip.")
    architecture, saved = _find_parts(backbone, init_from)
    model = _build(architecture, pretrained, saved, PromptLearner, settings, device, cache_dir, compile)
    if not model.texts_learn:
        raise InputError("--prompts fixed with --depth 1 leaves nothing to learn; give --depth 2 or more.")
    return model


def weights_at_hand(backbone: Backbone, pretrained: str | None = None, cache_dir: str | None = None) -> bool:
    """Whether the weights of this backbone load without a network."""
    try:
        return weight_file(backbone, pretrained, cache_dir, download=False).is_file()
    except InputError:
        return False


def backbone_at_hand(
    backbone: str | None, pretrained: str | None, checkpoint: str | Path | None, cache_dir: str | None = None
) -> tuple[str | None, str]:
    """Which backbone to `load`, and why, for a sentence to the user.

    Where nothing was chosen (all None): the paper's (None) if its weights and prompts are on this machine, else the
    demo, so that a first try works without a download.
    """
    if backbone or pretrained or checkpoint:
        return backbone, "as the flags say"
    paper = find_backbone(PAPER_BACKBONE)
    lacking = []
    if not weights_at_hand(paper, cache_dir=cache_dir):
        lacking.append("weights")
    if find_prompts(paper) is None:
        lacking.append("prompts")
    if lacking:
        return DEMO_BACKBONE, f"the {' and '.join(lacking)} of {PAPER_BACKBONE} are not on this machine"
    return None, f"the weights and prompts of {PAPER_BACKBONE} are on this machine"


def _find_parts(backbone: str | None, checkpoint: str | Path | None) -> tuple[Backbone, Checkpoint | None]:
    saved = read_checkpoint(checkpoint) if checkpoint is not None else None
    architecture = find_architecture(backbone, saved)
    if saved is not None:
        check_width(saved, architecture)
    return architecture, saved


def _build(
    architecture: Backbone,
    pretrained: str | None,
    saved: Checkpoint | None,
    kind: type[PromptLearner] | type[HandwrittenPrompts] | None,
    typed: Mapping[str, Any],
    device: str,
    cache_dir: str | None,
    compile: bool,
) -> AnomalyCLIP:
    """Put the model together; `kind` of prompts: None takes learned ones where a checkpoint holds them."""
    parts = load_parts(architecture, pretrained, saved, typed, device, cache_dir)
    token_embedding, settings = text_tower(parts.clip).token_embedding, parts.settings
    prompts = None
    if kind is HandwrittenPrompts:
        prompts = HandwrittenPrompts(token_embedding, tokenize)
    elif saved is not None or kind is PromptLearner:
        prompts = PromptLearner(
            token_embedding,
            tokenize,
            settings.n_ctx,
            settings.depth,
            settings.t_n_ctx,
            abnormal_word=settings.abnormal_word,
            shared_context=settings.shared_context,
            fixed=settings.prompts == FIXED,
        )
        if saved is not None:
            other_words = typed.get("abnormal_word") is not None
            fill_prompt_learner(prompts, saved, token_embedding, architecture, other_words)
    model = AnomalyCLIP(parts.clip, architecture, settings, prompts, parts.provenance).to(resolve_device(device)).eval()
    if compile:
        model.compile_encoder()
    return model

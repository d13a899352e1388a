"""Checkpoints of what was learned: reading the authors' files and ours, writing ours."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from AnomalyCLIP_lib.backbone import CHECKPOINTS, OPENAI_NAMES, PAPER_BACKBONE, Backbone
from AnomalyCLIP_lib.decisions import check_stored
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from AnomalyCLIP_lib.prompts import PromptLearner
from AnomalyCLIP_lib.settings import ANOMALYCLIP, Settings, check_types

FORMAT_VERSION = 1
ENTRIES = {ANOMALYCLIP: "prompt_learner", "coop": "context", "vand": "trainable_linearlayer"}
"""Of the methods that learn: under which key their tensors are."""
UNUSED_TENSORS = "compound_prompt_projections"  # in released files; no computation reads them
# The authors named their folders after the dataset tested: the first is trained on VisA, the second on MVTec AD.
TRAINED_ON_FOLDERS = {
    "visa": ("trained_on_visa", "9_12_4_multiscale"),
    "mvtec": ("trained_on_mvtec", "9_12_4_multiscale_visa"),
}
_DEEP_TOKEN = re.compile(r"compound_prompts_text\.(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file, checked for shape and finite values.

    Attributes:
        path: where it was read from.
        tensors: of prompts ctx_pos, ctx_neg and compound_prompts_text.{i}, the buffers too, where the file has them.
        settings: ours beside them; empty for a file of the authors, but for the prompt sizes.
        epoch: after which they were saved; None where the file does not say.
    """

    path: Path
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    epoch: int | None = None

    @property
    def notices(self) -> list[str]:
        """Sentences for the user: that the training went on after these prompts, or would have."""
        epochs = self.settings.get("epochs")
        if not isinstance(epochs, int) or self.epoch is None or self.epoch >= epochs:
            return []
        return [f"the prompts {self.shown_path} are those after epoch {self.epoch} of a training of {epochs}."]

    @property
    def trained_on(self) -> str | None:
        """The training dataset's label; released files say it by the name of their folder alone."""
        folder = self.path.resolve().parent.name
        by_folder = (name for name, folders in TRAINED_ON_FOLDERS.items() if folder in folders)
        return self.settings.get("train_dataset") or next(by_folder, None)

    @property
    def shown_path(self) -> str:
        """For the user: relative to the checkout where it lies in it, as in the README; else as it was given."""
        checkout = CHECKPOINTS.parent
        inside = self.path.is_relative_to(checkout)
        return self.path.relative_to(checkout).as_posix() if inside else str(self.path)

    @property
    def width(self) -> int:
        return self.tensors["ctx_pos"].shape[3]

    def describe(self) -> str:
        """For the user: the file, and what it was trained on where that is known."""
        return self.shown_path + (f", trained on {self.trained_on}" if self.trained_on else "")


def read_checkpoint(path: str | Path, method: str = ANOMALYCLIP) -> Checkpoint:
    """Read a checkpoint of a method that learns; nothing but tensors and plain types is ever unpickled.

    Raises:
        InputError: the file is missing, is no checkpoint, is another method's, lacks keys or holds values that are not
            finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The checkpoint {path} does not exist; check the path.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have error types of their own
        raise InputError(
            f"{path} is not a checkpoint (torch could not read it as tensors and plain values: it may be a "
            "web page saved by mistake, cut short, or hold code); download it again or train one with train.py."
        ) from error
    content = content if isinstance(content, dict) else {}
    state = content.get(ENTRIES[method])
    if not isinstance(state, dict):
        others = [other for other, entry in ENTRIES.items() if entry in content]
        remedy = f"use --method {others[0]}" if others else "give a file written by train.py"
        raise InputError(f"The checkpoint {path} has no '{ENTRIES[method]}' entry, which {method} needs; {remedy}.")
    settings = check_types(content.get("settings", {}), f"the checkpoint {path}")
    for key in ("pretrained", "train_dataset", "train_dataset_hash", "fingerprint"):
        if not isinstance(settings.get(key), str | None):
            raise InputError(f"The entry {key} in the checkpoint {path} is no text; the file is damaged, use another.")
    check_stored(settings, f"the checkpoint {path}")
    tensors = {str(key): value for key, value in state.items() if not str(key).startswith(UNUSED_TENSORS)}
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise InputError(f"The entry {key} of the checkpoint {path} is no tensor; the file is damaged.")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"The checkpoint {path} holds values that are not finite ({key}): training diverged or the file is "
                "damaged; use another checkpoint."
            )
    sizes = _prompt_sizes(tensors, path) if method == ANOMALYCLIP else {}
    epoch = content.get("epoch")
    return Checkpoint(path, tensors, settings | sizes, epoch if isinstance(epoch, int) else None)


def _prompt_sizes(prompts: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """n_ctx, depth, t_n_ctx and shared_context from the tensors, which are right where settings are missing."""
    for key in ("ctx_pos", "ctx_neg"):
        if key not in prompts:
            raise InputError(f"The checkpoint {path} lacks the prompt tensor {key}; give a complete checkpoint.")
    shape = prompts["ctx_pos"].shape
    deep = sorted(int(match[1]) for key in prompts if (match := _DEEP_TOKEN.fullmatch(key)))
    deep_shapes = {tuple(prompts[f"compound_prompts_text.{index}"].shape) for index in deep}
    consistent = (
        len(shape) == 4
        and shape[:2] == (1, 1)
        and prompts["ctx_neg"].shape == shape
        and deep == list(range(len(deep)))
        and all(len(deep_shape) == 2 and deep_shape[1] == shape[3] for deep_shape in deep_shapes)
        and len(deep_shapes) <= 1
    )
    if not consistent:
        raise InputError(f"The prompt tensors in {path} have shapes that do not belong together; the file is damaged.")
    sizes = {"n_ctx": shape[2], "depth": len(deep) + 1}
    sizes["shared_context"] = torch.equal(prompts["ctx_pos"], prompts["ctx_neg"])
    if deep_shapes:
        sizes["t_n_ctx"] = deep_shapes.pop()[0]
    return sizes


def check_width(checkpoint: Checkpoint, backbone: Backbone) -> None:
    """Raise InputError where the prompts belong to a text tower of another width."""
    if checkpoint.width != backbone.text_width:
        raise InputError(
            f"The prompts in {checkpoint.path} are {checkpoint.width} wide, but backbone {backbone.name} has text "
            f"width {backbone.text_width}; choose the --backbone that they were learned on."
        )


def fill_prompt_learner(
    prompt_learner: PromptLearner,
    checkpoint: Checkpoint,
    token_embedding: nn.Embedding,
    backbone: Backbone,
    other_words: bool = False,
) -> None:
    """Copy the checkpoint's tensors into a prompt learner of the same sizes.

    A file that carries token buffers keeps its own words, unless there are to be others; they also show whether the
    prompts were learned on these CLIP weights.

    Raises:
        InputError: the prompts belong to a text tower of another width, or to other weights.
    """
    check_width(checkpoint, backbone)
    state = prompt_learner.state_dict()
    state |= {key: value for key, value in checkpoint.tensors.items() if key in state}
    for key, value in prompt_learner.state_dict().items():
        if state[key].shape != value.shape:
            raise InputError(f"The entry {key} of {checkpoint.path} has a wrong shape; the file is damaged.")
    n_ctx = prompt_learner.ctx_pos.shape[2]
    for sign in ("pos", "neg"):
        tokens = state[f"tokenized_prompts_{sign}"]
        if not (tokens.min() >= 0 and tokens.max() < token_embedding.num_embeddings):
            raise InputError(f"The tokens in {checkpoint.path} are not CLIP's; the file is damaged.")
        expected = token_embedding(state[f"tokenized_prompts_{sign}"].long())  # (1, 1, 77, W)
        stored = {"prefix": expected[:, :, :1], "suffix": expected[:, :, 1 + n_ctx :]}
        # released files went through fp16, hence the tolerance of half a unit in its last place, and a bit
        if not all(
            torch.allclose(state[f"token_{part}_{sign}"].float(), value, rtol=2e-3, atol=1e-5)
            for part, value in stored.items()
        ):
            raise InputError(
                f"The prompts in {checkpoint.path} were learned on other CLIP weights than these of {backbone.name}; "
                "give the matching --backbone and --pretrained."
            )
    if other_words:
        state |= {key: value for key, value in prompt_learner.state_dict().items() if key.startswith("token")}
    prompt_learner.load_state_dict(state)


def write_checkpoint(path: str | Path, learned: nn.Module, settings: Mapping[str, Any], epoch: int) -> None:
    """Write the method's entry, "settings" and "epoch", atomically; equal content gives equal bytes.

    Args:
        path: the file, in a folder that exists.
        learned: the part of the method that was trained, such as a `prompts.PromptLearner`.
        settings: plain types only, from `describe_training`; they name the method.
        epoch: epochs done.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in learned.state_dict().items()}
    buffer = io.BytesIO()  # torch writes the file's own name into the archive; a buffer has none
    torch.save({ENTRIES[settings["method"]]: state, "settings": dict(settings), "epoch": epoch}, buffer)
    with atomic_write(path, durable=True) as temporary:
        temporary.write_bytes(buffer.getvalue())


def describe_training(
    settings: Settings, backbone: Backbone, fingerprint: str, pretrained: str | None, training: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings entry of our checkpoints: plain types, no time, no absolute path.

    Args:
        fingerprint: of the CLIP weights, from `backbone.fingerprint`.
        pretrained: open_clip's tag, where one was given; None for a local file and for the backbone's default.
        training: dataset label and hash, epochs, learning rate, batch size, seed, mask threshold.
    """
    return {
        "format": FORMAT_VERSION,
        "backbone": backbone.to_dict(),
        "pretrained": pretrained,
        "fingerprint": fingerprint,
        **settings.to_dict(),
        **training,
        "versions": {"torch": str(torch.__version__), "open_clip": open_clip.__version__},
    }


def find_prompts(backbone: Backbone, tested_dataset: str | None = None) -> Path | None:
    """The prompts in checkpoints/ for this backbone, those of the last epoch, or None.

    VisA-trained prompts for MVTec AD; MVTec-trained ones for everything else, as in the paper. A single image
    may use either, MVTec-trained first.
    """
    if tested_dataset == "mvtec":
        order = ["visa"]
    elif tested_dataset is None:
        order = ["mvtec", "visa"]
    else:
        order = ["mvtec"]
    for trained_on in order:
        for folder in TRAINED_ON_FOLDERS[trained_on]:
            for _, path in epochs_in(CHECKPOINTS / folder):
                if _fits(path, backbone):
                    return path
    return None


def epochs_in(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a run with their epochs, the last one first."""
    found = [(re.fullmatch(r"epoch_(\d+)", path.stem), path) for path in folder.glob("epoch_*.pth")]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _fits(path: Path, backbone: Backbone) -> bool:
    try:
        saved = read_checkpoint(path).settings
    except InputError:
        return False
    if "backbone" not in saved:  # a released file: always the paper's backbone
        return backbone.name == OPENAI_NAMES[PAPER_BACKBONE]
    return saved["backbone"] == backbone.to_dict()

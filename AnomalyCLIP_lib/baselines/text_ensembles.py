"""The sentences of the methods whose prompts are written by hand: words for normal and abnormal, in templates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from AnomalyCLIP_lib.scoring import normalised

Template = Callable[[str], str]


@dataclass(frozen=True)
class TextEnsemble:
    """What a class is called, and in which sentences.

    Attributes:
        normal, abnormal: formats that take the class name, such as "flawless {}".
        templates: sets of functions from such a word to a sentence, by how many they are.
        normalised: whether each sentence's feature is L2-normalised before the mean is taken.
    """

    normal: Sequence[str]
    abnormal: Sequence[str]
    templates: Mapping[int, Sequence[Template]]
    normalised: bool = True

    @torch.no_grad()
    def encode(self, encode: Callable[[list[str]], Tensor], class_name: str, templates: int) -> Tensor:
        """(2, D), L2-normalised: the mean feature of normal and of abnormal, with the set of so many templates."""
        means = []
        for states in (self.normal, self.abnormal):
            pairs = product(states, self.templates[templates])
            features = encode([template(state.format(class_name)) for state, template in pairs])  # (P, D)
            means.append((normalised(features) if self.normalised else features.float()).mean(dim=0))
        return normalised(torch.stack(means))


def _formats(frames: Sequence[str], words: Sequence[str] = ("",)) -> list[Template]:
    """Every frame with every word for its WORD."""
    return [frame.replace("WORD", word).format for word, frame in product(words, frames)]


_NORMAL = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
_ABNORMAL = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")

_ADJECTIVE_FIRST = ("a WORD photo of a {}.", "a WORD photo of the {}.")
_ADJECTIVE_LAST = ("a photo of a WORD {}.", "a photo of the WORD {}.")
_PLAIN = ("a photo of a {}.", "a photo of the {}.")

_WINCLIP_REST = [
    *_formats(_ADJECTIVE_FIRST, ("close-up", "bright", "dark", "blurry")),
    *_formats(_PLAIN),
    *_formats(_ADJECTIVE_LAST, ("small", "large")),
    *_formats(("a photo of a {} for WORD.", "a photo of the {} for WORD."), ("visual inspection", "anomaly detection")),
]
_WINCLIP_22 = [*_formats(_ADJECTIVE_FIRST, ("cropped", "jpeg corrupted")), *_WINCLIP_REST]
# zqhang's list lacks "a cropped photo of a" and has "a jpeg corrupted photo of the" twice.
_WINCLIP_21 = [*_formats(_ADJECTIVE_FIRST[1:], ("cropped", "jpeg corrupted", "jpeg corrupted")), *_WINCLIP_REST]

_VAND_ADJECTIVES = (
    *("bad", "low resolution", "cropped", "bright", "dark", "close-up"),
    *("black and white", "jpeg corrupted", "blurry", "good"),
)
_VAND_35 = [
    *_formats(_ADJECTIVE_FIRST, _VAND_ADJECTIVES),
    *_formats(_PLAIN),
    *_formats(_ADJECTIVE_LAST, ("large", "small", "cool")),
    *_formats(("a photo of my {}.", "a photo of one {}.", "this is one {} in the scene.")),
    *_formats(("there is WORD {} in the scene.", "this is WORD {} in the scene."), ("a", "the")),
]

CLIP = TextEnsemble(("a normal {}",), ("an anomalous {}",), {1: ["A photo of {}.".format]})
"""The authors' sentences; that they end with a full stop is our reading."""
CLIP_AC = TextEnsemble(("normal {}",), ("anomalous {}",), {80: OPENAI_IMAGENET_TEMPLATES, 7: SIMPLE_IMAGENET_TEMPLATES})
"""That "the templates recommended for ImageNet" are these 80 and not the 7 is our reading."""
WINCLIP = TextEnsemble(_NORMAL, _ABNORMAL, {22: _WINCLIP_22, 21: _WINCLIP_21}, normalised=False)
"""The 22 templates of WinCLIP's paper, or the 21 of the AnomalyCLIP authors' implementation of it."""
VAND = TextEnsemble(_NORMAL, (*_ABNORMAL, "broken {}"), {35: _VAND_35})

ENSEMBLES = {"clip": CLIP, "clip-ac": CLIP_AC, "winclip": WINCLIP, "vand": VAND}

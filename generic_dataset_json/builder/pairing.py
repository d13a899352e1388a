"""Which mask belongs to which image: by name, never by position in a listing."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

from generic_dataset_json.builder.layouts import Found

_ENDING = re.compile(r"[ _-]?(mask|label|gt|ground_?truth|seg|segmentation)$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_Key = tuple[tuple[str, str], ...]


def pair_masks(
    images: Sequence[Found], masks: Sequence[Found], loose: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Find each mask's image.

    Only images that agree with the mask in all names of its pattern but the stem are considered. The stems
    are the same, or the same but for an ending such as "_mask" or for case. Masks of normal images are
    passed over.

    Args:
        images: What may have a mask.
        masks: What is to be paired.
        loose: Whether a stem may also contain the image's as a whole word ("defect_012_v2" is of "012").

    Returns:
        Paths of masks by the path of their image, and one sentence for each mask without a single image.
    """
    groups: dict[_Key, list[Found]] = defaultdict(list)
    for mask in masks:
        groups[_key(mask, mask)].append(mask)
    images_by_key: dict[_Key, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for like in {tuple(mask.fields): mask for mask in masks}.values():  # one for each set of names, mostly one in all
        for image in images:
            images_by_key[_key(image, like)][image.stem.casefold()].append(image)
    pairs: dict[str, str] = {}
    problems = []
    for key, group in groups.items():
        candidates = images_by_key[key]
        for mask in group:
            fitting = _fitting(mask.stem, candidates, loose)
            if fitting and all(image.anomaly == 0 for image in fitting):
                continue  # some datasets carry all-zero masks for normal images
            if not fitting:
                problems.append(f"{mask.path}: a mask without its image")
            elif len(fitting) > 1:
                problems.append(f"{mask.path}: a mask of several images, {', '.join(image.path for image in fitting)}")
            elif fitting[0].path in pairs:
                problems.append(f"{mask.path}: a second mask of {fitting[0].path}, beside {pairs[fitting[0].path]}")
            else:
                pairs[fitting[0].path] = mask.path
    return pairs, problems


def _key(found: Found, like: Found) -> _Key:
    """What must be equal between a mask and its image: the names that `like` has, without its stem."""
    return tuple((name, found.fields.get(name, "").casefold()) for name in sorted(like.fields) if name != "stem")


def _fitting(stem: str, candidates: Mapping[str, list[Found]], loose: bool) -> list[Found]:
    folded = stem.casefold()
    for name in (folded, _ENDING.sub("", folded)):
        if name in candidates:
            images = candidates[name]
            same_case = [image for image in images if stem.startswith(image.stem)]
            return same_case if len(same_case) == 1 else images
    if not loose:
        return []
    words = [match.span() for match in _WORD.finditer(folded)]
    runs = {folded[start:end] for (start, _), (_, end) in combinations_with_replacement(words, 2)}
    names = runs & candidates.keys()
    longest = [name for name in names if not any(name != other and name in other for other in names)]
    return [image for name in sorted(longest) for image in candidates[name]]

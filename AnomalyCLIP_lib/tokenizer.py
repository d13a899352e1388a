"""CLIP's tokenizer, which refuses what does not fit instead of cutting it."""

from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer

from AnomalyCLIP_lib.backbone import CONTEXT_LENGTH
from AnomalyCLIP_lib.errors import InputError


def tokenize(texts: list[str]) -> torch.Tensor:
    """CLIP's token ids (len(texts), 77), int64.

    Raises:
        InputError: a text is too long; it is never cut.
    """
    for text in texts:
        count = len(_tokenizer().encode(text)) + 2
        if count > CONTEXT_LENGTH:
            raise InputError(
                f"The text '{text}' has {count} tokens, and CLIP reads {CONTEXT_LENGTH}; shorten the words of "
                "--class_name or --abnormal_word."
            )
    return _tokenizer()(texts)


@cache
def _tokenizer() -> SimpleTokenizer:
    """Reading the vocabulary takes a second, so this is done once, and only where text is tokenised."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)

"""CLIP's tokenizer, which refuses what does not fit instead of cutting it."""

from functools import cache

import torch
from open_clip.tokenizer import SimpleTokenizer

from AnomalyCLIP_lib.backbone import CONTEXT_LENGTH


def tokenize(texts: list[str]) -> torch.Tensor:
    """CLIP's token ids (len(texts), 77), int64. Raises ValueError where a text is too long rather than cut it."""
    longest = max(len(_tokenizer().encode(text)) for text in texts) + 2
    if longest > CONTEXT_LENGTH:
        raise ValueError(f"a prompt has {longest} tokens, but CLIP reads {CONTEXT_LENGTH}")
    return _tokenizer()(texts)


@cache
def _tokenizer() -> SimpleTokenizer:
    """Reading the vocabulary takes a second, so this is done once, and only where text is tokenised."""
    return SimpleTokenizer(context_length=CONTEXT_LENGTH)

"""The text tower with deep tokens: learnable tokens that replace part of the input of later blocks (paper, 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from AnomalyCLIP_lib.weights import Clip, text_tower


class TextEncoder(nn.Module):
    """Runs CLIP's frozen text tower on prompts that are given as embeddings.

    Args:
        clip: a CLIP with text width W and output width D.
    """

    attn_mask: Tensor

    def __init__(self, clip: Clip):
        super().__init__()
        tower = text_tower(clip)
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.positional_embedding = tower.positional_embedding
        self.text_projection = tower.text_projection
        self.register_buffer("attn_mask", tower.attn_mask, persistent=False)

    def forward(self, prompts: Tensor, tokens: Tensor, deep_tokens: Sequence[Tensor] = ()) -> Tensor:
        """Encode P prompts.

        Args:
            prompts: (P, 77, W) token embeddings, without positional embedding.
            tokens: (P, 77) token ids; the largest is the end-of-text token, where the feature is read.
            deep_tokens: entry i, (T, W), replaces positions 1..T of the input of block i + 2 in every prompt.

        Returns:
            (P, D), not normalised.
        """
        end = tokens.argmax(dim=-1)  # (P,)
        # Under a causal mask nothing behind the end-of-text token can reach the feature: leave it out.
        length = int(end.max()) + 1
        x = prompts[:, :length] + self.positional_embedding[:length]
        mask = self.attn_mask[:length, :length]
        for index, block in enumerate(self.transformer.resblocks):
            if 1 <= index <= len(deep_tokens):
                deep = deep_tokens[index - 1].expand(x.shape[0], -1, -1)  # (P, T, W)
                x = torch.cat([x[:, :1], deep, x[:, 1 + deep.shape[1] :]], dim=1)
            x = block(x, attn_mask=mask)
        x = self.ln_final(x)
        return x[torch.arange(x.shape[0], device=x.device), end] @ self.text_projection

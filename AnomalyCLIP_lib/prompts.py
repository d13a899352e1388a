"""The prompts (paper, 3.2): learnable words before "object" and "damaged object", and deep text tokens."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from AnomalyCLIP_lib.settings import FIXED_CONTEXT

NORMAL, ABNORMAL = 0, 1  # the order of prompts, text features and probabilities everywhere
HANDWRITTEN = ("a photo of a object.", "a photo of a damaged object.")
INITIAL_STANDARD_DEVIATION = 0.02

Tokenizer = Callable[[list[str]], Tensor]


class Prompts(NamedTuple):
    """What the text encoder reads.

    Attributes:
        embeddings: (2, 77, W) token embeddings; row 0 normal, row 1 abnormal.
        tokens: (2, 77) int64 token ids.
        deep_tokens: depth - 1 tensors (T, W).
    """

    embeddings: Tensor
    tokens: Tensor
    deep_tokens: list[Tensor]


class PromptLearner(nn.Module):
    """The only part of AnomalyCLIP that learns.

    The normal prompt is `[SOT][V1]...[VE] object . [EOT]`, the abnormal one `[SOT][W1]...[WE] damaged object . [EOT]`.
    Names and shapes of parameters and buffers are those of the authors' released files.

    Args:
        token_embedding: CLIP's token embedding, (vocabulary, W).
        tokenize: list of P texts -> (P, 77) token ids.
        n_ctx: E, the learnable words per prompt.
        depth: text blocks 2..depth receive deep tokens; 1 means none.
        t_n_ctx: T, the deep tokens per block.
        abnormal_word: in place of "damaged".
        shared_context: W = V, one parameter.
        fixed: V = W = "a photo of a" (E = 4), which does not learn.
    """

    description = "newly drawn prompts"
    token_prefix_pos: Tensor
    token_prefix_neg: Tensor
    token_suffix_pos: Tensor
    token_suffix_neg: Tensor
    tokenized_prompts_pos: Tensor
    tokenized_prompts_neg: Tensor

    def __init__(
        self,
        token_embedding: nn.Embedding,
        tokenize: Tokenizer,
        n_ctx: int,
        depth: int,
        t_n_ctx: int,
        *,
        abnormal_word: str = "damaged",
        shared_context: bool = False,
        fixed: bool = False,
    ):
        super().__init__()
        width = token_embedding.embedding_dim
        self.abnormal_word = abnormal_word
        self.ctx_pos = nn.Parameter(INITIAL_STANDARD_DEVIATION * torch.randn(1, 1, n_ctx, width))
        self.ctx_neg = self.ctx_pos
        if not shared_context:
            self.ctx_neg = nn.Parameter(INITIAL_STANDARD_DEVIATION * torch.randn(1, 1, n_ctx, width))
        if fixed:
            words = token_embedding(tokenize([" ".join(FIXED_CONTEXT)]))[:, 1 : 1 + n_ctx].detach()  # (1, E, W)
            for context in (self.ctx_pos, self.ctx_neg):
                context.requires_grad_(False).copy_(words)
        self.compound_prompts_text = nn.ParameterList(
            INITIAL_STANDARD_DEVIATION * torch.randn(t_n_ctx, width) for _ in range(depth - 1)
        )
        for sign, text in zip(("pos", "neg"), self.sentences("object"), strict=True):
            tokens = tokenize([text])  # (1, 77)
            with torch.no_grad():
                embedding = token_embedding(tokens)[None]  # (1, 1, 77, W)
            self.register_buffer(f"token_prefix_{sign}", embedding[:, :, :1].clone())
            self.register_buffer(f"token_suffix_{sign}", embedding[:, :, 1 + n_ctx :].clone())
            self.register_buffer(f"tokenized_prompts_{sign}", tokens[None].int())

    def sentences(self, name: str) -> tuple[str, str]:
        """The prompts about `name`; X's hold the places of the learnable words, and their embeddings are never used."""
        words = " ".join(["X"] * self.ctx_pos.shape[2])
        return f"{words} {name}.", f"{words} {self.abnormal_word} {name}."

    def insert(self, embeddings: Tensor, tokens: Tensor) -> Prompts:
        """The `sentences` of C names, one after the other, with the learnable words: (2 C, 77, W) and (2 C, 77)."""
        context = torch.cat([self.ctx_pos, self.ctx_neg])[:, 0].repeat(len(tokens) // 2, 1, 1)  # (2 C, E, W)
        return Prompts(insert_context(embeddings, context), tokens, list(self.compound_prompts_text))

    def forward(self) -> Prompts:
        """The two prompts about "object" as embeddings, with gradients to the learnable words and deep tokens."""
        normal = torch.cat([self.token_prefix_pos, self.ctx_pos, self.token_suffix_pos], dim=2)
        abnormal = torch.cat([self.token_prefix_neg, self.ctx_neg, self.token_suffix_neg], dim=2)
        tokens = torch.cat([self.tokenized_prompts_pos, self.tokenized_prompts_neg]).flatten(0, 1)
        return Prompts(torch.cat([normal, abnormal]).flatten(0, 1), tokens.long(), list(self.compound_prompts_text))


def insert_context(embeddings: Tensor, context: Tensor) -> Tensor:
    """Embeddings (P, 77, W) of sentences that begin with E X's, with those replaced by (P, E, W)."""
    return torch.cat([embeddings[:, :1], context, embeddings[:, 1 + context.shape[1] :]], dim=1)


class HandwrittenPrompts(nn.Module):
    """Two plain sentences in place of learned prompts: the zero-shot CLIP baseline on the same encoder.

    Args:
        token_embedding: CLIP's token embedding, (vocabulary, W).
        tokenize: list of P texts -> (P, 77) token ids.
    """

    description = "handwritten prompts"
    embeddings: Tensor
    tokens: Tensor

    def __init__(self, token_embedding: nn.Embedding, tokenize: Tokenizer):
        super().__init__()
        tokens = tokenize(list(HANDWRITTEN))  # (2, 77)
        with torch.no_grad():
            embeddings = token_embedding(tokens)
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.register_buffer("tokens", tokens, persistent=False)

    def forward(self) -> Prompts:
        return Prompts(self.embeddings, self.tokens, [])

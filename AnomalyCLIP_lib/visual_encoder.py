"""The image tower with DPAM: the ordinary CLIP path and, beside it, a local path with v-v attention (paper, 3.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

QUICK = 1.702  # QuickGELU's factor
BILINEAR: Mapping[str, Any] = {"mode": "bilinear"}


class VisualEncoder(nn.Module):
    """Runs open_clip's VisionTransformer block by block on its own, unchanged weights.

    Args:
        visual: an image tower with L blocks, width C and output width D.
        resizing: of the positional embedding to another patch grid, arguments of `F.interpolate`.
    """

    def __init__(self, visual: VisionTransformer, resizing: Mapping[str, Any] = BILINEAR):
        super().__init__()
        self.visual: VisionTransformer = visual
        self.resizing = resizing

    def forward(
        self,
        images: Tensor,
        features_list: Sequence[int],
        dpam: str = "vv",
        dpam_layer: int = 1,
        members: Sequence[str] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode images; nothing is normalised yet.

        Args:
            images: (B, 3, S, S), normalised as by `preprocessing.Preprocess`; S a multiple of the patch size.
            features_list: 1-based block numbers after which the patch features are taken.
            dpam: "vv", "qq", "kk" or "qk": what attends to what on the local path; "none": there is no local path;
                "ensemble": a local path for each of the members, beside one another.
            dpam_layer: n gives the last n - 1 blocks a local path; 1 gives it to none.
            members: attentions of the ensemble.

        Returns:
            image features (B, D): the class token after the last block, projected **without** ln_post, which is
                what the released prompts were learned with;
            patch features, per entry of `features_list`: (B, 1 + N, D), class token first, ln_post and projected; of an
                ensemble (M, B, 1 + N, D), its M members one after the other.
        """
        attentions = {"none": (), "ensemble": members}.get(dpam, (dpam,))
        class_token, tokens = self.run_blocks(self.embed(images), features_list, attentions, dpam_layer)
        assert self.visual.proj is not None  # only open_clip's pruning takes it away
        features = [self.project(layer) for layer in tokens]
        return class_token @ self.visual.proj, features if dpam == "ensemble" else [layer[0] for layer in features]

    def run_blocks(
        self, x: Tensor, features_list: Sequence[int], attentions: Sequence[str] = (), dpam_layer: int = 1
    ) -> tuple[Tensor, list[Tensor]]:
        """The tokens as the blocks leave them.

        Args:
            x: (B, 1 + N, C), from `embed`, or the class token with some of the patches.
            features_list, dpam_layer: as for `forward`.
            attentions: of the local paths.

        Returns:
            the class token after the last block, (B, C), and per entry of `features_list` (M, B, 1 + N, C): of the
            local paths, or of the global one where there are none (M = 1).
        """
        blocks = self.visual.transformer.resblocks
        local_from = len(blocks) + 2 - dpam_layer if attentions else len(blocks) + 1
        last_wanted = max(features_list, default=0)

        local: list[Tensor] = []
        taken: dict[int, Tensor] = {}
        for number, block in enumerate(blocks, start=1):
            has_local = local_from <= number <= last_wanted
            # Behind the last block the global path's patch tokens are read only where they are the features.
            class_only = number == len(blocks) and (has_local or number > last_wanted)
            x_in = x
            x, updates = _block(block, x, attentions if has_local else (), class_only)
            if has_local:
                local = [path + update for path, update in zip(local or [x_in] * len(updates), updates, strict=True)]
            if number in features_list:
                taken[number] = torch.stack(local or [x])
        return x[:, 0], [taken[number] for number in features_list]

    def project(self, tokens: Tensor) -> Tensor:
        """ln_post and the projection, as CLIP does with its class token: (..., C) -> (..., D)."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) as what the first block reads: (B, 1 + N, C) float32, class token first."""
        visual = self.visual
        x = visual.conv1(images)  # (B, C, G, G)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        class_token = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1) + self._positional_embedding(grid).to(x.dtype)
        # The residual stream stays float32 under autocast: rounding it in every block multiplies the error of scores.
        return visual.ln_pre(x).float()

    def _positional_embedding(self, grid: tuple[int, int]) -> Tensor:
        """(1 + N, C) for this patch grid; the stored parameter stays as it is."""
        stored = self.visual.positional_embedding
        pretrained_grid = self.visual.grid_size
        if grid == pretrained_grid:
            return stored
        patches = stored[1:].reshape(1, *pretrained_grid, -1).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, size=grid, align_corners=False, **self.resizing)
        return torch.cat([stored[:1], patches[0].flatten(1).transpose(0, 1)])


def _block(block: Any, x: Tensor, attentions: Sequence[str], class_only: bool) -> tuple[Tensor, list[Tensor]]:
    """One residual block.

    Args:
        x: (B, 1 + N, C).
        class_only: the global path is wanted for the class token alone.

    Returns:
        the global path's output, (B, 1 + N, C) or (B, 1, C), and per local path (B, 1 + N, C) what it adds.
    """
    all_queries = any("q" in attention for attention in attentions)
    q, k, v = _queries_keys_values(block.attn, block.ln_1(x), class_only and not all_queries)
    pairs = {"vv": (v, v), "qq": (q, q), "kk": (k, k), "qk": (q, k)}
    updates = [block.ls_1(_attend(block.attn, *pairs[attention], v)) for attention in attentions]
    if class_only:
        x, q = x[:, :1], q[:, :, :1]
    x = x + block.ls_1(_attend(block.attn, q, k, v))
    return x + block.ls_2(_mlp(block.mlp, block.ln_2(x))), updates


def _queries_keys_values(attention: Any, x: Tensor, class_query: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Each (B, heads, 1 + N, C / heads); with `class_query` the class token's query alone, (B, heads, 1, C / heads)."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if not class_query:
        q, k, v = _heads(attention, F.linear(x, weight, bias))
        return q, k, v
    width = x.shape[-1]
    (q,) = _heads(attention, F.linear(x[:, :1], weight[:width], bias[:width]))
    k, v = _heads(attention, F.linear(x, weight[width:], bias[width:]))
    return q, k, v


def _heads(attention: Any, joined: Tensor) -> tuple[Tensor, ...]:
    """(B, T, P C) with P projections -> P views (B, heads, T, C / heads)."""
    return joined.unflatten(2, (-1, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4).unbind()


def _attend(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """out_proj(softmax(q kᵀ / √d) v), heads joined again: (B, T, C)."""
    joined = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return attention.out_proj(joined)


def _mlp(mlp: Any, x: Tensor) -> Tensor:
    """`mlp(x)`, for QuickGELU, x sigmoid(1.702 x), with one pass over the widest tensor instead of three.

    It equals silu(1.702 x) / 1.702, and both factors cost nothing inside the matrix products.
    """
    if not isinstance(mlp.gelu, QuickGELU):
        return mlp(x)
    hidden = torch.addmm(mlp.c_fc.bias, x.flatten(0, 1), mlp.c_fc.weight.T, beta=QUICK, alpha=QUICK)
    hidden = F.silu(hidden, inplace=not torch.is_grad_enabled())
    return torch.addmm(mlp.c_proj.bias, hidden, mlp.c_proj.weight.T, alpha=1 / QUICK).view_as(x)

"""Attention: between two maps that are fused, and between all positions of one map."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from nasseg.ops.base import Op, OutChannelsOp
from nasseg.ops.conv import Conv, conv1x1, conv_layer


class AttentionFusion(Op):
    """α · deeper + (1 - α) · lateral, with a weight α that attention computes from both maps.

    The deeper map, upsampled, and the lateral one, (N, C, H, W) each → (N, C, H, W). Unified attention fusion module of
    PP-LiteSeg (arXiv 2204.02681, §3.3): α is (N, 1, H, W) from mean and maximum over the channels, or (N, C, 1, 1) from
    mean and maximum over the pixels. Both have two convolutions, as in the authors' code.
    """

    op: Literal["attention_fusion"] = "attention_fusion"
    arity: ClassVar[tuple[int, int | None]] = (2, 2)
    attention: Literal["spatial", "channel"] = "spatial"

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the channels, which both inputs must have."""
        deeper, lateral = in_channels
        if deeper != lateral:
            raise ValueError(f"inputs have {deeper}, {lateral} channels, but must have equal numbers")
        return deeper

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build the attention and the weighted sum."""
        return _AttentionFusion(self, in_channels[0])


class _AttentionFusion(nn.Module):
    def __init__(self, op: AttentionFusion, channels: int) -> None:
        super().__init__()
        spatial = op.attention == "spatial"
        self.over = (1,) if spatial else (2, 3)
        kernel, given, hidden, out = (3, 4, 2, 1) if spatial else (1, 4 * channels, max(channels // 2, 1), channels)
        self.attention = nn.Sequential(
            Conv(out_channels=hidden, kernel=kernel).build([given]),
            Conv(out_channels=out, kernel=kernel, activation="sigmoid").build([hidden]),
        )

    def forward(self, deeper: Tensor, lateral: Tensor) -> Tensor:
        pooled = [pool(self.over, keepdim=True) for x in (deeper, lateral) for pool in (x.mean, x.amax)]
        weight = self.attention(torch.cat(pooled, dim=1))
        return lateral + weight * (deeper - lateral)  # type: ignore[no-any-return]


class SelfAttention(OutChannelsOp):
    """1×1 convolution, positions from a depthwise 3×3 convolution, then attention between all positions; both added.

    (N, C, H, W) → (N, out_channels, H, W). Multi-head attention: Vaswani et al. (arXiv 1706.03762, §3.2), with layer
    normalisation before it (arXiv 2002.04745). The positional encoding is conditional (arXiv 2102.10882, §3.3), so that
    any size works. Cost and, without a fused kernel, memory grow with (H · W)²: for maps at stride 16 or 32.
    """

    op: Literal["self_attention"] = "self_attention"
    heads: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _heads_divide(self) -> "SelfAttention":
        if self.out_channels % self.heads:
            raise ValueError(f"heads is {self.heads}, but must divide out_channels {self.out_channels}")
        return self

    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build projection, positional encoding and attention."""
        return _SelfAttention(self, in_channels[0])


class _SelfAttention(nn.Module):
    def __init__(self, op: SelfAttention, in_channels: int) -> None:
        super().__init__()
        channels, self.heads = op.out_channels, op.heads
        self.project = conv1x1(channels).build([in_channels])
        self.position = conv_layer(channels, channels, 3, groups=channels, bias=True)
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = conv_layer(channels, 3 * channels, 1, bias=True)
        self.out = conv_layer(channels, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        x = x + self.position(x)
        return x + self.out(self._attend(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W), the heads side by side."""
        batch, channels, height, width = x.shape
        heads = self.query_key_value(x).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = heads.transpose(3, 4).unbind(dim=1)
        attended = F.scaled_dot_product_attention(query, key, value)
        return attended.transpose(2, 3).reshape(batch, channels, height, width)

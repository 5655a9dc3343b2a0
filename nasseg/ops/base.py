"""The base of all operators: a frozen, validated, serialisable value that can build its PyTorch module."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import nn

from nasseg.foreign import MAX_CHANNELS, MAX_STEP


class Op(BaseModel, ABC):
    """An operator as data: equal ops with equal weights compute the same function.

    A subclass is a frozen pydantic model whose field `op` is a literal that names its kind in files. Its docstring
    gives shapes and the source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """Fewest and most inputs; `None` means any number."""
    order_free: ClassVar[bool] = False
    """Whether the inputs' order leaves the result unchanged, which the hash of a graph then ignores too."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after networks had been hashed without them; their defaults must stay what they are."""

    @abstractmethod
    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return the output channels for the inputs' channels; raises `ValueError` if they do not fit."""

    @abstractmethod
    def build(self, in_channels: Sequence[int]) -> nn.Module:
        """Build a fresh module whose forward takes one (N, C_i, H_i, W_i) tensor per input and returns one tensor."""

    def check(self, in_channels: Sequence[int]) -> int:
        """Check the number of inputs, then return the output channels."""
        low, high = self.arity
        if len(in_channels) < low or (high is not None and len(in_channels) > high):
            wanted = str(low) if low == high else f"at least {low}" if high is None else f"{low} to {high}"
            raise ValueError(f"{self.op} has {len(in_channels)} inputs, but must have {wanted}")
        channels = self.out_channels_of(in_channels)
        if channels > MAX_CHANNELS:
            raise ValueError(f"{self.op} has {channels:,} output channels, but must have at most {MAX_CHANNELS:,}")
        return channels

    def parameters(self, in_channels: Sequence[int]) -> int:
        """Count the parameters of its module, for which nothing is allocated."""
        return _parameters(self, tuple(in_channels))

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the JSON form: every field, so that changing a default later cannot change what a file means."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, JsonValue]:
        """The JSON form that hashes are made of: without the `later` fields that have their default."""
        defaults = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in self.to_dict().items() if name not in defaults}

    def __str__(self) -> str:
        set_fields = self.model_dump(mode="json", exclude_defaults=True)
        fields = ", ".join(f"{k}={_short(v)}" for k, v in set_fields.items())
        return f"{self.op}({fields})"


@lru_cache(maxsize=4096)
def _parameters(op: Op, in_channels: tuple[int, ...]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in op.build(in_channels).parameters())


Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Step = Annotated[int, Field(ge=1, le=MAX_STEP)]
"""Pixels from one to the next: a stride, or an atrous rate along an axis."""


class OutChannelsOp(Op):
    """An operator whose output channels are a field of its own."""

    out_channels: Channels

    def out_channels_of(self, in_channels: Sequence[int]) -> int:
        """Return `out_channels`."""
        return self.out_channels


def _short(value: object) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)


Pair = tuple[int, int]


def as_pair(value: object) -> object:
    """Let a field typed as (h, w) be given as one number for both."""
    return (value, value) if isinstance(value, int) else value

"""The options of the space: the numbers of layers, blocks and filters of its networks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nasseg.ops.base import Channels


class Dimensions(BaseModel):
    """Cells of `blocks` blocks along a path of `layers` layers.

    A layer at stride s has blocks · filters · s / 4 filters. The stem has `stem_filters` at stride 2 and twice as many
    at stride 4; if `filters` are few, the paper's 64 take more time than all the cells. `decoder` adds dense ASPP and
    DeepLabV3+'s dense decoder; without it the head is that of the paper's search (§3.2). Convolutions of either head
    have `head_filters`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Annotated[int, Field(ge=1, le=24)] = 12
    blocks: Annotated[int, Field(ge=1, le=8)] = 5
    filters: Channels = 8
    stem_filters: Channels = 64
    decoder: bool = True
    head_filters: Channels = 256

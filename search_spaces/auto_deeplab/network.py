"""Building the network of a point: stem, the cell's copies along the path, and a head (arXiv 1901.02985, §3 and §5.2).

If the paper leaves a choice, the reference implementation is followed: a layer that goes down works at the finer
resolution and its operators on earlier layers have stride 2; one that goes up has its input resized first.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from baselines.backbones import Features
from baselines.heads import aspp, classifier, decoder
from nasseg.graph import Architecture, Builder
from nasseg.ops import Activation, Add, Concat, Conv, Resize, atrous3x3, conv1x1, image_pool
from search_spaces.auto_deeplab.choice import BEFORE_PREVIOUS, PREVIOUS, Backbone, Block, Edge
from search_spaces.auto_deeplab.dimensions import Dimensions
from search_spaces.auto_deeplab.operators import match_channels, operator


def segmenter(name: str, choice: Backbone, classes: int, dimensions: Dimensions) -> Architecture:
    """Build the network of `choice`, with dense ASPP and DeepLabV3+'s dense decoder (§5.2) or the search's head."""
    g = Builder(name)
    image = g.input()
    features = backbone(g, image, choice, dimensions.filters, dimensions.stem_filters)
    level, head_filters = choice.levels[-1], dimensions.head_filters
    if dimensions.decoder:
        x = aspp(g, features.output, 4 << level, channels=head_filters, separable=False)
        x = decoder(g, x, features.low_level, channels=head_filters, separable=False)
    else:
        x = search_head(g, features.output, level, head_filters)
    return g.build(classifier(g, x, image, classes))


def search_head(g: Builder, features: str, level: int, head_filters: int) -> str:
    """Add the head of the search (§3.2): 1×1, one atrous 3×3 and image pooling; concat and project.

    (N, C, H, W) → (N, head_filters, H, W), in the stage `cell`. The atrous rate is 96 / stride, that is, 96 pixels.
    """
    with g.scope("cell"):
        branches = [
            g.add("conv1x1", conv1x1(head_filters), features),
            g.add("atrous", atrous3x3(head_filters, 24 >> level), features),
            g.add("image_pool", image_pool(head_filters), features),
        ]
        return g.add("projection", conv1x1(head_filters), g.add("concat", Concat(), *branches))


def backbone(g: Builder, image: str, choice: Backbone, filters: int, stem_filters: int) -> Features:
    """Add stem and layers: (N, 3, H, W) → (N, B · filters · 2^level, H / stride, W / stride), in the stage `backbone`.

    Low-level features are the last map at stride 4 before the path first leaves it.
    """
    with g.scope("backbone"):
        layers = _Layers(choice, filters, g, stem(g, image, stem_filters))
        output = g.add("activation", Activation(), layers.output(len(choice.levels)))
    taps = {4: layers.low_level, 4 << choice.levels[-1]: output}
    return Features(output=output, low_level=layers.low_level, taps=taps)


def stem(g: Builder, image: str, filters: int) -> tuple[str, str]:
    """Add three 3×3 convolutions: (N, 3, H, W) → maps of `filters` channels at stride 2, and twice that at stride 4."""
    with g.scope("stem"):
        x = g.add("conv0", Conv(out_channels=filters, stride=2), image)
        x = g.add("conv1", Conv(out_channels=filters), x)
        return x, g.add("conv2", Conv(out_channels=2 * filters, stride=2), x)


class _Layers:
    """The layers, each added on first use, so that those skipped by a cell that does not read H^{l-1} are not built.

    Layers are numbered from 1; 0 and −1 are the stem's maps at stride 4 and 2.
    """

    def __init__(self, choice: Backbone, filters: int, g: Builder, stem_maps: tuple[str, str]) -> None:
        self.g, self.blocks, self.filters = g, choice.blocks, filters
        self.level = {-1: -1, 0: 0, **dict(enumerate(choice.levels, 1))}
        self.used = {e.state for b in choice.blocks for e in b.edges if e.op != "zero" and e.state <= BEFORE_PREVIOUS}
        self.used = self.used or {PREVIOUS}
        self.built = dict(zip((-1, 0), stem_maps, strict=True))

    def output(self, layer: int) -> str:
        """Return the node that holds H^layer."""
        if layer not in self.built:
            self.built[layer] = self._build(layer)
        return self.built[layer]

    @property
    def low_level(self) -> str:
        """Return the last map of the path's first run at stride 4."""
        first_run = takewhile(lambda layer: self.level[layer] == 0, range(len(self.level) - 1))
        return self.built[max(self.built.keys() & set(first_run))]

    def _build(self, layer: int) -> str:
        stride = 2 if self.level[layer] > self.level[layer - 1] else 1
        resizes = {state: self._resize(layer, layer - 1 - state) for state in sorted(self.used)}
        states: dict[int, str] = {}
        with self.g.scope(f"layer{layer}"):
            for state, (resize, inputs) in resizes.items():
                x = self.g.add(f"resize{state}", resize, *inputs) if resize else inputs[0]
                states[state] = self.g.add(f"state{state}", match_channels(self.filters << self.level[layer]), x)
            for index, block in enumerate(self.blocks):
                with self.g.scope(f"block{index}"):
                    states[2 + index] = self._block(block, states, stride)
            return self.g.add("concat", Concat(), *(states[2 + index] for index in range(len(self.blocks))))

    def _resize(self, layer: int, source: int) -> tuple[Resize | None, tuple[str, ...]]:
        """Choose the operator, if needed, that resizes H^source to the size that `layer` works at, and its inputs."""
        wanted = min(self.level[layer - 1], self.level[layer])
        x = self.output(source)
        if self.level[source] == wanted:
            return None, (x,)
        same_size = [earlier for earlier in range(layer) if self.level[earlier] == wanted]
        built = self.built.keys() & set(same_size)
        if self.level[source] < wanted and not built:
            return Resize(factor=0.5), (x,)
        return Resize(), (x, self.output(max(built or same_size)))

    def _block(self, block: Block, states: Mapping[int, str], stride: int) -> str:
        """Add the sum of the nonzero edges."""
        edges = {name: e for name, e in (("first", block.first), ("second", block.second)) if e.op != "zero"}
        if not edges:
            return self._edge("zero", Edge(state=min(self.used), op="zero"), states, stride)
        outputs = [self._edge(name, edge, states, stride) for name, edge in edges.items()]
        return self.g.add("sum", Add(), *outputs) if len(outputs) == 2 else outputs[0]

    def _edge(self, name: str, edge: Edge, states: Mapping[int, str], stride: int) -> str:
        """Add the operator's ops one after the other; they have the layer's stride only on earlier layers."""
        x = states[edge.state]
        ops = operator(edge.op, self.g.channels(x), stride if edge.state <= BEFORE_PREVIOUS else 1)
        for index, op in enumerate(ops):
            x = self.g.add(f"{name}.{index}", op, x)
        return x

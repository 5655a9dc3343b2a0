"""An architecture as a `torch.nn.Module`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nasseg.foreign import MAX_PARAMETERS
from nasseg.graph import Architecture, ArchitectureError


class Segmenter(nn.Module, ABC):
    """What can be scored and used: a `Network`, or one that was exported."""

    @abstractmethod
    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs by name, the logits (N, classes, H, W) first, from the inputs by name."""


class Network(Segmenter):
    """The network that an architecture describes.

    A node's parameters have its name as their prefix: node `backbone.features.0` holds
    `backbone.features.0.0.weight`. While `self.training` is set, the training outputs are computed too.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        if (parameters := _parameters(architecture)) > MAX_PARAMETERS:
            raise ArchitectureError(
                f"{architecture.name} has {parameters:,} parameters, but must have at most {MAX_PARAMETERS:,}"
            )
        for node in architecture.ordered:
            module = node.op.build([architecture.channels(source) for source in node.inputs])
            _place(self, node.name, module)
        initialise(self)
        self._make_plans()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the first output, usually (N, classes, H, W) logits, from the inputs in the architecture's order."""
        names = self.architecture.inputs
        if len(inputs) != len(names):
            raise ValueError(f"{self.architecture.name} was given {len(inputs)} inputs, but takes {', '.join(names)}")
        return self.outputs(dict(zip(names, inputs, strict=True)))[self.architecture.outputs[0]]

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute every output by node name, from the inputs by name; a tensor is freed after its last use."""
        names = self.architecture.inputs
        if not inputs.keys() >= set(names):
            raise ValueError(
                f"{self.architecture.name} was given {', '.join(inputs) or 'nothing'}, but takes {', '.join(names)}"
            )
        values = {name: inputs[name] for name in names}
        wanted = self.architecture.outputs + (self.architecture.training_outputs if self.training else ())
        for name, module, sources, free in self._plans[self.training]:
            if name not in values:
                values[name] = module(*(values[source] for source in sources))
            for source in free:
                del values[source]
        return {name: values[name] for name in wanted}

    def set_submodule(self, *args: Any, **kwargs: Any) -> None:
        """Replace a module, a node's own or one inside it, as PyTorch does."""
        super().set_submodule(*args, **kwargs)
        self._make_plans()

    def _make_plans(self) -> None:
        always, training = self.architecture.outputs, self.architecture.training_outputs
        self._plans = {False: self._plan(always), True: self._plan(always + training)}

    def _plan(self, outputs: tuple[str, ...]) -> list[tuple[str, nn.Module, tuple[str, ...], list[str]]]:
        """List the steps (node, its module, sources, names to free afterwards) that compute `outputs` alone."""
        needed = self.architecture.ancestors(outputs)
        nodes = [node for node in self.architecture.ordered if node.name in needed]
        last_use = {source: node.name for node in nodes for source in node.inputs}
        kept, free = set(outputs), {node.name: list[str]() for node in nodes}
        for source, last in last_use.items():
            if source not in kept:
                free[last].append(source)
        return [(node.name, self.get_submodule(node.name), node.inputs, free[node.name]) for node in nodes]


def _parameters(architecture: Architecture) -> int:
    """Count all parameters before any is allocated."""
    channels = architecture.channels
    return sum(node.op.parameters(list(map(channels, node.inputs))) for node in architecture.nodes)


def _place(network: nn.Module, name: str, module: nn.Module) -> None:
    """Make `module` the submodule `name`, with plain modules for the parts before the last."""
    *path, last = name.split(".")
    for part in path:
        _check_free(network, part, name)
        if part not in network._modules:
            network.add_module(part, nn.Module())
        network = network.get_submodule(part)
    _check_free(network, last, name)
    network.add_module(last, module)


def _check_free(module: nn.Module, part: str, name: str) -> None:
    if part not in module._modules and hasattr(module, part):
        raise ArchitectureError(f"node {name!r}: modules have an attribute {part!r} of their own; rename the node")


def initialise(network: nn.Module) -> None:
    """Draw convolution weights from He's normal distribution (arXiv 1502.01852, fan-out); norms start as identity.

    The fan-out counts the outputs that an input actually feeds, so grouping divides it. Class scores (nodes named
    `logits…`) start near zero, so that the first loss is about the logarithm of the number of classes. Transposed
    convolutions, layer norms and global filters are left as their operator made them.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            module.weight.data.mul_(module.groups**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.rpartition(".")[2].startswith("logits"):
                nn.init.normal_(module.weight, std=0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()

"""The optimizer of a recipe, with parameters in groups by stage and by decay."""

import torch
from torch import nn

from nasseg.train.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW, in PyTorch's fused versions; a head learns by `head_multiplier` times the backbone's rate."""
    groups, rate = _parameter_groups(network, recipe), recipe.learning_rate
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def _parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Group parameters by stage (backbone or not) and by decay (biases and norms, which have one axis, have none)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (in_backbone, decays): [] for in_backbone in (True, False) for decays in (True, False)
    }
    for name, parameter in network.named_parameters():
        groups[name.startswith("backbone."), parameter.ndim > 1].append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1 if in_backbone else recipe.head_multiplier),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]

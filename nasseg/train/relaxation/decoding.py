"""From a trained relaxation to a choice that keeps the limits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nasseg.space.relaxation import C, Relaxation
from nasseg.train.relaxation.trainer import require_gradients

DESCENT_STEP = 0.02
"""How far the architecture parameter that moves most goes in a step towards the limits."""


DESCENT_STEPS = 500


def decode_within(relaxation: Relaxation[C], keeps_limits: Callable[[C], bool]) -> C:
    """What a relaxation decodes to or, where that breaks a limit, what keeps them and is near it.

    The architecture parameters are taken down the expected cost in small steps until what they decode to keeps the
    limits: what is dear and least certain gives way first. Where nothing on the way keeps them, it is the plain decoded
    choice. The relaxation is left as it was.
    """
    parameters = relaxation.architecture_parameters()
    trained = [parameter.detach().clone() for parameter in parameters]
    require_gradients(parameters, of=relaxation)
    plain = choice = relaxation.decode()
    kept = keeps_limits(choice)
    for _ in range(DESCENT_STEPS):
        if kept:
            break
        gradients = torch.autograd.grad(relaxation.expected_cost(), parameters)
        largest = max(gradient.abs().max().item() for gradient in gradients)
        if not largest:
            break
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(DESCENT_STEP * gradient / largest)
        if (decoded := relaxation.decode()) != choice:
            choice, kept = decoded, keeps_limits(decoded)
    with torch.no_grad():
        for parameter, value in zip(parameters, trained, strict=True):
            parameter.copy_(value)
    return choice if kept else plain

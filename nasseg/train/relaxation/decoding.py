"""Decoding a trained relaxation to a choice within the limits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nasseg.space.relaxation import Relaxation
from nasseg.space.space import C
from nasseg.train.relaxation.trainer import require_gradients

DESCENT_STEP = 0.02
"""Distance that the fastest architecture parameter moves in one step towards the limits."""
DESCENT_STEPS = 500


def decode_within(relaxation: Relaxation[C], keeps_limits: Callable[[C], bool]) -> C:
    """Decode a relaxation; if the choice violates a limit, take the first feasible one on a descent of expected cost.

    The architecture parameters descend the expected cost in small steps until they decode to a choice within the
    limits: what is expensive and least certain gives way first. If there is none on the way, the plain decoded choice
    is returned. The relaxation is left unchanged.
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

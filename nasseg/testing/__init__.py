"""Conformance suites for extensions of nasseg: subclass one in a test file, and pytest checks yours.

    from nasseg.testing import OperatorCase, OperatorConformance

    class TestSqueezeExcite(OperatorConformance):
        case = OperatorCase(SqueezeExcite(), channels=(8,))

To check several with one class, leave the attribute out and mark the class with `pytest.mark.parametrize("case", …)`.
The project's own tests use the same suites. They need `pip install nasseg[testing]`.
"""

import pytest

for _suite in ("baselines", "datasets", "operators", "samplers", "spaces"):
    pytest.register_assert_rewrite(f"nasseg.testing.{_suite}")

from nasseg.testing.baselines import BaselineCase, BaselineConformance  # noqa: E402
from nasseg.testing.datasets import DatasetConformance  # noqa: E402
from nasseg.testing.operators import OperatorCase, OperatorConformance  # noqa: E402
from nasseg.testing.samplers import SamplerConformance  # noqa: E402
from nasseg.testing.spaces import SpaceConformance  # noqa: E402

__all__ = [
    "BaselineCase",
    "BaselineConformance",
    "DatasetConformance",
    "OperatorCase",
    "OperatorConformance",
    "SamplerConformance",
    "SpaceConformance",
]

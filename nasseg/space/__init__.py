"""The contract of a search space, which `--space` finds by entry point or `package.module:Name`."""

from nasseg.space.decisions import Decide
from nasseg.space.space import Choice, Space

__all__ = ["Choice", "Decide", "Space"]

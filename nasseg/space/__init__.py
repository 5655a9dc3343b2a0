"""What a search space is: the contract that `--space` finds by entry point or `package.module:Name`."""

from nasseg.space.space import Choice, Space

__all__ = ["Choice", "Space"]

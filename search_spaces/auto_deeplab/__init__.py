"""The Auto-DeepLab space: cell and path of strides, searched together."""

from search_spaces.auto_deeplab.space import AutoDeepLab

__all__ = ["AutoDeepLab"]

"""What takes seconds is run for a few networks that have all kinds of parts; operators are tested on their own."""

import pytest

SLOW = ("test_the_exported_network_gives_the_same_logits", "test_the_compiled_network_gives_the_same_logits")
ENOUGH = ("auto_deeplab-s", "deeplabv3plus-mobilenetv2", "lraspp", "unet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the others `long`."""
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in SLOW and item.callspec.id not in ENOUGH:
            item.add_marker(pytest.mark.long)

"""What takes seconds is run for the first case of each kind of operator."""

import pytest

SLOW = ("test_onnxruntime_gives_the_same_output", "test_exported_for_any_size_it_gives_the_same_output")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the other cases `long`."""
    seen = set()
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in SLOW:
            test = item.originalname, item.callspec.params["case"].op.op
            if test in seen:
                item.add_marker(pytest.mark.long)
            seen.add(test)

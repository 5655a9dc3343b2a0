from collections.abc import Callable

import pytest

from .conftest import Done


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("spaces", {"dpc"}),
        ("baselines", {"unet", "stdc1", "fcn8s", "deeplabv3plus-mobilenetv2", "pspnet-resnet50"}),
        ("datasets", {"streets", "folder"}),
        ("ops", {"conv", "concat", "resize"}),
    ],
)
def test_everything_is_listed_with_a_description(nasseg: Callable[..., Done], what: str, some: set[str]) -> None:
    rows = nasseg("list", what, "--json").document
    assert {row["name"] for row in rows} >= some
    assert [row["name"] for row in rows if len(row["description"]) < 10] == []
    shown = nasseg("list", what)
    assert shown.code == 0
    assert all(name in shown.out for name in some)

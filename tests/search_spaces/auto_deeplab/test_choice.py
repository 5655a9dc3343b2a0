import pytest
from pydantic import ValidationError

from search_spaces.auto_deeplab.choice import Backbone
from tests.search_spaces.auto_deeplab.made_up import block

SEP = ("sep3", 0)


def test_a_block_reads_only_what_comes_before() -> None:
    Backbone(blocks=(block(SEP, ("sep3", 1)), block(SEP, ("sep3", 2))), levels=(0,))
    with pytest.raises(ValidationError, match="block 1 has an edge from state 3, but must read a state below 3"):
        Backbone(blocks=(block(SEP, SEP), block(SEP, ("sep3", 3))), levels=(0,))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((2,), "layer 1 is at stride 16 after stride 4"),
        ((0, 1, 3), "layer 3 is at stride 32 after stride 8"),
        ((1, 2, 0), "layer 3 is at stride 4 after stride 16"),
        ((1, 2, 3, 4), "less than 4"),
        ((), "at least 1 item"),
    ],
)
def test_levels_that_are_no_path_are_refused(levels: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Backbone(blocks=(block(SEP, SEP),), levels=levels)

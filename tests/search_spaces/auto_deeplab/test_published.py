import pytest

from search_spaces.auto_deeplab.choice import Block
from search_spaces.auto_deeplab.published import PUBLISHED, auto_deeplab_l, auto_deeplab_m, auto_deeplab_s


@pytest.mark.parametrize(
    ("make", "params", "paper_madds"),
    [
        (auto_deeplab_s, 10_147_427, 333.25e9),
        (auto_deeplab_m, 21_622_451, 460.93e9),
        (auto_deeplab_l, 44_424_691, 695.03e9),
    ],
)
def test_parameters_and_madds_are_the_papers(make, params: int, paper_madds: float) -> None:
    """Table 2; its MAdds are counted with another framework's padding."""
    description = make().describe((1025, 2049))
    assert description.params == params
    assert 0.95 * paper_madds < description.madds < paper_madds


def test_levels_and_widths_of_the_layers() -> None:
    shapes = {node.name: node.shape for node in auto_deeplab_s().describe((1025, 2049)).nodes}
    assert [shapes[f"backbone.layer{layer}.concat"] for layer in range(1, 13)] == [
        (5 * 20 * 2**level, -(-1025 // (4 << level)), -(-2049 // (4 << level))) for level in PUBLISHED.levels
    ]


def test_low_level_features_are_the_last_at_stride_4() -> None:
    assert auto_deeplab_s()["decoder.low_level"].inputs == ("backbone.layer3.concat",)


def test_the_cell_as_the_paper_draws_it() -> None:
    """Figure 3: block by block, as operators on H^{l-1} (0), H^{l-2} (1) and earlier blocks (from 2)."""

    def drawn(block: Block) -> set[tuple[str, int]]:
        return {(edge.op, edge.state) for edge in block.edges}

    assert [drawn(block) for block in PUBLISHED.blocks] == [
        {("atrous5", 1), ("sep3", 0)},
        {("sep3", 1), ("atrous3", 0)},
        {("sep3", 3), ("sep3", 1)},
        {("sep5", 4), ("sep5", 2)},
        {("sep5", 3), ("atrous5", 5)},
    ]

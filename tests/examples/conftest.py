from pathlib import Path

import pytest

ENTRY_POINTS = """
[nasseg.ops]
squeeze_excite = examples.own_operator:SqueezeExcite
[nasseg.baselines]
small = examples.own_baseline:small
[nasseg.datasets]
squares = examples.own_dataset:Squares
[nasseg.samplers]
aging = examples.own_sampler:Evolution
"""


@pytest.fixture(autouse=True, scope="package")
def installed_examples(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The examples as an installed package that has the entry points of their docstrings."""
    site = tmp_path_factory.mktemp("site")
    metadata: Path = site / "examples-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield

from pathlib import Path

import pytest
import torch

from examples.own_operator import SqueezeExcite
from nasseg.graph import Builder, load, save
from nasseg.testing import OperatorCase, OperatorConformance
from tests.examples.command import printed


class TestSqueezeExcite(OperatorConformance):
    case = OperatorCase(SqueezeExcite(), channels=(8,))

    @pytest.mark.slow
    def test_onnxruntime_gives_the_same_output(self, case: OperatorCase) -> None:
        super().test_onnxruntime_gives_the_same_output(case)


def test_channels_are_scaled_by_a_share() -> None:
    x = torch.randn(2, 8, 5, 4)
    scale = SqueezeExcite().build([8])(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    assert ((scale > 0) & (scale < 1)).all()


def test_it_costs_two_convolutions_of_one_pixel() -> None:
    assert printed("own_operator") == "580 parameters, 512 MAdds\n"


def test_a_file_with_it_is_read_by_whom_it_is_installed_for(tmp_path: Path) -> None:
    g = Builder("own")
    architecture = g.build(g.add("scale", SqueezeExcite(squeezed=2), g.input(8)))
    save(architecture, tmp_path / "own.json")
    assert load(tmp_path / "own.json") == architecture
    (tmp_path / "own.json").write_text((tmp_path / "own.json").read_text().replace("squeeze_excite", "squash"))
    with pytest.raises(ValueError, match=r"nodes\[1\]\.op\.op is 'squash', but must be one of input, .*squeeze_excite"):
        load(tmp_path / "own.json")

from pathlib import Path

from baselines.deeplabv3plus import deeplabv3plus_efficientnet_lite0
from nasseg.graph import Builder, PublishedBackbone, load, save
from nasseg.ops import Conv

LITE0 = PublishedBackbone(name="efficientnet_lite0", channels={"backbone.blocks.15.conv.2.weight": 320})


def test_an_architecture_says_which_published_backbone_it_has(tmp_path: Path) -> None:
    built = deeplabv3plus_efficientnet_lite0(3)
    assert built.backbone == LITE0
    save(built, tmp_path / "lite0.json")
    assert load(tmp_path / "lite0.json").backbone == LITE0
    prefix, suffix = built.cut("backbone")
    assert (prefix.backbone, suffix.backbone) == (LITE0, None)
    assert built.inference().backbone == LITE0


def test_the_published_backbone_is_no_part_of_the_identity() -> None:
    built = deeplabv3plus_efficientnet_lite0(3)
    assert built.replace(backbone=None).key == built.key
    g = Builder("plain")
    assert g.build(g.add("head.conv", Conv(out_channels=2), g.input())).backbone is None

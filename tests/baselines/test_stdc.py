from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from baselines.stdc import stdc1, stdc1_classifier, stdc2, stdc2_classifier
from nasseg.graph import Architecture


@pytest.mark.parametrize(
    ("make", "params", "madds_millions"), [(stdc1_classifier, 8_441_504, 813), (stdc2_classifier, 12_471_968, 1446)]
)
def test_classifiers_have_the_papers_cost(make: Callable[[], Architecture], params: int, madds_millions: int) -> None:
    description = make().describe((224, 224))
    assert description.params == params  # 8.44 M and 12.47 M (table 3)
    assert description.madds / 1e6 == pytest.approx(madds_millions, rel=0.01)  # theirs count norms and pools too
    assert description.nodes[-1].shape == (1000, 1, 1)


@pytest.mark.parametrize(("make", "modules"), [(stdc1, (2, 2, 2)), (stdc2, (4, 5, 3))])
def test_backbone_halves_the_map_at_each_stage(make: Callable[[], Architecture], modules: tuple[int, ...]) -> None:
    shapes = {node.name: node.shape for node in make().describe((128, 256)).nodes}
    for stage, (count, channels) in enumerate(zip(modules, (256, 512, 1024), strict=True), start=3):
        names = [name for name in shapes if name.startswith(f"backbone.stage{stage}.")]
        assert len(names) == count
        assert {shapes[name] for name in names} == {(channels, 128 >> stage, 256 >> stage)}
    assert shapes["context.arm32.smooth"] == (128, 8, 16)
    assert shapes["context.arm16.smooth"] == (128, 16, 32)
    assert shapes["fusion.concat"] == (256 + 128, 16, 32)


def test_training_adds_two_auxiliary_heads_and_the_detail_head() -> None:
    network = stdc1(4).network().train()
    outputs = network.outputs({"image": torch.randn(2, 3, 64, 96)})
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == {
        "head.upsample": (4, 64, 96),
        "auxiliary.stride8.logits": (4, 8, 12),
        "auxiliary.stride16.logits": (4, 4, 6),
        "detail.logits": (1, 8, 12),
    }


@torch.no_grad()
def test_context_and_fusion_are_the_papers() -> None:
    network = stdc1(4).network().eval()
    inside = network.get_submodule
    features = {8: torch.randn(1, 256, 10, 12), 16: torch.randn(1, 512, 5, 6), 32: torch.randn(1, 1024, 3, 3)}

    def mean(x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)

    deeper = inside("context.mean.conv")(mean(features[32]))
    for stride, larger in ((32, 16), (16, 8)):
        x = inside(f"context.arm{stride}.conv")(features[stride])
        x = x * torch.sigmoid(inside(f"context.arm{stride}.attention")(mean(x))) + deeper
        x = F.interpolate(x, size=features[larger].shape[-2:], mode="nearest")
        deeper = inside(f"context.arm{stride}.smooth")(x)
    x = inside("fusion.projection")(torch.cat([features[8], deeper], 1))
    x = x + x * torch.sigmoid(inside("fusion.excite")(inside("fusion.squeeze")(mean(x))))
    expected = inside("head.logits")(inside("head.conv")(x))

    _, after = network.architecture.inference().cut("backbone")
    head = after.network().eval()
    head.load_state_dict({key: value for key, value in network.state_dict().items() if key in head.state_dict()})
    names = {node.name: node.op for node in after.nodes if node.op.op == "input" and node.name != "image"}
    maps = {name: features[{256: 8, 512: 16, 1024: 32}[op.channels]] for name, op in names.items()}
    logits = head.outputs({**maps, "image": torch.empty(1, 3, 10, 12)})["head.upsample"]
    torch.testing.assert_close(logits, expected)

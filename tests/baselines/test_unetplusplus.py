import torch

from baselines.unetplusplus import unetplusplus


def test_it_has_the_papers_parameters() -> None:
    paper = unetplusplus(1, norm="none", bias=True).describe((96, 96))
    assert round(paper.params / 1e6, 2) == 9.04  # table 3
    assert paper.params_training == paper.params + 3 * (32 + 1)


def test_each_node_joins_its_row_and_the_node_below() -> None:
    architecture = unetplusplus(2)
    for depth in range(4):
        for column in range(1, 5 - depth):
            node = f"decoder.x{depth}_{column}"
            row = [f"backbone.x{depth}_0.conv2", *(f"decoder.x{depth}_{j}.conv2" for j in range(1, column))]
            assert architecture[f"{node}.concat"].inputs == (*row, f"{node}.up")
            below = f"decoder.x{depth + 1}_{column - 1}" if column > 1 else f"backbone.x{depth + 1}_0"
            assert architecture[f"{node}.up"].inputs[0] == f"{below}.conv2"
            assert architecture.channels(f"{node}.concat") == 32 * 2**depth * (column + 1)


def test_training_supervises_every_depth_at_the_images_size() -> None:
    network = unetplusplus(2, in_channels=1).network().train()
    outputs = network.outputs({"image": torch.randn(1, 1, 19, 33)})
    assert list(outputs) == ["head.upsample", *(f"auxiliary.x0_{column}.logits" for column in (1, 2, 3))]
    assert {tuple(output.shape) for output in outputs.values()} == {(1, 2, 19, 33)}

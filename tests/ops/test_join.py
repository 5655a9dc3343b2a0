import pytest
import torch
import torch.nn.functional as F

from nasseg.ops import Activation, Add, Concat, Dropout, Gate, Identity, Multiply, Resize, Zero


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, B, C = (images(2, 3, 5, 4, seed=seed) for seed in range(3))
PIXEL = images(2, 3, 1, 1)


def test_add_sums_and_then_activates() -> None:
    torch.testing.assert_close(Add().build([3, 3, 3])(A, B, C), A + B + C)
    torch.testing.assert_close(Add(activation="relu").build([3, 3])(A, B), (A + B).relu())
    torch.testing.assert_close(Add().build([3, 3])(A, PIXEL), A + PIXEL)


def test_multiply_spreads_pixels_and_single_channels() -> None:
    torch.testing.assert_close(Multiply().build([3, 3, 3])(A, B, PIXEL), A * B * PIXEL)
    mask = images(2, 1, 5, 4)
    assert Multiply().check([3, 1]) == Multiply().check([1, 3]) == 3
    torch.testing.assert_close(Multiply().build([1, 3])(mask, A), mask * A)


def test_gate_multiplies_by_the_sigmoid_of_the_second_input() -> None:
    torch.testing.assert_close(Gate().build([3, 3])(A, PIXEL), A / (1 + (-PIXEL).exp()))


def test_concat_keeps_the_order() -> None:
    joined = Concat().build([3, 3])(A, B)
    assert torch.equal(joined[:, :3], A)
    assert torch.equal(joined[:, 3:], B)
    assert Concat().check([3, 5, 1]) == 9


def test_zero_and_identity() -> None:
    assert torch.equal(Zero().build([3])(A), torch.zeros(2, 3, 5, 4))
    assert torch.equal(Zero(stride=2).build([3])(A), torch.zeros(2, 3, 3, 2))
    assert torch.equal(Identity().build([3])(A), A)


@pytest.mark.parametrize(
    ("name", "expected"), [("relu", A.clamp(min=0)), ("relu6", A.clamp(0, 6)), ("sigmoid", A.sigmoid()), ("none", A)]
)
def test_activations(name: str, expected: torch.Tensor) -> None:
    torch.testing.assert_close(Activation.model_validate({"activation": name}).build([3])(A), expected)


def test_activation_normalises_first() -> None:
    output = Activation(activation="relu", norm="batch").build([3]).train()(A)
    torch.testing.assert_close(output, F.batch_norm(A, None, None, training=True).relu())


@pytest.mark.parametrize(("factor", "size"), [(2.0, (10, 8)), (0.5, (3, 2)), (0.1, (1, 1)), (1.5, (8, 6))])
def test_resize_by_a_factor_rounds_up_as_strides_do(factor: float, size: tuple[int, int]) -> None:
    expected = F.interpolate(A, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(Resize(factor=factor).build([3])(A), expected)
    nearest = Resize(factor=factor, mode="nearest").build([3])(A)
    torch.testing.assert_close(nearest, F.interpolate(A, size=size, mode="nearest"))


def test_resize_takes_the_second_inputs_size() -> None:
    resize = Resize().build([3, 1])
    expected = F.interpolate(A, size=(7, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(A, images(1, 1, 7, 9)), expected)
    assert resize(A, images(1, 1, 5, 4)) is A
    assert Resize().check([3, 8]) == 3


def test_resize_takes_a_factor_or_a_second_input() -> None:
    with pytest.raises(ValueError, match=r"factor 2\.0 and a second input, but must have one of them"):
        Resize(factor=2.0).check([3, 3])


def test_dropout_drops_in_training_only() -> None:
    dropout, ones = Dropout(probability=0.25).build([1]), torch.ones(1, 1, 200, 200)
    assert dropout.eval()(ones) is ones
    torch.manual_seed(0)
    dropped = dropout.train()(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_values_and_their_gradients_alike(
    probability: float, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(1)
    values = torch.randn(3, 5, 37, 41, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    dropped = Dropout(probability=probability).build([5]).train()(values)
    dropped.sum().backward()
    assert values.grad is not None
    kept = values.grad != 0
    torch.testing.assert_close(dropped, torch.where(kept, values / (1 - probability), 0), rtol=1e-2, atol=1e-6)
    assert dropped.is_contiguous(memory_format=layout)
    expected = pytest.approx(1 - probability, abs=4 * (probability * (1 - probability) / values.numel()) ** 0.5 + 2e-5)
    assert kept.double().mean().item() == expected
    for neighbours in (kept[:, :, :, 1:] ^ kept[:, :, :, :-1], kept[:, 1:] ^ kept[:, :-1]):  # none depends on another
        differing = 2 * probability * (1 - probability)
        spread = (differing / neighbours.numel()) ** 0.5
        assert neighbours.double().mean().item() == pytest.approx(differing, abs=6 * spread + 1e-4)


@pytest.mark.parametrize("op", [Add(), Multiply(), Gate()])
def test_maps_of_other_channels_are_refused(op: Add) -> None:
    with pytest.raises(ValueError, match="inputs have 3, 4 channels, but must have equal numbers"):
        op.check([3, 4])

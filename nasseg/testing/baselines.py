"""The suite for baselines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nasseg.cost.backends import to_program
from nasseg.graph import Architecture, load, save
from nasseg.network import Network
from nasseg.testing.suite import Suite, elsewhere

CLASSES = 5
SIZE = (33, 40)


@dataclass(frozen=True)
class BaselineCase:
    """A function that returns a network for `num_classes` classes, its other arguments bound to keep it small.

    Bind them with `functools.partial`. `one_per_image` is true for networks that classify whole images; `float16` is
    false if the untrained network computes values beyond the range of that format.
    """

    make: Callable[..., Architecture]
    one_per_image: bool = False
    float16: bool = True

    def logits_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the logits for images of `size`."""
        return (1, 1) if self.one_per_image else size

    def images(self, batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
        """Make the same random images each time, with as many channels as the network takes."""
        network = architecture(self)
        channels = network.channels(network.inputs[0])
        return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


@cache
def architecture(case: BaselineCase) -> Architecture:
    """Make the case's network for `CLASSES` classes."""
    return case.make(num_classes=CLASSES)


@cache
def shared_network(case: BaselineCase) -> Network:
    """Make a network in evaluation mode that tests share; those that change it copy it."""
    torch.manual_seed(0)
    return architecture(case).network().eval()


def fresh_network(case: BaselineCase) -> Network:
    """Copy the shared network."""
    return copy.deepcopy(shared_network(case))


def key_of(case: BaselineCase) -> str:
    """Build the network anew and return its hash."""
    return case.make(num_classes=CLASSES).key


class BaselineConformance(Suite):
    """Checks of a baseline.

    class TestOwnBaseline(BaselineConformance):
        case = BaselineCase(own_baseline)
    """

    subject = "case"
    case: ClassVar[BaselineCase]

    def test_it_is_for_as_many_classes_as_it_is_asked_for(self, case: BaselineCase) -> None:
        """Fix: the first parameter `num_classes`, with a default, passed on to the classifier."""
        assert case.make(num_classes=CLASSES).classes == CLASSES
        assert case.make(num_classes=2).classes == 2
        assert case.make().classes > 1

    @pytest.mark.parametrize("size", [(32, 64), (33, 47)])
    @torch.no_grad()
    def test_logits_have_the_size_of_the_image(self, case: BaselineCase, size: tuple[int, int]) -> None:
        """Fix: end with a `Resize` to the image, as `baselines.heads.classifier` does."""
        logits = shared_network(case)(case.images(batch=2, size=size))
        assert logits.shape == (2, CLASSES, *case.logits_size(size))
        assert logits.isfinite().all()
        assert logits.std() > 0

    def test_training_outputs_say_what_they_are(self, case: BaselineCase) -> None:
        """Fix: names that begin with `auxiliary` (class scores) or `detail` (STDC's detail head)."""
        network = architecture(case)
        for name in network.training_outputs:
            assert name.startswith(("auxiliary", "detail")), name
            assert name.startswith("detail") or network.channels(name) == CLASSES, name

    def test_every_parameter_learns_from_a_batch_of_one(self, case: BaselineCase) -> None:
        """Fix: no parameter that no output depends on, and no batch norm on a single pixel."""
        trained = fresh_network(case).train()
        outputs = trained.outputs({trained.architecture.inputs[0]: case.images()})
        assert set(outputs) == {*trained.architecture.outputs, *trained.architecture.training_outputs}
        loss = torch.stack([output.square().mean() for output in outputs.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in trained.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    def test_a_training_step_lowers_the_loss(self, case: BaselineCase) -> None:
        """Fix: an operator whose gradient is not that of its output."""
        trained, batch = fresh_network(case).double().train(), case.images(batch=2).double()  # too steep for float
        size = (2, *case.logits_size(SIZE))
        masks = torch.randint(CLASSES, size, generator=torch.Generator().manual_seed(2))

        def loss() -> Tensor:
            torch.manual_seed(3)  # the same dropout before and after
            return F.cross_entropy(trained(batch), masks)

        before = loss()
        before.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]
        steepness = sum(float(gradient.square().sum()) for gradient in gradients)
        expected = 1e-8 * before.item()  # small enough for the first order to tell
        torch.optim.SGD(trained.parameters(), lr=expected / steepness).step()
        with torch.no_grad():
            after = loss()
        assert 0.5 * expected < before - after < 1.5 * expected

    def test_a_file_holds_all_of_it(self, case: BaselineCase, tmp_path: Path) -> None:
        """Fix: operators that installed packages know (see the suite for operators)."""
        save(architecture(case), tmp_path / "network.json")
        loaded = load(tmp_path / "network.json")
        assert loaded == architecture(case)
        assert loaded.key == architecture(case).key

    def test_another_process_gives_the_same_key(self, case: BaselineCase) -> None:
        """Fix: nothing random, and no loop over a set."""
        assert elsewhere(key_of, case) == architecture(case).key

    @torch.no_grad()
    def test_inference_drops_what_only_training_needs(self, case: BaselineCase) -> None:
        """Fix: training outputs given to `build` as such, and read by no other node."""
        small, whole = architecture(case).inference().network().eval(), shared_network(case)
        rest = set(whole.state_dict()) - set(small.state_dict())
        assert bool(rest) == bool(architecture(case).training_outputs)
        small.load_state_dict({key: value for key, value in whole.state_dict().items() if key not in rest})
        torch.testing.assert_close(small(case.images()), whole(case.images()))
        description = architecture(case).describe(SIZE)
        assert description.params == sum(parameter.numel() for parameter in small.parameters())
        assert description.params_training == sum(parameter.numel() for parameter in whole.parameters())

    @torch.no_grad()
    def test_the_exported_network_gives_the_same_logits(self, case: BaselineCase) -> None:
        """Fix: operators whose `forward` depends on no tensor's values, and compares no sizes (see their suite)."""
        # What is exported computes some convolutions otherwise, equal up to rounding.
        network = fresh_network(case).double()
        exported = to_program(network, (case.images().double(),), any_size=not case.one_per_image).module()
        for size in [SIZE] if case.one_per_image else [SIZE, (64, 47)]:
            images = case.images(size=size).double()
            torch.testing.assert_close(exported(images), network(images))

    @torch.no_grad()
    def test_the_compiled_network_gives_the_same_logits(self, case: BaselineCase) -> None:
        """Fix: operators that `torch.compile` can trace without a break."""
        torch.compiler.reset()
        network, images = fresh_network(case).double(), case.images().double()
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), network(images))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @torch.no_grad()
    def test_half_precision_gives_about_the_same_logits(self, case: BaselineCase, dtype: torch.dtype) -> None:
        """Fix: tensors made in the input's format; norms wherever values would grow without them."""
        if dtype == torch.float16 and not case.float16:
            pytest.skip("untrained, it computes values beyond the range of float16")
        expected = shared_network(case)(case.images())
        logits = fresh_network(case).to(dtype)(case.images().to(dtype))
        assert logits.dtype == dtype
        # Rounding adds up with depth, and differently on each processor; unrelated logits would differ by more than 1.
        assert (logits.float() - expected).norm() < 0.25 * expected.norm()

    @torch.no_grad()
    def test_channels_last_gives_the_same_logits(self, case: BaselineCase) -> None:
        """Fix: operators that do not rely on the layout in memory."""
        network = fresh_network(case).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = network(case.images().contiguous(memory_format=torch.channels_last))
        expected = shared_network(case)(case.images())
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))

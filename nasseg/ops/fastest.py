"""Which of several ways to compute the same is the fastest on this GPU, found out once for each shape."""

import logging
import statistics
from collections.abc import Callable, Hashable, Mapping

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Way = Callable[..., Tensor]

TRIES = 5
FARTHEST = 0.01
"""How far a way may be from the first one, of that one's norm: half precision's rounding is a tenth of it."""


def milliseconds_on_gpu(call: Callable[[], Tensor]) -> float:
    """How long a call takes on the current CUDA device, in milliseconds: the median of five, after one unmeasured."""
    call()
    taken: list[float] = []
    for _ in range(TRIES):
        start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return statistics.median(taken)


class Fastest:
    """A function with several ways to compute it, of which each kind of input takes the one that was fastest there.

    The first way is the one to trust: another that raises, or that deviates from it, is not used again, and a warning
    says so unless it is merely not installed. While a CUDA graph is captured, nothing can be timed: kinds of input that
    are new then take the first.
    """

    def __init__(
        self, ways: Mapping[str, Way], milliseconds: Callable[[Callable[[], Tensor]], float] = milliseconds_on_gpu
    ) -> None:
        self._ways = dict(ways)
        self._trusted = next(iter(self._ways))
        self._milliseconds = milliseconds
        self._chosen: dict[Hashable, str] = {}

    def __call__(self, *arguments: Tensor | Hashable) -> Tensor:
        """Compute by the way that is fastest for tensors of these shapes and types, and these other arguments."""
        kind = tuple(map(_kind, arguments))
        name = self._chosen.get(kind)
        if name is None:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                return self._ways[self._trusted](*arguments)
            name = self._chosen[kind] = self._choose(*arguments)
        return self._ways[name](*arguments)

    def _choose(self, *arguments: Tensor | Hashable) -> str:
        trusted = self._ways[self._trusted]
        expected = trusted(*arguments)
        taken = {self._trusted: self._milliseconds(lambda: trusted(*arguments))}
        for name, way in list(self._ways.items()):
            if name == self._trusted:
                continue
            try:
                distance = (way(*arguments) - expected).float().norm()
                if not distance <= FARTHEST * expected.float().norm():
                    raise ArithmeticError("its results deviate")
                taken[name] = self._milliseconds(lambda way=way: way(*arguments))  # type: ignore[misc]
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a kernel or its compiler raises, there is another way
                if not isinstance(error, ImportError):
                    logger.warning("%s is not used on this device: %s: %s", name, type(error).__name__, error)
                del self._ways[name]
        return min(taken, key=taken.__getitem__)


def _kind(argument: object) -> Hashable:
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    return argument

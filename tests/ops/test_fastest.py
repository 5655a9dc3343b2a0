"""Of several ways to compute the same, the fastest that agrees with the first is taken."""

import logging

import pytest
import torch

from nasseg.ops.fastest import Fastest


class Ways:
    """Ways that count their calls, on a made-up clock."""

    def __init__(self, **milliseconds):
        self.milliseconds, self.called = milliseconds, []
        self.answers = dict.fromkeys(milliseconds, torch.add)

    def fastest(self):
        return Fastest({name: self._way(name) for name in self.milliseconds}, self._time)

    def _way(self, name):
        def way(*arguments):
            self.called.append(name)
            return self.answers[name](*arguments)

        return way

    def _time(self, call):
        call()
        return self.milliseconds[self.called[-1]]

    def taken(self, fastest, *arguments):
        """The way of the second call, when the choice has been made; both must give the right result."""
        for _ in range(2):
            self.called.clear()
            assert torch.equal(fastest(*arguments), torch.add(*arguments))
        (name,) = self.called
        return name


ONES = torch.ones(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize(("first", "second", "third", "expected"), [(1, 2, 3, "first"), (3, 2, 1, "third")])
def test_the_fastest_is_taken(first, second, third, expected):
    ways = Ways(first=first, second=second, third=third)
    assert ways.taken(ways.fastest(), *ONES) == expected


def test_each_kind_of_input_has_its_own():
    ways = Ways(first=1, second=2)
    fastest = ways.fastest()
    assert ways.taken(fastest, *ONES) == "first"
    ways.milliseconds["second"] = 0.5
    assert ways.taken(fastest, *ONES) == "first"
    assert ways.taken(fastest, torch.ones(3, 3), torch.ones(3, 3)) == "second"
    assert ways.taken(fastest, ONES[0].double(), ONES[1].double()) == "second"
    assert ways.taken(fastest, torch.ones(3, 2).t(), ONES[1]) == "second"
    assert ways.taken(fastest, ONES[0], 2) == "second"


@pytest.mark.parametrize("answer", [torch.sub, lambda one, other: 1.1 * one + other, lambda one, other: one / 0])
def test_one_that_deviates_is_not_used_and_a_warning_says_so(answer, caplog):
    ways = Ways(first=2, second=1)
    ways.answers["second"] = answer
    fastest = ways.fastest()
    with caplog.at_level(logging.WARNING):
        assert ways.taken(fastest, *ONES) == "first"
    assert [record.getMessage() for record in caplog.records] == [
        "second is not used on this device: ArithmeticError: its results deviate"
    ]
    ways.answers["second"] = torch.add
    assert ways.taken(fastest, torch.ones(4), torch.ones(4)) == "first"


def test_one_that_raises_is_not_used(caplog):
    def broken(*arguments):
        raise RuntimeError("no such instruction")

    ways = Ways(first=2, second=1)
    ways.answers["second"] = broken
    assert ways.taken(ways.fastest(), *ONES) == "first"
    assert "second is not used on this device: RuntimeError: no such instruction" in caplog.text


def test_nothing_is_said_of_one_that_is_not_installed(caplog):
    def missing(*arguments):
        raise ModuleNotFoundError("No module named 'triton'")

    ways = Ways(first=2, second=1)
    ways.answers["second"] = missing
    assert ways.taken(ways.fastest(), *ONES) == "first"
    assert not caplog.records


def test_too_little_memory_is_for_the_caller():
    def large(*arguments):
        raise torch.OutOfMemoryError

    ways = Ways(first=2, second=1)
    ways.answers["second"] = large
    fastest = ways.fastest()
    with pytest.raises(torch.OutOfMemoryError):
        fastest(*ONES)
    ways.answers["second"] = torch.add
    assert ways.taken(fastest, *ONES) == "second"


def test_while_a_graph_is_captured_a_new_kind_takes_the_first(monkeypatch):
    ways = Ways(first=2, second=1)
    fastest = ways.fastest()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert ways.taken(fastest, *ONES) == "first"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert ways.taken(fastest, *ONES) == "second"

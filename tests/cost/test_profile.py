import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasseg.cost import profile as module
from nasseg.cost.backends import BACKENDS, Backend
from nasseg.cost.design import FEWEST_OF_A_KIND, find_operators, points_of, samples
from nasseg.cost.latency_table import LatencyTable, Operator, operators_of
from nasseg.cost.profile import PASSES, partial_file, profile, time_networks
from nasseg.cost.timing import Timing
from nasseg.network import Network
from nasseg.ops import Conv
from tests.jobs.tiny import TinySpace

from .made_up import CONDITIONS, SIZE

CPU = torch.device("cpu")
SPACE = TinySpace()
NETWORKS = samples(SPACE, 3, 10)
FIXED_MS = 3.0


def true_ms(part: nn.Module) -> float:
    """The time of a module on the made-up device."""
    if isinstance(part, Network):
        nodes = [node.name for node in part.architecture.nodes if node.inputs]
        return FIXED_MS + sum(true_ms(part.get_submodule(name)) for name in nodes)
    return 0.1 + sum(parameter.numel() for parameter in part.parameters()) / 1000


class Device:
    """A measurement of the truth plus a disturbance; stops as Ctrl-C does at its `stop_at`-th group."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.disturbance: Callable[[int], float] = lambda group: 1.0
        self.stop_at: int | None = None

    def time(self, runs: Mapping[str, Callable[[], float]], device: torch.device, **how: Any) -> dict[str, Timing]:
        if len(self.groups) == self.stop_at:
            raise KeyboardInterrupt
        factor = self.disturbance(len(self.groups))
        self.groups.append(len(runs))
        times = {name: run() * factor for name, run in runs.items()}
        return {
            name: Timing(median_ms=t, p95_ms=t, low_ms=t, high_ms=t, runs=20, calls_per_run=1, settled=True)
            for name, t in times.items()
        }


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    def prepare(part: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], float]:
        with torch.inference_mode():
            part.eval()(*inputs)
        return lambda: true_ms(part)

    made_up = Device()
    monkeypatch.setattr(module, "time_interleaved", made_up.time)
    monkeypatch.setattr(module, "inference_form", lambda part, inputs: part)
    monkeypatch.setitem(BACKENDS, CONDITIONS.backend, Backend(prepare, ("torch",)))
    return made_up


def run(out: Path, **options: Any) -> LatencyTable:
    return profile("tiny", points_of(SPACE, 3), NETWORKS, CONDITIONS, CPU, out, **options)


def test_every_operator_of_the_space_is_found() -> None:
    found = list(find_operators(points_of(SPACE, 3), SIZE))
    convolutions = {operator.op for operator in found if operator.inputs == ((12, 1, 2),)}
    assert convolutions >= {Conv(out_channels=width, kernel=k) for width in range(1, 17) for k in (1, 3, 5)}
    everywhere = {operator for network in NETWORKS for operator in operators_of(network, SIZE)}
    assert everywhere <= set(found)


def test_the_table_predicts_what_is_true(device: Device, tmp_path: Path) -> None:
    table = run(tmp_path / "table.json")
    assert table == LatencyTable.load(tmp_path / "table.json")
    assert table.calibration.scale == pytest.approx(1)
    assert table.calibration.fixed_ms + 6 * table.calibration.per_node_ms == pytest.approx(FIXED_MS)
    assert table.error.networks == 10
    assert table.error.mape_percent == pytest.approx(0, abs=1e-9)
    assert len(table.entries) == table.operators_found
    for unseen in samples(SPACE, 3, 5, seed="unseen"):
        assert table.latency_ms(unseen) == pytest.approx(true_ms(Network(unseen)))
    assert not partial_file(tmp_path / "table.json").exists()


def test_a_disturbance_that_passes_leaves_no_trace(device: Device, tmp_path: Path) -> None:
    calm = run(tmp_path / "calm.json")
    groups, device.groups = len(device.groups), []
    device.disturbance = lambda group: 4.0 if group < groups // 5 else 1.0
    disturbed = run(tmp_path / "disturbed.json")
    for entry, calmly in zip(disturbed.entries, calm.entries, strict=True):
        assert entry.operator == calmly.operator
        assert entry.median_ms == pytest.approx(calmly.median_ms)
    for unseen in samples(SPACE, 3, 5, seed="unseen"):
        assert disturbed.latency_ms(unseen) == pytest.approx(calm.latency_ms(unseen))


def test_every_group_may_have_a_pace_of_its_own(device: Device, tmp_path: Path) -> None:
    calm = run(tmp_path / "calm.json")
    device.groups, paces = [], random.Random(0)
    device.disturbance = lambda group: paces.uniform(1, 2)
    restless = run(tmp_path / "restless.json")
    ratios = [e.median_ms / calmly.median_ms for e, calmly in zip(restless.entries, calm.entries, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    unseen = samples(SPACE, 3, 5, seed="unseen")
    latencies = [restless.latency_ms(network) / true_ms(Network(network)) for network in unseen]
    assert latencies == pytest.approx([latencies[0]] * len(latencies))


def test_operators_take_turns_in_groups_and_all_networks_at_once(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPERATORS_TOGETHER", 7)
    found = len(run(tmp_path / "table.json").entries)
    assert sum(device.groups) == PASSES * (found + len(NETWORKS))
    assert max(device.groups[:-PASSES]) == 7
    assert device.groups[-PASSES:] == [len(NETWORKS)] * PASSES


def test_groups_fit_into_memory(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEBIBYTES_TOGETHER", 1e-9)
    monkeypatch.setattr(module, "NETWORKS_MEBIBYTES_TOGETHER", 1e-9)
    found = len(run(tmp_path / "alone.json").entries)
    assert device.groups == [1] * PASSES * (found + len(NETWORKS))


@pytest.mark.parametrize("stop_at", [0, 3, 13])
def test_a_stopped_profile_goes_on(device: Device, tmp_path: Path, stop_at: int) -> None:
    whole = run(tmp_path / "whole.json")
    groups, device.groups, device.stop_at = device.groups, [], stop_at
    out = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        run(out)
    assert not out.exists()
    assert partial_file(out).exists() == (stop_at > 0)
    device.stop_at = None
    table = run(out, resume=partial_file(out).exists())
    assert sum(device.groups) == sum(groups)  # nothing was measured twice
    assert table.model_copy(update={"measured_at": ""}) == whole.model_copy(update={"measured_at": ""})


def test_only_the_same_profile_goes_on(device: Device, tmp_path: Path) -> None:
    device.stop_at = 2
    out = tmp_path / "table.json"
    with pytest.raises(KeyboardInterrupt):
        run(out)
    with pytest.raises(ValueError, match=r"was measured with threads 1, but threads is 2 now; .* or remove "):
        profile(
            "tiny", points_of(SPACE, 3), NETWORKS, CONDITIONS.model_copy(update={"threads": 2}), CPU, out, resume=True
        )
    with pytest.raises(ValueError, match="is of other operators or networks; give the same --classes and --networks"):
        profile("tiny", points_of(SPACE, 3), NETWORKS[:-1], CONDITIONS, CPU, out, resume=True)
    content = json.loads(partial_file(out).read_text())
    content["operators"][0]["median_ms"][0] = -1
    partial_file(out).write_text(json.dumps(content))
    expected = r"table.json.partial: operators\[0\].median_ms\[0\] is -1, but must be greater than 0"
    with pytest.raises(ValueError, match=expected):
        run(out, resume=True)


def test_of_too_many_operators_some_are_measured_and_the_others_predicted(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST_OPERATORS", 40)
    monkeypatch.setattr(module, "MOST_OPERATORS", 40)
    table = run(tmp_path / "table.json")
    assert len(table.entries) <= 40 + FEWEST_OF_A_KIND < table.operators_found
    assert Operator(op=Conv(out_channels=8, stride=2), inputs=((3, *SIZE),)) in {e.operator for e in table.entries}
    unseen = samples(SPACE, 3, 20, seed="unseen")
    error = [abs(table.latency_ms(network) / true_ms(Network(network)) - 1) for network in unseen]
    assert max(error) < 0.1


def test_more_time_measures_more_operators_and_a_stopped_profile_keeps_its_own(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST_OPERATORS", 20)
    few, many = (run(tmp_path / f"{seconds}.json", limit_seconds=seconds) for seconds in (4, 8))
    assert len(few.entries) <= 40 + FEWEST_OF_A_KIND < 80 - FEWEST_OF_A_KIND <= len(many.entries)
    out, device.groups, device.stop_at = tmp_path / "table.json", [], 2
    with pytest.raises(KeyboardInterrupt):
        run(out, limit_seconds=4)
    device.stop_at = None
    assert run(out, limit_seconds=8, resume=True).entries == few.entries


def test_progress_ends_at_all_of_it(device: Device, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(tmp_path / "table.json", on_progress=lambda *progress: told.append(progress))
    for what in ("operators", "networks"):
        counts = [(done, of) for told_what, done, of in told if told_what == what]
        assert counts[0][0] == 0
        assert counts[-1][0] == counts[-1][1] > 0


def test_whole_networks_are_measured_in_their_order(device: Device) -> None:
    assert time_networks(NETWORKS, CONDITIONS, CPU, 1.0) == pytest.approx([true_ms(Network(n)) for n in NETWORKS])

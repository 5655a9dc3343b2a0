import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nasseg.data import open_dataset
from nasseg.graph import Architecture, Builder
from nasseg.jobs.worker import Worker
from nasseg.network import Network
from nasseg.ops import Add, Conv, Resize, logits1x1
from nasseg.planning.config import SearchConfig
from nasseg.planning.job import Candidate, Job, Outcome
from nasseg.train.checkpoint import load_checkpoint
from nasseg.train.fit import seeded_network
from nasseg.train.trainer import Trainer
from nasseg.train.weights.inheritance import WeightStore
from tests.jobs.tiny import DATA, SPACE, Head, TinySpace, tiny_config


def chain(*kernels: int, channels: int = 4, equal: bool = False) -> Architecture:
    """Convolutions one after the other, the last of them twice if `equal`."""
    g = Builder("chain")
    image = g.input()
    x = image
    for index, kernel in enumerate(kernels):
        before, x = x, g.add(f"cell.conv{index}", Conv(out_channels=channels, kernel=kernel), x)
    if equal:
        x = g.add("cell.sum", Add(), x, g.add("cell.again", Conv(out_channels=channels, kernel=kernels[-1]), before))
    return g.build(g.add("head.upsample", Resize(), g.add("head.logits", logits1x1(3), x), image))


def trained(architecture: Architecture, seed: int) -> Network:
    """A network whose weights and running statistics are those of no other seed."""
    network = seeded_network(architecture, seed)
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
        else:
            tensor.fill_(seed)
    return network


def equal(one: Network, other: Network, name: str) -> bool:
    ours, theirs = one.get_submodule(name).state_dict(), other.get_submodule(name).state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_node_gets_weights_and_statistics_from_its_name_operator_and_input_channels(tmp_path: Path) -> None:
    source, target = trained(chain(3, 3, 1), 1), trained(chain(3, 5, 1, 3), 2)
    before = trained(chain(3, 5, 1, 3), 2)
    WeightStore(tmp_path).save(source)
    inherited = {"cell.conv0", "cell.conv2", "head.logits"}
    assert WeightStore(tmp_path).load_into(target) == inherited
    assert all(equal(target, source, name) for name in inherited)
    assert all(equal(target, before, name) for name in ("cell.conv1", "cell.conv3"))


def test_other_input_channels_are_another_place(tmp_path: Path) -> None:
    WeightStore(tmp_path).save(trained(chain(3, 1), 1))
    assert WeightStore(tmp_path).load_into(trained(chain(3, 1, channels=8), 2)) == set()


def test_equal_nodes_of_one_network_keep_weights_of_their_own(tmp_path: Path) -> None:
    source, target = trained(chain(3, 5, equal=True), 1), trained(chain(3, 5, equal=True), 2)
    WeightStore(tmp_path).save(source)
    names = {"cell.conv0", "cell.conv1", "cell.again", "head.logits"}
    assert WeightStore(tmp_path).load_into(target) == names
    assert all(equal(target, source, name) for name in names)
    assert not torch.equal(target.get_parameter("cell.conv1.0.weight"), target.get_parameter("cell.again.0.weight"))


def test_an_empty_store_changes_nothing(tmp_path: Path) -> None:
    network = trained(chain(3), 1)
    assert WeightStore(tmp_path).load_into(network) == set()
    assert all(equal(network, trained(chain(3), 1), name) for name in ("cell.conv0", "head.logits"))


def test_the_first_weights_of_a_node_stay(tmp_path: Path) -> None:
    store, target = WeightStore(tmp_path), trained(chain(3, 5), 3)
    store.save(trained(chain(3), 1))
    store.save(trained(chain(3, 5), 2))
    assert store.load_into(target) == {"cell.conv0", "cell.conv1", "head.logits"}
    assert equal(target, trained(chain(3), 1), "cell.conv0")
    assert equal(target, trained(chain(3, 5), 2), "cell.conv1")


def test_a_damaged_file_is_not_found_and_then_replaced(tmp_path: Path) -> None:
    store, target = WeightStore(tmp_path), trained(chain(3), 3)
    store.save(trained(chain(3), 1))
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert store.load_into(target) == set()
    assert equal(target, trained(chain(3), 3), "cell.conv0")
    store.save(trained(chain(3), 1))
    assert store.load_into(target) == {"cell.conv0", "head.logits"}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def age(folder: Path) -> None:
    """Make every file an hour older."""
    for file in folder.iterdir():
        used = file.stat().st_mtime - 3600
        os.utime(file, (used, used))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    first, second, third = (trained(chain(3, channels=channels), 1) for channels in (4, 5, 6))
    WeightStore(tmp_path / "all").save(third)
    store = WeightStore(tmp_path / "some")
    store.save(first)
    age(store.folder)
    store.save(second)
    age(store.folder)
    assert store.load_into(first) == {"cell.conv0", "head.logits"}
    kept = size(store.folder) + size(tmp_path / "all") - 1
    WeightStore(store.folder, kept).save(third)
    assert size(store.folder) <= kept
    assert store.load_into(third) == store.load_into(first) == {"cell.conv0", "head.logits"}
    assert len(store.load_into(second)) < 2


def test_a_limit_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit_bytes is 0, but must be positive"):
        WeightStore(tmp_path, 0)


def proxy(config: SearchConfig, folder: Path, choice: Head, start: int = 0, stop: int = 2) -> Outcome:
    """Run one job with a new worker."""
    folder.mkdir(exist_ok=True)
    candidate = Candidate(key=f"{choice.kernel}-{choice.channels}", choice=choice.model_dump(mode="json"))
    job = Job(number=1, task="proxy", candidates=(candidate,), seed=0, start_step=start, stop_step=stop)
    return Worker.open(config, folder).run(job).outcomes[0]


def start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Return the weights that a new trial starts from."""
    starts = []

    class Recorded(Trainer):
        def __init__(self, network: Network, *rest: Any) -> None:
            starts.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
            super().__init__(network, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("nasseg.jobs.proxy.Trainer", Recorded)
        proxy(ON_IMAGES, folder, NARROW)
    return starts[0]


CLASSES = len(open_dataset(DATA).classes)
ON_IMAGES = tiny_config(space=f"{SPACE}:shared=false")
NARROW, WIDE = Head(kernel=3, channels=4), Head(kernel=5, channels=16)


def test_a_trial_starts_from_what_an_earlier_one_ended_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy(ON_IMAGES, tmp_path, WIDE)
    ended = load_checkpoint(tmp_path / "checkpoints" / "5-16-proxy2.pt")["network"]
    fresh = seeded_network(TinySpace(shared=False).architecture(NARROW, CLASSES), 0).state_dict()
    for name, tensor in start(tmp_path, monkeypatch).items():
        expected = ended if name.startswith("backbone") else fresh
        assert torch.equal(tensor, expected[name]), name


def test_a_promotion_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    alone, among_others = tmp_path / "alone", tmp_path / "among"
    for folder in (alone, among_others):
        proxy(ON_IMAGES, folder, NARROW)
    proxy(ON_IMAGES, among_others, WIDE)
    assert proxy(ON_IMAGES, among_others, NARROW, 2, 6) == proxy(ON_IMAGES, alone, NARROW, 2, 6)


def test_nothing_is_inherited_where_that_is_off_or_features_are_cached(tmp_path: Path) -> None:
    off = ON_IMAGES.model_copy(update={"inherit": False})
    first = proxy(off, tmp_path / "off", NARROW)
    proxy(off, tmp_path / "off", WIDE)
    assert proxy(off, tmp_path / "off", NARROW) == first
    (tmp_path / "cached").mkdir()
    assert Worker.open(tiny_config(), tmp_path / "cached").proxy.weights is None


LIMIT = 2000  # less than what two of the networks below take, so that files come and go


def write_and_read(folder: Path, seed: int) -> None:
    store, networks = WeightStore(folder, LIMIT), [trained(chain(3, channels=channels), seed) for channels in (4, 5)]
    for _ in range(15):
        for network in networks:
            store.save(network)
            target = trained(network.architecture, 100)
            for name in store.load_into(target):
                written = [trained(network.architecture, writer) for writer in range(3)]
                assert any(equal(target, source, name) for source in written), name


@pytest.mark.slow
def test_many_processes_write_and_read_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_and_read, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert size(tmp_path) <= LIMIT
    assert not list(tmp_path.glob(".*"))

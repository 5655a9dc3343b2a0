from pathlib import Path

from examples.own_baseline import small
from nasseg.graph import save
from tests.examples.command import printed


def test_the_loss_of_a_network_in_a_file_falls(tmp_path: Path) -> None:
    save(small(13), tmp_path / "best.json")
    losses = [float(line.split()[-1]) for line in printed("own_training", str(tmp_path / "best.json")).splitlines()]
    assert len(losses) == 5
    assert losses[-1] < 0.9 * losses[0]

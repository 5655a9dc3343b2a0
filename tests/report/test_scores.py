from rich.console import Console

from nasseg.report.scores import score_table
from nasseg.train.metrics import Metrics


def test_names_in_brackets_are_no_markup() -> None:
    metrics = Metrics(miou=0.5, class_iou=(0.25, 0.75), pixel_accuracy=0.5, confusion=((1, 1), (1, 1)))
    console = Console(width=60)
    with console.capture() as shown:
        console.print(score_table("a/[raw]", ("[sky]", "[/void]"), metrics))
    for text in ("a/[raw]", "[sky]", "[/void]"):
        assert text in shown.get()

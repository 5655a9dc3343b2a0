import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from nasseg import plugins
from nasseg.graph import save
from nasseg.space import Space
from search_spaces.dpc import DPC
from tests.train.made_up import small_architecture


def users_space(text: str) -> Space[Any]:
    return plugins.space(text, named_by_user=text)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("a=1", {"a": 1}),
        ("norm=none,bias=true,rate=0.5,size=3x4", {"norm": "none", "bias": True, "rate": 0.5, "size": "3x4"}),
    ],
)
def test_options_are_numbers_truths_or_words(text: str, options: dict[str, Any]) -> None:
    assert plugins.parse_options(text, "net") == options


@pytest.mark.parametrize("text", ["a", "=1", "a=1,a=2", "a=1,b"])
def test_options_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^net: option '.*' must be KEY=VALUE, each key once"):
        plugins.parse_options(text, "net")


def test_a_baseline_by_name_with_options_and_classes() -> None:
    narrow = plugins.baseline("unet:in_channels=1,norm=none", 5)
    assert (narrow.classes, narrow.channels("image")) == (5, 1)
    assert narrow.key == plugins.baseline("unet", 5, in_channels=1, norm="none").key
    assert plugins.baseline("unet").classes == 19


def test_a_space_by_name_or_by_class() -> None:
    assert plugins.space("dpc") == DPC()
    assert plugins.space("dpc:branches=3,backbone=resnet18") == DPC(branches=3, backbone="resnet18")
    text = "search_spaces.dpc:DPC:branches=3"
    for named in (text, "search_spaces.dpc:DPC"):
        assert plugins.space(text, named_by_user=named) == DPC(branches=3)


def test_a_class_that_nobody_named_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_space_of_ones_own.py").write_text("raise AssertionError")
    text = "a_space_of_ones_own:Space:size=3"
    for named in (None, "dpc", "a_space_of_ones_own:Other", "a_space_of_ones_own:Space:size=4"):
        with pytest.raises(ValueError, match=r"^net\.json: space .*a_space_of_ones_own:Space.*"):
            plugins.space(text, named_by_user=named, where="net.json")
    with pytest.raises(AssertionError):
        plugins.space(text, named_by_user=text)


def test_a_registered_name_must_stand_for_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = EntryPoint("shell", "torch.utils.collect_env:run", plugins.SPACES)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [shell])
    with pytest.raises(
        ValueError, match=r"^shell is not a search space; give a class that implements nasseg\.space\.Space$"
    ):
        plugins.space(f"shell:command=touch {tmp_path / 'called'}")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("call", "text", "line"),
    [
        (plugins.baseline, "unett", "unknown baseline 'unett'; known: aspp, auto_deeplab-l, "),
        (plugins.baseline, "unet:depth=3", "unet: unknown option 'depth'; known: in_channels, norm, bias, decoder"),
        (plugins.baseline, "unet:in_channels=few", "unet: in_channels is 'few', but must be a valid integer"),
        (plugins.space, "dpd", "unknown search space 'dpd'; known: auto_deeplab, dpc"),
        (plugins.space, "dpc:arms=3", "unknown option 'arms'; known: branches"),
        (plugins.space, "dpc:branches=0", "branches is 0, but must be greater than or equal to 1"),
        (users_space, "search_spaces.dpc:DPX", "search_spaces.dpc:DPX cannot be imported"),
        (users_space, "search_spaces.dpd:DPC", "search_spaces.dpd:DPC cannot be imported"),
        (users_space, "search_spaces.dpc", "unknown search space 'search_spaces.dpc'; known: auto_deeplab, dpc"),
        (
            users_space,
            "torch.utils.collect_env:run:command=id",
            "torch.utils.collect_env:run is not a search space; give",
        ),
        (users_space, "search_spaces.dpc:Cell", "search_spaces.dpc:Cell is not a search space; give a class that"),
        (users_space, "nasseg.space:Space", "nasseg.space:Space is not a search space; give a class that implements"),
        (plugins.architecture, "nothing", "unknown architecture 'nothing'; give a file such as best.json, or one of"),
        (plugins.architecture, "nothing.json", "nothing.json: no such file; give a best.json, or a baseline's name"),
    ],
)
def test_what_is_unknown_names_the_known(call: Any, text: str, line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        call(text)
    assert "\n" not in str(error.value)


def test_a_space_stands_for_its_best_published_point() -> None:
    space = DPC(filters=8)
    assert plugins.architecture("dpc:filters=8").key == space.architecture(space.references()["dpc"], 19).key
    assert plugins.architecture("dpc:filters=8", 4).classes == 4


def test_a_file_keeps_its_classes(tmp_path: Path) -> None:
    for name in ("best.json", "best"):
        save(small_architecture(), tmp_path / name)
        assert plugins.architecture(str(tmp_path / name), 4) == small_architecture()


def test_a_name_goes_before_a_folder_that_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdc1").mkdir()
    assert plugins.architecture("stdc1").name == "stdc1"
    assert not plugins.is_file("dpc")
    assert plugins.is_file("dpc.json")


@pytest.mark.parametrize("space", ["dpc:filters=8", "search_spaces.dpc:DPC:filters=8", "dpc"])
def test_a_point_in_a_file_may_have_other_options(space: str, tmp_path: Path) -> None:
    points = DPC(filters=8)
    choice = points.references()["aspp"]
    provenance = {"seed": 3, "miou": {"proxy": 0.5}, "latency": None}
    found = points.architecture(choice, 5).replace(
        space=space, choice=choice.model_dump(mode="json"), provenance=provenance
    )
    save(found, tmp_path / "best.json")
    name = space.removesuffix(":filters=8")
    wider = plugins.architecture(f"{tmp_path / 'best.json'}:filters=16,decoder=true", named_by_user=name)
    assert wider.key == DPC(filters=16, decoder=True).architecture(choice, 5).key
    assert wider.choice == found.choice
    assert wider.provenance == {"seed": 3, "miou": {}, "latency": None}
    assert wider.space is not None
    assert users_space(wider.space) == DPC(filters=16, decoder=True)
    with pytest.raises(ValueError, match="unknown option 'colour'; known: branches"):
        plugins.architecture(f"{tmp_path / 'best.json'}:colour=1", named_by_user=name)


def test_a_network_of_no_space_has_no_options(tmp_path: Path) -> None:
    save(small_architecture(), tmp_path / "net.json")
    with pytest.raises(ValueError, match=r"net\.json is not a point of a search space, .* leave out 'filters=16'"):
        plugins.architecture(f"{tmp_path / 'net.json'}:filters=16")

import random
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nasseg import plugins
from nasseg.data import denormalise, normalise, open_dataset
from nasseg.export import options as options_module
from nasseg.export.agreement import agreements, as_taken
from nasseg.export.card import card
from nasseg.export.export import export
from nasseg.export.files import OnnxNetwork, ProgramNetwork, with_info
from nasseg.export.model import Model
from nasseg.export.options import FORMATS, ExportInfo, ExportOptions
from nasseg.export.shipped import onnx_of, program_of
from nasseg.network import Network
from nasseg.train.fit import seeded_network
from nasseg.train.model import save_model
from tests.train.made_up import CLASSES, DATA, provenance, small_architecture

SIZE = (32, 64)


@pytest.fixture
def network() -> Network:
    network = seeded_network(small_architecture(), 0)
    network(torch.rand(2, 3, *SIZE))  # moves the running statistics
    network.head.logits.weight.data.mul_(100)  # type: ignore[union-attr, operator]
    return seeded_copy(network)


def seeded_copy(network: Network) -> Network:
    copy = Network(network.architecture.inference())
    copy.load_state_dict({name: network.state_dict()[name] for name in copy.state_dict()})
    return copy.eval()


def info(**options: object) -> ExportInfo:
    asked = ExportOptions.model_validate({"size": SIZE, **options})
    return ExportInfo(architecture="small", params=1, madds=1, options=asked, provenance=provenance())


def opened(network: Network, said: ExportInfo) -> OnnxNetwork:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    return OnnxNetwork(with_info(onnx_of(network, said.options), said), "small.onnx")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"images": "any"},
        {"images": "any", "normalise": True, "argmax": True},
        {"images": "resized", "normalise": True},
    ],
    ids=str,
)
def test_an_onnx_file_computes_what_pytorch_does(network: Network, options: dict[str, object]) -> None:
    exported = opened(network, info(**options))
    images = [open_dataset(DATA).split("val")[index].image for index in range(2)]
    found = list(agreements(network, exported, images))
    sizes = [SIZE] if exported.info.options.images == "fixed" else [SIZE, (31, 63)]
    assert [(agreement.size, agreement.images) for agreement in found] == [(size, 2) for size in sizes]
    for agreement in found:
        assert agreement.largest_logit > 0.5
        assert agreement.changed_pixels < 0.01
        if not exported.info.options.argmax:
            assert agreement.largest_difference is not None
            assert agreement.largest_difference < 1e-4 * agreement.largest_logit


def test_a_file_that_resizes_gives_its_result_at_the_images_size(network: Network) -> None:
    exported = opened(network, info(images="resized", normalise=True, argmax=True))
    taken = torch.randint(256, (1, 3, 50, 81), dtype=torch.uint8)
    assert exported.run(taken).shape == (1, 50, 81)
    assert exported.run(taken).dtype == torch.uint8


@pytest.mark.parametrize(("format", "share"), [("torch", 0.0), ("torch-bfloat16", 0.2)])
def test_a_program_of_pytorch_computes_it_too(network: Network, format: str, share: float) -> None:
    said = info(format=format, images="any")
    exported = ProgramNetwork(program_of(network, said.options), said)
    images = [open_dataset(DATA).split("val")[0].image]
    for agreement in agreements(network, exported, images):
        assert agreement.changed_pixels <= share
        assert (agreement.largest_difference or 0) < max(1e-5, share) * max(1, agreement.largest_logit)


def test_a_file_of_a_fixed_size_refuses_others(network: Network) -> None:
    exported = opened(network, info())
    with pytest.raises(ValueError, match="takes images of 32x64, but was given one of 33x64; export with --images any"):
        exported(torch.rand(1, 3, 33, 64))


def test_a_file_that_does_not_run_as_it_says_is_refused(network: Network) -> None:
    onnx = pytest.importorskip("onnx")
    said = info(images="any")
    model = onnx.load_model_from_string(onnx_of(network, said.options))
    data = said.provenance.data
    more = data.model_copy(update={"classes": (*data.classes, "other"), "palette": (*data.palette, (1, 2, 3))})
    other = said.model_copy(update={"provenance": said.provenance.model_copy(update={"data": more})})
    image = torch.rand(1, 3, *SIZE)
    with pytest.raises(
        ValueError, match=rf"gives \(1, {CLASSES}, 32, 64\) for \(1, {CLASSES + 1}, 32, 64\); export it"
    ):
        OnnxNetwork(with_info(model.SerializeToString(), other), "other.onnx")(image)
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(
        ValueError, match=r"^broken\.onnx does not run \(.*nothing.*\); export it again with nasseg export"
    ):
        OnnxNetwork(with_info(model.SerializeToString(), said), "broken.onnx")


def test_logits_and_classes_score_alike(network: Network) -> None:
    plain, whole = opened(network, info()), opened(network, info(normalise=True, argmax=True))
    image = normalise(open_dataset(DATA).split("val")[0].image[None])
    assert whole(image).shape == (1, CLASSES, *SIZE)
    assert (plain(image).argmax(1) == whole(image).argmax(1)).float().mean() > 0.99


def test_normalising_is_undone_exactly() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[:, None]
    assert torch.equal(denormalise(normalise(pixels)), pixels)


def test_an_image_of_another_size_is_resized_for_a_file_of_fixed_size() -> None:
    image = torch.full((3, 40, 90), 77, dtype=torch.uint8)
    taken = as_taken(image, ExportOptions(size=SIZE, normalise=True))
    assert taken.shape == (1, 3, *SIZE)
    assert (taken == 77).all()


def test_the_lines_of_a_card_resize_an_image_as_the_file_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(256, size=(40, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg", quality=100)
    made = info(images="fixed", normalise=True)
    (line,) = (line for line in card("model.onnx", made, (), {}, {}).splitlines() if line.startswith("image ="))
    names = {"np": np, "Image": Image}
    exec(line, names)
    photo = np.asarray(Image.open("photo.jpg")).transpose(2, 0, 1)
    taken = as_taken(torch.from_numpy(photo.copy()), made.options)
    assert abs(np.asarray(names["image"]).astype(int) - taken.numpy()).max() <= 1


def test_int8_is_calibrated_scored_and_smaller(network: Network, tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    data, lines = open_dataset(DATA), []
    done = export(
        network,
        provenance(),
        ExportOptions(format="int8", size=SIZE),
        tmp_path / "small.onnx",
        shown=data.split("val"),
        calibration=data.split("train"),
        calibration_images=4,
        say=lines.append,
    )
    assert "calibrating on 4 images of train" in lines
    assert set(done.mious) == {"PyTorch, val", "int8, val"}
    assert abs(done.mious["PyTorch, val"] - done.mious["int8, val"]) < 0.1
    assert {name: latency.dtype for name, latency in done.latencies.items()} == {"PyTorch": "float32", "int8": "int8"}
    text = done.card.read_text()
    assert all(part in text for part in ("mIoU, int8, val", "InferenceSession", "bus lane", "32x64", "int8"))
    model = Model.load(done.path)
    assert model.provenance == provenance()
    assert model.predict(np.zeros((*SIZE, 3), np.uint8)).shape == SIZE


def test_a_model_segments_numpy_images_of_any_size(network: Network, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", network, provenance())
    model = Model.load(tmp_path)
    image = np.random.default_rng(0).integers(256, size=(41, 67, 3), dtype=np.uint8)
    expected = network(normalise(torch.from_numpy(image).permute(2, 0, 1)[None])).argmax(1)[0]
    mask = model.predict(image)
    assert (mask.dtype, mask.shape) == (np.uint8, (41, 67))
    assert np.array_equal(mask, expected.numpy())
    assert model.predict(image, window=(32, 32), flip=True).shape == (41, 67)
    assert model.describe(SIZE).params == sum(weight.numel() for weight in network.parameters())
    assert model.classes[1] == "bus lane"
    with pytest.raises(ValueError, match=r"image is float64 \(41, 67, 3\), but must be uint8 \(H, W, 3\)"):
        model.predict(image / 255)  # type: ignore[arg-type]


def test_files_that_are_no_exports_are_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model" * 9)
    with pytest.raises(ValueError, match=r"bad\.onnx (is not an ONNX file|was not exported by nasseg)"):
        Model.load(tmp_path / "bad.onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="was not exported by nasseg, so its classes are unknown"):
        Model.load(tmp_path / "other.onnx")
    weight = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    graph = onnx.helper.make_graph([], "outside", [], [], initializer=[weight])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "outside.onnx")
    with pytest.raises(ValueError, match="holds weights in other files, which no export does; export it again"):
        Model.load(tmp_path / "outside.onnx")
    branch = onnx.helper.make_graph([], "branch", [], [])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "branches", [], [])), tmp_path / "branches.onnx")
    with pytest.raises(ValueError, match="holds loops, branches or functions, which no export does"):
        Model.load(tmp_path / "branches.onnx")
    with pytest.raises(ValueError, match=r"model\.pt2: opening a \.pt2 file runs code in it; give the run"):
        Model.load(tmp_path / "model.pt2")
    with pytest.raises(ValueError, match=r"none\.onnx: no such file; give a file that nasseg export wrote"):
        Model.load(tmp_path / "none.onnx")


def test_a_missing_package_is_named_with_pips_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(package: str) -> ModuleSpec | None:
        return None if package == "onnxscript" else ModuleSpec(package, None)

    monkeypatch.setattr(options_module, "find_spec", find)
    with pytest.raises(ValueError, match=r"^format int8 needs the package onnxscript; pip install 'nasseg\[export\]'$"):
        ExportOptions(format="int8", size=SIZE).check_packages()
    ExportOptions(format="torch", size=SIZE).check_packages()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"small.onnx needs the package onnx; pip install"):
        OnnxNetwork(b"", "small.onnx")


def test_options_name_what_is_known() -> None:
    with pytest.raises(ValueError, match=f"format is 'tflite', but must be one of {', '.join(FORMATS)}"):
        ExportOptions(format="tflite", size=SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in ("ppliteseg", "unet", "dpc:filters=16")),
        "fcn8s:fc_channels=64",
        "encoder_decoder",
    ],
)
def test_networks_become_onnx_files_for_any_size(name: str) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    if name.partition(":")[0] in plugins.names(plugins.BASELINES):
        architecture = plugins.baseline(name, CLASSES)
    else:
        space = plugins.space(name)
        architecture = space.architecture(space.sample(random.Random(1)), CLASSES)
    network = seeded_network(architecture.inference(), 0).eval()
    exported = opened(network, info(images="any"))
    image = open_dataset("streets:size=64x96,val=1").split("val")[0].image
    for agreement in agreements(network, exported, [image]):
        assert agreement.largest_difference is not None
        assert agreement.largest_difference < 1e-3 * max(agreement.largest_logit, 1e-3)

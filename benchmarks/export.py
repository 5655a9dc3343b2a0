"""What is exported against PyTorch, on real images of two sizes, one of them odd: largest differences of the logits.

    python benchmarks/export.py --data folder:CAMVID --out export.jsonl

Every baseline and ten random points of each space, exported once, for any size, as ONNX (run by ONNX Runtime) and by
`torch.export`. Untrained, class scores would all be near zero and batch norms would do nothing: here norms have random
statistics, and class scores are scaled until they deviate by 1. Beside the differences stands how far PyTorch's own
logits in float32 are from those in float64. One network a line of JSON; a second run adds
those that are missing, and the last line of stdout is a summary.
"""

import argparse
import copy
import json
import logging
import random
import time
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from nasseg import plugins
from nasseg.cost.backends import to_onnx, to_program
from nasseg.cost.inference import inference_form
from nasseg.data import normalise, open_dataset
from nasseg.network import Network

SPACES = ("dpc", "auto_deeplab:layers=8,blocks=4,filters=8", "encoder_decoder")
POINTS = 10
SIZES = ((180, 240), (173, 227))
IMAGES = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="networks whose names begin so")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    args.out.touch()
    rows = [json.loads(line) for line in args.out.read_text().splitlines()]
    dataset = open_dataset(args.data)
    split = dataset.split(args.split)
    images = [split[len(split) // IMAGES * number].image for number in range(IMAGES)]
    views = [torch.stack([normalise(image[:, :height, :width]) for image in images]) for height, width in SIZES]
    done = {row["network"] for row in rows}
    for name, build in networks(len(dataset.classes)):
        if name in done or not name.startswith(args.only):
            continue
        row = {"network": name, **compared(build().inference(), views)}
        rows.append(row)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{name:42} " + ", ".join(f"{key} {value:.3g}" for key, value in row.items() if key != "network"),
            flush=True,
        )
    kinds = ("onnx", "torch", "float64")
    summary = {"networks": len(rows), **{kind: max(row[kind] for row in rows) for kind in kinds}}
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    print(json.dumps({**summary, "sizes": SIZES, "images": IMAGES, "versions": versions}))


def networks(classes):
    """Every network by its name, and how to build it."""
    for name in plugins.names(plugins.BASELINES):
        if not name.endswith("classifier"):
            yield name, lambda name=name: plugins.architecture(name, classes)
    for text in SPACES:
        space = plugins.space(text, named_by_user=text)
        for number in range(POINTS):
            choice = space.sample(random.Random(number))
            yield f"{text} {number}", lambda choice=choice, space=space: space.architecture(choice, classes)


@torch.no_grad()
def compared(architecture, views):
    start = time.monotonic()
    example = views[0][:1]
    network = as_if_trained(architecture, example)
    exact = copy.deepcopy(network).double()
    form = inference_form(network, (example,))
    program = to_program(form, (example,), any_size=True)
    onnx = to_onnx(program)
    export_seconds = time.monotonic() - start
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx, options, ["CPUExecutionProvider"])
    exported = program.module()
    found = {"onnx": 0.0, "torch": 0.0, "float64": 0.0, "largest_logit": 0.0}
    for image in (image[None] for view in views for image in view):
        logits = network(image)
        (by_onnx,) = session.run(None, {"image": image.numpy()})
        found["onnx"] = max(found["onnx"], float((torch.from_numpy(by_onnx) - logits).abs().max()))
        found["torch"] = max(found["torch"], float((exported(image) - logits).abs().max()))
        found["float64"] = max(found["float64"], float((exact(image.double()) - logits).abs().max()))
        found["largest_logit"] = max(found["largest_logit"], float(logits.abs().max()))
    return {**found, "export_seconds": export_seconds, "onnx_mib": len(onnx) / 2**20}


def as_if_trained(architecture, image):
    torch.manual_seed(0)
    network = Network(architecture).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.8, 1.2)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.1)
    deviation = network(image).std()
    for name, layer in network.named_modules():
        if name.rpartition(".")[2].startswith("logits"):
            for parameter in layer.parameters():
                parameter.div_(deviation)
    return network


if __name__ == "__main__":
    main()

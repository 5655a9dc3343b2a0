"""What a narrower backbone gains from published weights, and from which of their channels it takes.

    python benchmarks/remapping.py --data folder:DATA --weights WEIGHTS --train-split search-train \
        --val-split search-val

DeepLabV3+ on a backbone of which each stage keeps a share of the channels is trained for a few steps from

    remapped    the most important channels of the published weights, as `--weights` gives them
    first       the first channels of each tensor, the same everywhere but blind to importance
    random      no published weights

and the published shape from its own weights for comparison. The table gives mIoU on the validation split by seed.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch

from baselines.backbones import BACKBONES, Shape, Stage
from nasseg import plugins
from nasseg.data import evaluation_batches, open_dataset
from nasseg.data.resized import Resized
from nasseg.train.evaluate import evaluate
from nasseg.train.fit import fit, seeded_network
from nasseg.train.recipes import short
from nasseg.train.weights.loading import load_backbone, load_pretrained, read_weights

STAGES = {"resnet18": 4, "resnet50": 4}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--val-split", default="val")
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--backbone", default="mobilenetv2", choices=sorted(BACKBONES))
    parser.add_argument("--width", type=float, default=0.75)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    dataset = open_dataset(args.data)
    train, val = (Resized(dataset.split(name), args.image_scale) for name in (args.train_split, args.val_split))
    narrow = Shape(stages=[Stage(width=args.width)] * STAGES.get(args.backbone, 7))
    starts = {"remapped": narrow, "first": narrow, "random": narrow, "published shape": None}
    results = {start: [] for start in starts}
    for seed in range(args.seeds):
        for start, shape in starts.items():
            results[start].append(trained(args, start, shape, seed, train, val))
            print(f"{start}, seed {seed}: {results[start][-1]:.3f}", flush=True)

    print(f"\n{'start':18}{'mIoU':>8}   by seed")
    for start, scores in results.items():
        print(f"{start:18}{statistics.mean(scores):8.3f}   {', '.join(f'{score:.3f}' for score in scores)}")
    document = {"benchmark": "remapping", **vars(args), "weights": args.weights.name, "torch": torch.__version__}
    print(json.dumps({**document, "miou": results}))


def trained(args, start, shape, seed, train, val):
    """Validation mIoU after a training from one start."""
    device, classes = torch.device(args.device), len(train.classes)
    architecture = plugins.baseline(f"deeplabv3plus-{args.backbone}", classes, filters=args.filters, shape=shape)
    network = seeded_network(architecture, seed)
    if start == "first":
        load_backbone(network, first_channels(read_weights(args.weights), network))
    elif start != "random":
        load_pretrained(network, args.weights)
    height, width = train[0].mask.shape
    recipe = short(args.steps, crop=(height, width))
    trainer, _ = fit(network, recipe, train, device=device, seed=seed)
    batches = (batch for batch, _ in evaluation_batches(val, 8, device))
    return evaluate(trainer.ema_network(), batches, classes, val.ignore_index, device).miou


def first_channels(weights, network):
    """Each tensor cut to the size that the network has room for."""
    own = network.state_dict()
    return {
        name: tensor[tuple(slice(size) for size in own[f"backbone.{name}"].shape)].clone()
        for name, tensor in weights.items()
        if f"backbone.{name}" in own
    }


if __name__ == "__main__":
    main()

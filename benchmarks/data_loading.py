"""How many images a second loading gives, and whether a training waits for them.

    python benchmarks/data_loading.py --data folder:DATA --crop 360x480

In turns, each from its own start:

- scale, then crop: a DataLoader as it is usually written. Each sample is decoded, scaled as a whole, padded, cropped,
  mirrored, recoloured and normalised in a worker process.
- same views: a DataLoader whose workers decode each sample and compute nasseg's view of it: only the crop is scaled.
- nasseg: images decoded once into a file, views in threads.

All have as many workers or threads, the same distribution of scales, crops, flips and colours, and one thread for each
operator. Then a network trains on what nasseg loads; the share of the time in which it waited is printed.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import islice, repeat
from pathlib import Path

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from nasseg import baseline
from nasseg.allocator import keep_freed_memory
from nasseg.cli.options import parse_size
from nasseg.data import Augment, open_dataset, training_batches
from nasseg.data.augment import normalise
from nasseg.data.decoded import decoded
from nasseg.train.fit import Fitting, seeded_network
from nasseg.train.provenance import versions
from nasseg.train.recipe import Recipe

IGNORED = 255


class ScaleThenCrop(Dataset):
    """Decoded anew and augmented as a whole, a sample at a time."""

    def __init__(self, split, augment):
        self.split, self.augment = split, augment

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        sample, (low, high) = self.split[index], self.augment.scale
        chance = torch.rand(7).tolist()
        factor = low * (high / low) ** chance[0]
        size = [max(1, round(length * factor)) for length in sample.mask.shape]
        image = F.interpolate(sample.image[None].float() / 255, size, mode="bilinear", antialias=True)[0]
        mask = F.interpolate(sample.mask[None, None], size, mode="nearest-exact")[0, 0]
        height, width = self.augment.crop
        padding = (0, max(0, width - size[1]), 0, max(0, height - size[0]))
        image, mask = F.pad(image, padding), F.pad(mask, padding, value=IGNORED)
        top = int(chance[1] * (mask.shape[0] - height + 1))
        left = int(chance[2] * (mask.shape[1] - width + 1))
        image, mask = (tensor[..., top : top + height, left : left + width] for tensor in (image, mask))
        if chance[3] < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        brightness, contrast, saturation = (1 + self.augment.colour * (2 * c - 1) for c in chance[4:])
        image = kornia.enhance.adjust_brightness_accumulative(image, brightness)
        image = kornia.enhance.adjust_contrast_with_mean_subtraction(image, contrast)
        image = kornia.enhance.adjust_saturation_with_gray_subtraction(image, saturation)
        return normalise(image * 255), mask.long()


class SameViews(Dataset):
    """Decoded anew, with nasseg's view, a sample at a time."""

    def __init__(self, split, augment):
        self.split, self.augment = split, augment

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        sample = self.split[index]
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        views, masks = self.augment([sample.image], [sample.mask], generator, IGNORED)
        return views[0], masks[0]


def endless(dataset, batch_size, readers):
    for _ in repeat(None):
        yield from DataLoader(dataset, batch_size, shuffle=True, num_workers=readers, drop_last=True)


def images_per_s(batches, batch_size, count):
    """The rate once the first batch is there."""
    next(batches)
    start = time.perf_counter()
    for _ in islice(batches, count):
        pass
    rate = count * batch_size / (time.perf_counter() - start)
    batches.close()
    return rate


def waiting(split, recipe, readers, network):
    """The share of the time of the steps in which they wait, and seconds a step, after the first steps."""
    architecture = baseline(network, num_classes=len(split.classes))
    fitting = Fitting(
        seeded_network(architecture, 0), recipe, split, device=torch.device("cpu"), seed=0, readers=readers
    )
    fitting.run(3)
    waited, start = fitting.pace.waited_s, time.perf_counter()
    fitting.run(recipe.steps)
    seconds = time.perf_counter() - start
    return (fitting.pace.waited_s - waited) / seconds, seconds / (recipe.steps - 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop", default="360x480")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--network", default="lraspp:backbone=mobilenetv2,width=0.5")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as wherever a network is trained on the CPU
    split = open_dataset(args.data).split(args.split)
    recipe = Recipe(steps=args.steps, batch_size=args.batch_size, crop=parse_size(args.crop), colour=0.3)
    augment = Augment(crop=recipe.crop, scale=recipe.scale, flip=True, colour=0.3)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        kept = decoded(split, args.readers, folder=Path(folder))
        decoding_s = time.perf_counter() - start
        loaders = {
            "scale, then crop": lambda: endless(ScaleThenCrop(split, augment), args.batch_size, args.readers),
            "same views": lambda: endless(SameViews(split, augment), args.batch_size, args.readers),
            "nasseg": lambda: training_batches(kept, augment, args.batch_size, 0, readers=args.readers),
        }
        rates = {name: [] for name in loaders}
        for _ in range(args.rounds):
            for name, make in loaders.items():
                rates[name].append(images_per_s(make(), args.batch_size, args.batches))
        share, step_s = waiting(kept, recipe, args.readers, args.network)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratios = {name: statistics.median(np.divide(rates["nasseg"], found)) for name, found in rates.items()}
    print(f"{args.data}, {len(split)} images, crops {args.crop}, {args.readers} workers or threads")
    print(f"decoding once: {decoding_s:.1f} s")
    for name in loaders:
        print(f"{name:18}{medians[name]:8.0f} images/s   nasseg: {ratios[name]:.2f} times")
    print(f"{args.network}: {step_s:.2f} s a step, {share:.1%} of it waiting for data")
    document = {
        **vars(args),
        "images": len(split),
        "decoding_s": decoding_s,
        "images_per_s": rates,
        "times": ratios,
        "step_s": step_s,
        "waiting_share": share,
        "versions": versions(),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()

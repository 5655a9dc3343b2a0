"""The memory that a search expects a job to take, beside what a process that trains really takes.

    python benchmarks/job_memory.py

Each network is trained in a process of its own for a few steps; its peak resident memory, less what it had before it
built the network, is compared with the count of a training step (`Speed.job_bytes`), and with that at half the scale
scaled up as a plan does. With `--device cuda`, PyTorch's peak of reserved memory is compared.
"""

import argparse
import json
import multiprocessing
import resource
import sys

import torch

import nasseg
from nasseg.data import open_dataset
from nasseg.jobs.speed import measure_speed, rehearsal
from nasseg.planning.plan import search_crop
from search_spaces.encoder_decoder import EncoderDecoder

NETWORKS = (
    "lraspp",
    "fpn:backbone=resnet18",
    "deeplabv3plus-mobilenetv2",
    "unet_decoder:backbone=efficientnet_lite0",
    "stdc1",
)
STEPS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--data", default="streets")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    spawn, rows = multiprocessing.get_context("spawn"), []
    print(f"{'network':44}{'before':>9}{'counted':>9}{'scaled up':>11}{'real':>9}{'real/scaled':>13}   (MiB)")
    for name in args.networks:
        with spawn.Pool(1) as pool:
            row = pool.apply(measured, (name, args.data, args.device))
        rows.append(row)
        before, counted, scaled, real = (row[field] / (1 << 20) for field in ("before", "counted", "scaled", "real"))
        print(f"{name:44}{before:9.0f}{counted:9.0f}{scaled:11.0f}{real:9.0f}{real / scaled:13.2f}", flush=True)
    print(json.dumps({"benchmark": "job_memory", "device": args.device, "torch": torch.__version__, "rows": rows}))


def measured(name, data, device):
    """Train, then count: the counting would add to the peak."""
    torch.set_num_threads(1)
    device = torch.device(device)
    split = open_dataset(data).split("train")
    architecture = nasseg.baseline(name, len(split.classes))
    crop = search_crop(split[0].mask.shape, 1)
    before = peak_bytes(device)
    trainer, batches = rehearsal(architecture, {"image": torch.zeros(8, 3, *crop)}, crop, device)
    trainer.run(batches, STEPS)
    real = peak_bytes(device) - before
    del trainer, batches
    at = {
        scale: measure_speed(EncoderDecoder(), [architecture], split, split.typical_size(), scale, device, 1)
        for scale in (1.0, 0.5)
    }
    counted, scaled = at[1.0].job_bytes, at[0.5].at(1.0).job_bytes
    return {"network": name, "before": before, "counted": counted, "scaled": scaled, "real": real}


def peak_bytes(device):
    """The process's peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()

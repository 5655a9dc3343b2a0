"""A training loop of one's own: any network of nasseg is an ordinary `torch.nn.Module`.

Run from the repository's root, with a handcrafted network or with one that a search found:

    python -m examples.own_training
    python -m examples.own_training runs/NAME/best.json
"""

import sys

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import nasseg
from nasseg.data import normalise, open_dataset
from nasseg.graph import Architecture, load

DATA = "streets:size=64x128,train=32"


def train(architecture: Architecture, epochs: int) -> list[float]:
    """Train from random weights on a few small street scenes; returns each epoch's mean loss."""
    torch.manual_seed(0)
    split = open_dataset(DATA).split("train")
    network = architecture.network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    means = []
    for _ in range(epochs):
        losses = []
        for _, images, masks in DataLoader(split, batch_size=8, shuffle=True):
            logits = network(normalise(images))  # `network.outputs` has auxiliary outputs too
            loss = F.cross_entropy(logits, masks.long(), ignore_index=split.ignore_index)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


if __name__ == "__main__":
    classes = len(open_dataset(DATA).classes)
    chosen = load(sys.argv[1]) if sys.argv[1:] else nasseg.baseline("stdc1", classes)
    for epoch, loss in enumerate(train(chosen, epochs=5), start=1):
        print(f"{chosen.name}: mean loss of epoch {epoch} is {loss:.2f}")

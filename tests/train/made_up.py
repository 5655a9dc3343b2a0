"""A network of a few hundred parameters with a backbone, norm, dropout and an auxiliary output, and data for it."""

from nasseg.data import open_dataset
from nasseg.graph import Architecture, Builder
from nasseg.ops import Conv, Dropout, Resize, conv1x1, logits1x1
from nasseg.train.provenance import DataInfo, Provenance

DATA = "streets:size=32x64,train=6,val=3,test=2"
CLASSES = 13


def small_architecture(classes: int = CLASSES) -> Architecture:
    g = Builder("small")
    image = g.input()
    features = g.add("backbone.conv", Conv(out_channels=8, stride=2), image)
    hidden = g.add("head.dropout", Dropout(probability=0.1), g.add("head.conv", conv1x1(8), features))
    logits = g.add("head.upsample", Resize(), g.add("head.logits", logits1x1(classes), hidden), image)
    return g.build(logits, training_outputs=(g.add("auxiliary.logits", logits1x1(classes), features),))


def provenance(data: str = DATA, train_split: str = "train", val_split: str = "val", **fields: object) -> Provenance:
    info = DataInfo.of(open_dataset(data), train_split, val_split, (32, 64))
    return Provenance.model_validate({"data": info, **fields})

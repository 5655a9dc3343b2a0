"""Fully convolutional networks (Long et al., arXiv 1411.4038, §4; Shelhamer et al., arXiv 1605.06211).

On VGG-16, `fc_channels` are the channels of fc6 and fc7: 4096 in the paper, fewer for a smaller and faster network.
"""

from collections.abc import Callable

from baselines.backbones.resnet import Layers, resnet50_layers, resnet101_layers
from baselines.backbones.vgg import vgg16
from baselines.heads import auxiliary_head, classifier, conv3x3
from nasseg.graph import Architecture, Builder
from nasseg.ops import Add, Dropout, TransposedConv, logits1x1


def fcn32s(num_classes: int = 19, *, fc_channels: int = 4096) -> Architecture:
    """FCN-32s on VGG-16: scores at stride 32, upsampled at once."""
    return _fcn("fcn32s", num_classes, 0, fc_channels)


def fcn16s(num_classes: int = 19, *, fc_channels: int = 4096) -> Architecture:
    """FCN-16s on VGG-16: scores of the fourth pool added at stride 16."""
    return _fcn("fcn16s", num_classes, 1, fc_channels)


def fcn8s(num_classes: int = 19, *, fc_channels: int = 4096) -> Architecture:
    """FCN-8s on VGG-16: scores of the fourth and the third pool added at strides 16 and 8."""
    return _fcn("fcn8s", num_classes, 2, fc_channels)


def fcn_resnet50(num_classes: int = 19) -> Architecture:
    """FCN on ResNet-50 at output stride 8: a 3×3 convolution, a classifier, and an auxiliary head in training."""
    return _fcn_resnet("fcn-resnet50", num_classes, resnet50_layers)


def fcn_resnet101(num_classes: int = 19) -> Architecture:
    """FCN on ResNet-101 at output stride 8: a 3×3 convolution, a classifier, and an auxiliary head in training."""
    return _fcn_resnet("fcn-resnet101", num_classes, resnet101_layers)


def _fcn(name: str, classes: int, skips: int, fc_channels: int) -> Architecture:
    """Add class scores at each stride, upsampled by learned transposed convolutions that start as bilinear."""
    g = Builder(name)
    image = g.input()
    maps = vgg16(g, image, fc_channels=fc_channels)
    with g.scope("head"):
        x = g.add("logits32", logits1x1(classes), maps.fc7)
        stride = 32
        for pool in (maps.pool4, maps.pool3)[:skips]:
            stride //= 2
            score = g.add(f"logits{stride}", logits1x1(classes), pool)
            up = g.add(f"up{stride}", _upsampling(classes, 2), x, score)
            x = g.add(f"sum{stride}", Add(), up, score)
        return g.build(g.add("up", _upsampling(classes, stride), x, image))


def _upsampling(classes: int, factor: int) -> TransposedConv:
    return TransposedConv(out_channels=classes, kernel=2 * factor, stride=factor, init="bilinear")


def _fcn_resnet(name: str, classes: int, backbone: Callable[[Builder, str, int], Layers]) -> Architecture:
    g = Builder(name)
    image = g.input()
    layers = backbone(g, image, 8)
    with g.scope("head"):
        x = g.add("conv", conv3x3(g.channels(layers.layer4) // 4, separable=False), layers.layer4)
        x = g.add("dropout", Dropout(probability=0.1), x)
    logits = classifier(g, x, image, classes)
    return g.build(logits, training_outputs=(auxiliary_head(g, layers.layer3, classes),))

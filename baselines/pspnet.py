"""PSPNet (Zhao et al., arXiv 1612.01105): pyramid pooling over four grids, and an auxiliary loss in training."""

from baselines.backbones.resnet import resnet50_layers
from baselines.encoder_decoder.contexts import PSP_GRIDS, pools_by_grid
from baselines.heads import auxiliary_head, classifier, conv3x3
from nasseg.graph import Architecture, Builder
from nasseg.ops import Concat, Dropout


def pspnet_resnet50(num_classes: int = 19) -> Architecture:
    """PSPNet on ResNet-50 at output stride 8 (§3.2, figure 3).

    Each grid is projected to a quarter of the backbone's channels. The stem is the plain 7×7 convolution.
    """
    g = Builder("pspnet-resnet50")
    image = g.input()
    layers = resnet50_layers(g, image, 8)
    features = layers.layer4
    width = g.channels(features) // len(PSP_GRIDS)
    with g.scope("cell"):
        pools = pools_by_grid(g, features, width, PSP_GRIDS)
        joined = g.add("concat", Concat(), features, *pools)
        x = g.add("projection", conv3x3(512, separable=False), joined)
        x = g.add("dropout", Dropout(probability=0.1), x)
    logits = classifier(g, x, image, num_classes)
    return g.build(logits, training_outputs=(auxiliary_head(g, layers.layer3, num_classes),))

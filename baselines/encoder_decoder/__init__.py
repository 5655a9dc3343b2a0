"""Encoder–decoder networks as data, and the handcrafted ones among them."""

from baselines.encoder_decoder.design import Design, Kept, Level
from baselines.encoder_decoder.handcrafted import DESIGNS
from baselines.encoder_decoder.network import encoder_decoder

__all__ = ["DESIGNS", "Design", "Kept", "Level", "encoder_decoder"]

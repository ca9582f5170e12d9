"""First weights of a ControlNet that is about to be trained; the copy itself is `nets.controlnet.trainable_copy`."""

from __future__ import annotations

import torch
from torch import nn

from ..nets.controlnet import ControlNet


@torch.no_grad()
def scale_hint_encoder(control: ControlNet, generator: torch.Generator) -> None:
    """He initialisation of all but the last, zero convolution of the hint encoder.

    PyTorch's default shrinks the signal at every layer; after eight of them a line drawing has all but vanished.
    """
    convolutions = [layer for layer in control.input_hint_block if isinstance(layer, nn.Conv2d)]
    for convolution in convolutions[:-1]:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        if convolution.bias is not None:
            convolution.bias.zero_()

"""ControlLLLite: a few narrow layers before each projection of the U-Net's attentions, which see a control image.

kohya-ss, 2023 (github.com/kohya-ss/sd-scripts, networks/control_net_lllite.py; there is no paper). Names as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ModelFileError
from .operations import Operations

PREFIX = "lllite_unet_"


@dataclass(frozen=True)
class LLLiteSizes:
    """Of one module. inputs: channels of the layer before which it acts. hidden: its own. embedding: the image's.

    depth: the image becomes 1/4 and then 1/2, 1/4 or 1/8 of its size at 1, 2 or 3. conv: it acts before a convolution.
    """

    inputs: int
    hidden: int
    embedding: int
    depth: int
    conv: bool


def lllite_sizes(weights: Mapping[str, Tensor]) -> dict[str, LLLiteSizes]:
    """The sizes of each module of a file by its name. Raises ModelFileError with the key that is wanted for them."""
    return {name: _sizes(weights, name) for name in dict.fromkeys(key.partition(".")[0] for key in weights)}


def _sizes(weights: Mapping[str, Tensor], name: str) -> LLLiteSizes:
    def shape(key: str) -> tuple[int, ...]:
        if f"{name}.{key}" not in weights:
            raise ModelFileError(
                "the ControlLLLite is not whole",
                field="model",
                found=f"no {name}.{key}",
                remedy="download the file again, or choose another control model",
            )
        return tuple(weights[f"{name}.{key}"].shape)

    down, first, second = shape("down.0.weight"), shape("conditioning1.0.weight"), shape("conditioning1.2.weight")
    depth = 2 if second[-1] == 4 else 1
    if f"{name}.conditioning1.4.weight" in weights or f"{name}.conditioning1.4.bias" in weights:
        depth = 3
    return LLLiteSizes(down[1], down[0], 2 * first[0], depth, len(down) == 4)


class LLLiteModule(nn.Module):
    """What is added to the input of one layer. Keys as kohya's class of this name."""

    def __init__(self, sizes: LLLiteSizes, ops: Operations) -> None:
        super().__init__()
        self.sizes = sizes
        half, hidden = sizes.embedding // 2, sizes.hidden
        layers: list[nn.Module] = [_patches(3, half, 4, ops), nn.ReLU()]
        if sizes.depth == 3:
            layers += [_patches(half, half, 4, ops), nn.ReLU()]
        layers.append(_patches(half, sizes.embedding, 4 if sizes.depth == 2 else 2, ops))
        self.conditioning1 = nn.Sequential(*layers)

        def layer(inputs: int, outputs: int) -> nn.Module:
            return ops.conv(inputs, outputs, 1) if sizes.conv else ops.linear(inputs, outputs)

        self.down = nn.Sequential(layer(sizes.inputs, hidden), nn.ReLU())
        self.mid = nn.Sequential(layer(hidden + sizes.embedding, hidden), nn.ReLU())
        self.up = nn.Sequential(ops.zeroed(layer(hidden, sizes.inputs)))

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self._mid()[0].dtype

    def conditioned(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """What the image (n, 3, H, W) in -1..1 gives the layer `mid` on a grid of `size`; the same at every step.

        (n, hidden, h, w) before a convolution, (n, h * w, hidden) before a Linear.
        """
        embedding = self.conditioning1(image)
        if embedding.shape[-2:] != size:
            embedding = F.interpolate(embedding, size, mode="nearest-exact")
        weight, bias = self._mid()
        own = weight[:, : self.sizes.embedding]
        if self.sizes.conv:
            return F.conv2d(embedding, own, bias)
        return F.linear(embedding.flatten(2).transpose(1, 2), own, bias)

    def forward(self, x: Tensor, conditioned: Tensor) -> Tensor:
        """What is to be added to `x` (B, inputs, h, w) or (B, N, inputs), unweighted. conditioned: B rows or one."""
        weight, _ = self._mid()
        own, narrow = weight[:, self.sizes.embedding :], self.down(x)
        seen = F.conv2d(narrow, own) if self.sizes.conv else F.linear(narrow, own)
        return self.up(F.relu(seen + conditioned))

    def _mid(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of `mid`, whose first inputs are the image's: they are multiplied once a pass."""
        layer = cast("nn.Linear | nn.Conv2d", self.mid[0])
        return layer.weight, cast("Tensor", layer.bias)


def _patches(inputs: int, outputs: int, side: int, ops: Operations) -> nn.Module:
    """A convolution over patches that neither overlap nor reach over the border."""
    return ops.conv(inputs, outputs, side, stride=side, padding=0)


class LLLite(nn.Module):
    """All modules of one file, by the names they have in it."""

    def __init__(self, sizes: Mapping[str, LLLiteSizes], operations: Operations | None = None) -> None:
        super().__init__()
        ops = operations or Operations()
        self.places = tuple(sizes)
        for name, each in sizes.items():
            self.add_module(name, LLLiteModule(each, ops))

    def at(self, place: str) -> LLLiteModule:
        """The module of that name."""
        return cast("LLLiteModule", self.get_submodule(place))

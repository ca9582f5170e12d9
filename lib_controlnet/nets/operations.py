"""The layers of which the networks are made: how they are initialised, and in which dtype they compute.

A network receives one `Operations` and asks it for every layer, so that loading costs no random numbers and
weights stored in float8 or float16 can compute in another dtype, without a second definition of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST_BUFFER = 32 << 20

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class Operations:
    """Factory of layers.

    `compute_dtype`: dtype of the arithmetic; None computes in the dtype in which the weights are stored.
    `initialise`: False leaves the weights as the memory was. On the meta device nothing is initialised anyway.
    """

    compute_dtype: torch.dtype | None = None
    initialise: bool = True

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> Linear:
        return Linear(inputs, outputs, bias, self)

    def projection(self, inputs: int, outputs: int, as_linear: bool) -> Projection:
        return Projection(inputs, outputs, as_linear, self)

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None) -> Conv2d:
        return Conv2d(inputs, outputs, kernel, stride, self, padding)

    def group_norm(self, groups: int, channels: int, eps: float = 1e-5) -> GroupNorm:
        return GroupNorm(groups, channels, eps, self)

    def layer_norm(self, channels: int) -> LayerNorm:
        return LayerNorm(channels, self)

    def zeroed(self, layer: Layer) -> Layer:
        """`layer` with weights of 0, as LDM starts the last layer of each residual branch."""
        for weight in layer.parameters():
            if not self.skips_initialising(weight):
                nn.init.zeros_(weight)
        return layer

    def parameter(self, stored: Tensor) -> Tensor:
        """`stored` in the dtype of the arithmetic: itself where the dtype is the same already."""
        return stored if self.compute_dtype is None else stored.to(self.compute_dtype)

    def optional(self, stored: Tensor | None) -> Tensor | None:
        """`parameter` of a bias that may be absent."""
        return None if stored is None else self.parameter(stored)

    def skips_initialising(self, weight: Tensor) -> bool:
        return weight.is_meta or not self.initialise


class Linear(nn.Linear):
    """(..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, outputs: int, bias: bool, operations: Operations) -> None:
        self.operations = operations  # before the base class, whose __init__ calls reset_parameters
        super().__init__(inputs, outputs, bias)  # pyright: ignore[reportUnknownMemberType]

    def reset_parameters(self) -> None:
        if not self.operations.skips_initialising(self.weight):
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.operations.parameter(self.weight), self.operations.optional(self.bias))


class Projection(Linear):
    """A linear map of tokens whose weight is stored as a matrix or as a 1x1 convolution, as the file has it."""

    def __init__(self, inputs: int, outputs: int, as_linear: bool, operations: Operations) -> None:
        super().__init__(inputs, outputs, True, operations)
        if not as_linear:
            self.weight = nn.Parameter(self.weight.detach()[:, :, None, None])

    def forward(self, input: Tensor) -> Tensor:
        cast = self.operations.parameter
        return F.linear(input, cast(self.weight).flatten(1), cast(self.bias))


class Conv2d(nn.Conv2d):
    """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride), padded to keep the size unless told otherwise."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, operations: Operations, padding: int | None = None
    ) -> None:
        self.operations = operations
        around = kernel // 2 if padding is None else padding
        super().__init__(inputs, outputs, kernel, stride, around)  # pyright: ignore[reportUnknownMemberType]

    def reset_parameters(self) -> None:
        if not self.operations.skips_initialising(self.weight):
            super().reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.operations.parameter(self.weight), self.operations.optional(self.bias)
        parts = _parts(weight)
        if parts == 1 or torch.is_grad_enabled():
            return self._conv_forward(input, weight, bias)
        biases = [None] * parts if bias is None else bias.chunk(parts)
        pairs = zip(weight.chunk(parts), biases, strict=True)
        return torch.cat([self._conv_forward(input, *pair) for pair in pairs], dim=1)


def layout_of(network: nn.Module) -> torch.memory_format:
    """How the weights of its convolutions lie, which a host may have changed (`--opt-channelslast`)."""
    for weight in network.parameters():
        # Of a convolution of one position both layouts are the same.
        if weight.dim() == 4 and weight.shape[2] > 1 and weight.shape[1] > 1:
            last = weight.is_contiguous(memory_format=torch.channels_last)
            return torch.channels_last if last else torch.contiguous_format
    return torch.contiguous_format


def _parts(weight: Tensor) -> int:
    """In how many parts of its output channels a convolution is computed: more than 1 for big ones on the processor.

    oneDNN copies the weights into its own layout at every call. Buffers of more than 32 MiB are what glibc takes from
    the system and gives back each time; clearing their pages costs more than the convolution itself on small feature
    maps (1280 to 1280 channels at 8x8: 54 ms whole, 29 ms in halves). The results are the same bit for bit.
    """
    parts = 1
    if weight.device.type == "cpu":
        size = weight.numel() * weight.element_size()
        while size > parts * _LARGEST_BUFFER and weight.shape[0] % (2 * parts) == 0:
            parts *= 2
    return parts


class GroupNorm(nn.GroupNorm):
    """(B, C, h, w) normalised over groups of channels."""

    def __init__(self, groups: int, channels: int, eps: float, operations: Operations) -> None:
        self.operations = operations
        super().__init__(groups, channels, eps)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, input: Tensor) -> Tensor:
        cast = self.operations.parameter
        return F.group_norm(input, self.num_groups, cast(self.weight), cast(self.bias), self.eps)


class LayerNorm(nn.LayerNorm):
    """(..., C) normalised over the last dimension."""

    def __init__(self, channels: int, operations: Operations) -> None:
        self.operations = operations
        super().__init__(channels)  # pyright: ignore[reportUnknownMemberType]

    def forward(self, input: Tensor) -> Tensor:
        cast = self.operations.parameter
        return F.layer_norm(input, self.normalized_shape, cast(self.weight), cast(self.bias), self.eps)

"""Layers: computed in parts where that is faster, with the same result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lib_controlnet.nets import attention, operations
from lib_controlnet.nets.attention import FeedForward
from lib_controlnet.nets.operations import Conv2d, GroupNorm, LayerNorm, Linear, Operations, Projection


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_in_parts_equal_whole_ones(monkeypatch: pytest.MonkeyPatch, stride: int) -> None:
    monkeypatch.setattr(operations, "_LARGEST_BUFFER", 16 * 24 * 9)  # bytes: a quarter of this layer's
    calls: list[int] = []
    layer = Operations().conv(24, 16, 3, stride)
    whole = layer._conv_forward

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        calls.append(weight.shape[0])
        return whole(x, weight, bias)

    monkeypatch.setattr(layer, "_conv_forward", counted)
    x = torch.randn(2, 24, 9, 9)
    with torch.no_grad():
        in_parts = layer(x)
    assert calls == [4, 4, 4, 4]
    torch.testing.assert_close(in_parts, F.conv2d(x, layer.weight, layer.bias, stride, 1), rtol=0, atol=1e-6)
    layer(x)
    assert calls[4:] == [16], "training keeps one piece, whose gradients are cheaper"


def test_sd15s_biggest_convolutions_are_computed_in_parts() -> None:
    for channels, outputs, parts in ((640, 1280, 1), (1280, 1280, 2), (1920, 1280, 4), (2560, 1280, 4)):
        assert operations._parts(torch.empty(outputs, channels, 3, 3)) == parts
        assert operations._parts(torch.empty(outputs, channels, 3, 3, device="meta")) == 1


def test_odd_numbers_of_channels_are_not_split() -> None:
    assert operations._parts(torch.empty(1281, 1280, 3, 3)) == 1


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_feed_forward_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    layer = FeedForward(16, Operations())
    x = torch.randn(2, rows, 16)
    whole = layer(x)
    monkeypatch.setattr(attention, "_LARGEST_PART", 8 * 16 * 7)  # seven rows
    with torch.no_grad():
        torch.testing.assert_close(layer(x), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_each_layer_computes_in_the_dtype_it_is_told(storage: torch.dtype) -> None:
    ops = Operations(compute_dtype=torch.float32)
    layers = [
        (ops.linear(8, 8), torch.randn(2, 8)),
        (ops.linear(8, 8, bias=False), torch.randn(2, 8)),
        (ops.projection(8, 8, as_linear=False), torch.randn(2, 3, 8)),
        (ops.conv(8, 8, 3), torch.randn(2, 8, 4, 4)),
        (ops.group_norm(4, 8), torch.randn(2, 8, 4, 4)),
        (ops.layer_norm(8), torch.randn(2, 8)),
    ]
    assert [type(layer) for layer, _ in layers] == [Linear, Linear, Projection, Conv2d, GroupNorm, LayerNorm]
    for layer, x in layers:
        rounded = {key: value.to(storage) for key, value in layer.state_dict().items()}
        layer.load_state_dict({key: value.float() for key, value in rounded.items()})
        expected = layer(x)
        layer.load_state_dict(rounded, assign=True)
        assert {weight.dtype for weight in layer.parameters()} == {storage}
        assert torch.equal(layer(x), expected), type(layer)


def test_a_projection_is_stored_as_the_file_has_it() -> None:
    """Matrix or 1x1 convolution, the same map."""
    matrix, kernel = Operations().projection(6, 6, as_linear=True), Operations().projection(6, 6, as_linear=False)
    assert matrix.weight.shape == (6, 6)
    assert kernel.weight.shape == (6, 6, 1, 1)
    kernel.load_state_dict({"weight": matrix.weight[:, :, None, None], "bias": matrix.bias})
    x = torch.randn(2, 4, 6)
    assert torch.equal(matrix(x), kernel(x))

"""Operators that some devices lack, done there by plain arithmetic that every device has.

CPU and CUDA have all of them and are never touched. Elsewhere (MPS, DirectML) networks, also those of libraries, run
within `Portable`, which gives the functions of its table another way. The results equal the exact ones within 1e-6,
and so the operator's within its own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

WHOLE = ("cpu", "cuda", "meta")
"""Devices that have every operator."""
LARGEST_SCORES = 256 << 20
"""Bytes, counted in float32, of the attention scores that may be in memory at once."""
_CUBIC = -0.75
"""The free coefficient of PyTorch's cubic convolution."""


class Portable(TorchFunctionMode):
    """While it is entered, no operator is asked of a device that may lack it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        other = _OTHERWISE.get(func)
        if other is None or not args or not isinstance(args[0], Tensor) or args[0].device.type in WHOLE:
            return func(*args, **kwargs)
        return other(func, *args, **kwargs)


def attention(plain: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
    """`plain` for as many queries at once as `LARGEST_SCORES` allows: without a fused kernel it makes all scores."""
    most = max(LARGEST_SCORES // (4 * query.shape[:-2].numel() * key.shape[-2]), 1)
    mask = named.pop("attn_mask", rest[0] if rest else None)
    causal = named.get("is_causal", len(rest) > 2 and rest[2])
    if query.shape[-2] <= most or causal:
        return plain(query, key, value, mask, *rest[1:], **named)
    found: list[Tensor] = []
    for start in range(0, query.shape[-2], most):
        rows = slice(start, start + most)
        part = mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]
        found.append(plain(query[..., rows, :], key, value, part, *rest[1:], **named))
    return torch.cat(found, dim=-2)


def adaptive_average(plain: Any, x: Tensor, output_size: Any) -> Tensor:
    """Of sizes that do not divide, as two products with matrices; MPS pools those alone that do."""
    sizes = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    wanted = [have if want is None else want for have, want in zip(x.shape[-2:], sizes, strict=True)]
    if all(have % want == 0 for have, want in zip(x.shape[-2:], wanted, strict=True)):
        return plain(x, output_size)
    rows, columns = (_means(have, want).to(x) for have, want in zip(x.shape[-2:], wanted, strict=True))
    return rows @ x @ columns.T


@cache
def _means(have: int, want: int) -> Tensor:
    """(want, have): each row averages the cells of one output, which may share cells with its neighbours."""
    matrix = torch.zeros(want, have)
    for place in range(want):
        first, last = place * have // want, -(-(place + 1) * have // want)
        matrix[place, first:last] = 1 / (last - first)
    return matrix


def interpolated(plain: Any, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """Bicubic enlargement of (B, C, h, w) as two products with matrices; the other modes are everywhere."""
    settings = {**dict(zip(_INTERPOLATE, args, strict=False)), **named}
    if settings.get("mode") != "bicubic" or settings.get("antialias"):
        return plain(x, *args, **named)
    size, factor = settings.get("size"), settings.get("scale_factor")
    factors: list[Any] = list(factor) if isinstance(factor, (tuple, list)) else [factor] * 2
    sizes: list[Any] = list(size) if isinstance(size, (tuple, list)) else [size] * 2
    if factor is not None:
        sizes = [int(have * by) for have, by in zip(x.shape[-2:], factors, strict=True)]
    by = [None if settings.get("recompute_scale_factor") else one for one in factors]
    corners = bool(settings.get("align_corners"))
    rows, columns = (
        _cubic(have, want, one, corners).to(x) for have, want, one in zip(x.shape[-2:], sizes, by, strict=True)
    )
    return rows @ x @ columns.T


_INTERPOLATE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


@cache
def _cubic(have: int, want: int, factor: float | None, corners: bool) -> Tensor:
    """(want, have): the weights of the four cells around each place, those outside being the border's."""
    places = torch.arange(want, dtype=torch.float64)
    if corners:
        places = places * ((have - 1) / max(want - 1, 1))
    else:
        places = (places + 0.5) * (have / want if factor is None else 1 / factor) - 0.5
    left = places.floor()
    matrix = torch.zeros(want, have, dtype=torch.float64)
    for offset in (-1, 0, 1, 2):
        away = (places - left - offset).abs()
        near = ((_CUBIC + 2) * away - (_CUBIC + 3)) * away**2 + 1
        far = ((away - 5) * away + 8) * away * _CUBIC - 4 * _CUBIC
        weight = torch.where(away <= 1, near, torch.where(away < 2, far, torch.zeros_like(far)))
        cells = (left + offset).long().clamp(0, have - 1)
        matrix.scatter_add_(1, cells[:, None], weight[:, None])
    return matrix.float()


def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., H, W) to real and imaginary part (..., H, W // 2 + 1) of `torch.fft.rfft2(x, norm="ortho")`."""
    height, width = x.shape[-2:]
    across = [part[:, : width // 2 + 1].to(x) for part in _turns(width)]
    down = [part.to(x) for part in _turns(height)]
    real, imaginary = x @ across[0], x @ across[1]
    return down[0] @ real - down[1] @ imaginary, down[0] @ imaginary + down[1] @ real


def picture(real: Tensor, imaginary: Tensor, size: tuple[int, int]) -> Tensor:
    """`torch.fft.irfft2(..., norm="ortho")` of both parts (..., H, W // 2 + 1): (..., H, W), `size` being (H, W)."""
    height, width = size
    down = [part.to(real) for part in _turns(height)]
    straight, turned = down[0] @ real + down[1] @ imaginary, down[0] @ imaginary - down[1] @ real
    half = width // 2 + 1
    # each column but the first, and the middle one of an even width, stands for its mirror image too
    twice = torch.full((half,), 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    across = [(part[:, :half] * twice).T.to(real) for part in _turns(width)]
    return straight @ across[0] + turned @ across[1]


@cache
def _turns(size: int) -> tuple[Tensor, Tensor]:
    """(size, size): real and imaginary part of the Fourier transform's matrix, scaled so that it keeps lengths."""
    numbers = torch.arange(size, dtype=torch.float64)
    angle = (numbers[:, None] * numbers[None] % size) * (-2 * torch.pi / size)
    return (angle.cos() / size**0.5).float(), (angle.sin() / size**0.5).float()


_OTHERWISE: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: attention,
    F.adaptive_avg_pool2d: adaptive_average,
    torch._C._nn.adaptive_avg_pool2d: adaptive_average,  # pyright: ignore[reportAttributeAccessIssue]
    F.interpolate: interpolated,
}

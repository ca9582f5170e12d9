"""Attention where a device has no fused kernel: bounded memory, equal numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lib_controlnet.nets import attention as subject
from lib_controlnet.nets.attention import LARGEST_SCORES, CrossAttention, attention
from lib_controlnet.nets.operations import Operations


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operator made."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in tree_flatten(result)[0]:
            if isinstance(made, Tensor):
                self.nbytes = max(self.nbytes, made.numel() * made.element_size())
        return result


def tokens(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("rows", "heads", "pixels", "keys"),
    [
        (2, 8, 128 * 128, 128 * 128),  # SD 1.x at 1024 pixels with guidance: 16 GiB in float32
        (2, 10, 64 * 64, 64 * 64),  # SDXL at 1024
        (8, 8, 96 * 96, 96 * 96),
        (2, 8, 128 * 128, 77),
        (1, 5, 1, 1 << 20),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_device_without_a_kernel_never_holds_the_whole_matrix(
    rows: int, heads: int, pixels: int, keys: int, dtype: torch.dtype
) -> None:
    q = torch.empty(rows, heads, pixels, 40, dtype=dtype, device="meta")
    k = torch.empty(rows, heads, keys, 40, dtype=dtype, device="meta")
    with Largest() as seen:
        found = attention(q, k, k)
    assert found.shape == q.shape
    assert found.dtype == dtype
    unavoidable = max(4 * tensor.numel() for tensor in (q, k))  # plain arithmetic takes halves up to float32
    assert seen.nbytes <= max(LARGEST_SCORES, unavoidable)


@pytest.mark.parametrize(("rows", "heads", "pixels", "keys"), [(2, 8, 300, 300), (3, 5, 257, 77), (1, 1, 7, 1)])
@pytest.mark.parametrize("parts", [1, 3, 1000])
def test_parts_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, rows: int, heads: int, pixels: int, keys: int, parts: int
) -> None:
    q, k, v = (tokens(rows, heads, n, 40, seed=seed) for seed, n in enumerate((pixels, keys, keys)))
    bound = 4 * rows * heads * pixels * keys // parts
    monkeypatch.setattr(subject, "LARGEST_SCORES", bound)
    monkeypatch.setattr(subject, "_is_fused", lambda *_: False)
    with sdpa_kernel(SDPBackend.MATH), Largest() as seen:
        found = attention(q, k, v)
    assert seen.nbytes <= max(bound, q.nbytes, k.nbytes, 4 * rows * heads * keys)
    assert (found - F.scaled_dot_product_attention(q, k, v)).abs().max() <= 4e-6  # kernels of processors differ


def test_a_fused_kernel_gets_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "LARGEST_SCORES", 1)
    q, k, v = (tokens(2, 4, 50, 16, seed=seed) for seed in range(3))
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_every_attention_of_the_network_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it is trained: the gradient of the parts is that of the whole."""
    torch.manual_seed(0)
    layer = CrossAttention(32, 32, 4, Operations())
    x = tokens(2, 90, 32).requires_grad_()
    whole = layer(x)
    whole.square().sum().backward()
    assert x.grad is not None
    expected, x.grad = x.grad, None
    monkeypatch.setattr(subject, "LARGEST_SCORES", 4 * 2 * 4 * 90 * 8)
    monkeypatch.setattr(subject, "_is_fused", lambda *_: False)
    parted = layer(x)
    parted.square().sum().backward()
    assert torch.allclose(parted, whole, atol=1e-6)
    assert torch.allclose(x.grad, expected, atol=1e-5)

"""What takes an operator's place on devices that lack it, against the operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from annotator.sd_controlnet import portable
from annotator.sd_controlnet.portable import Portable, adaptive_average, attention, interpolated, picture, spectrum
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from tests.device.pretend import pretended


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    return float((found.double() - exact).abs().max() / max(float(exact.abs().max()), 1.0))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (15, 20), (33, 7), (2, 2), (1, 5), (64, 128)])
def test_the_spectrum_without_complex_numbers(height: int, width: int) -> None:
    x = noise(2, 3, height, width)
    exact = torch.fft.rfftn(x.double(), dim=(-2, -1), norm="ortho")
    real, imaginary = spectrum(x)
    assert error(real, exact.real) <= 1e-6
    assert error(imaginary, exact.imag) <= 1e-6
    parts = noise(2, 3, height, width // 2 + 1, 2, seed=1)  # of no real picture, as the network's are
    whole = torch.fft.irfftn(torch.view_as_complex(parts.double()), s=(height, width), dim=(-2, -1), norm="ortho")
    assert error(picture(parts[..., 0], parts[..., 1], (height, width)), whole) <= 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"scale_factor": (37.1 / 37, 60.1 / 29)},
        {"scale_factor": 1.5, "recompute_scale_factor": True},
        {"size": (50, 91)},
        {"size": (11, 8)},
        {"size": 64},
        {"size": (50, 91), "align_corners": True},
        {"size": (1, 1), "align_corners": True},
    ],
    ids=str,
)
def test_bicubic_enlargement(settings: dict[str, Any]) -> None:
    x = noise(2, 4, 37, 29)
    found = interpolated(F.interpolate, x, mode="bicubic", **settings)
    assert error(found, F.interpolate(x.double(), mode="bicubic", **settings)) <= 1e-6
    assert torch.equal(interpolated(F.interpolate, x, (9, 9), mode="nearest"), F.interpolate(x, (9, 9), mode="nearest"))


@pytest.mark.parametrize("size", [1, 2, 3, 6, 37, (3, 7), (None, 5), (40, 50)], ids=str)
@pytest.mark.parametrize("shape", [(1, 5, 37, 29), (2, 3, 16, 16), (4, 6, 6)], ids=str)
def test_adaptive_pools(size: Any, shape: tuple[int, ...]) -> None:
    def divided_only(x: Tensor, wanted: Any) -> Tensor:
        pairs = zip(x.shape[-2:], [wanted] * 2 if isinstance(wanted, int) else wanted, strict=True)
        assert all(want is None or have % want == 0 for have, want in pairs)
        return F.adaptive_avg_pool2d(x, wanted)

    x = noise(*shape)
    assert error(adaptive_average(divided_only, x, size), F.adaptive_avg_pool2d(x.double(), size)) <= 1e-6


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that any operator made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [value.numel() for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
        self.numbers = max([self.numbers, *made])
        return result


@pytest.mark.parametrize("mask", [None, (1, 1, 90, 70), (2, 4, 90, 70), (1, 1, 1, 70)], ids=str)
def test_attention_in_parts(monkeypatch: pytest.MonkeyPatch, mask: tuple[int, ...] | None) -> None:
    """Of a library's network too: the scores never exceed the bound, the numbers are those of the whole."""
    q, k, v = noise(2, 4, 90, 16), noise(2, 4, 70, 16, seed=1), noise(2, 4, 70, 16, seed=2)
    bias = None if mask is None else noise(*mask, seed=3)
    monkeypatch.setattr(portable, "LARGEST_SCORES", 4 * 2 * 4 * 70 * 7)
    with sdpa_kernel(SDPBackend.MATH), Largest() as seen:
        found = attention(F.scaled_dot_product_attention, q, k, v, attn_mask=bias, scale=0.3)
    assert seen.numbers <= max(2 * 4 * 70 * 7, q.numel())
    scores = q.double() @ k.double().transpose(-2, -1) * 0.3 + (0 if bias is None else bias.double())
    assert error(found, scores.softmax(dim=-1) @ v.double()) <= 1e-6


class Library(nn.Module):
    """What networks of libraries do, by functions and by modules."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.grow = nn.Upsample(scale_factor=2, mode="bicubic")

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, None]
        seen = F.scaled_dot_product_attention(tokens, tokens, tokens)
        pooled = self.pool(x) + F.adaptive_avg_pool2d(x, (3, 3))
        return self.grow(pooled).sum() + F.interpolate(x, scale_factor=1.5, mode="bicubic").sum() + seen.sum()


def test_a_card_is_not_asked_for_what_it_lacks() -> None:
    network, x = Library(), noise(1, 4, 8, 8)
    expected = network(x)
    with pretended("mps") as card, Portable():
        found = card.host(network(card.tensor(x)))
        assert not {"upsample_bicubic2d", "_adaptive_avg_pool2d"} & set(card.kernels)
    assert torch.allclose(found, expected, atol=1e-4)
    with Portable():
        assert torch.equal(network(x), expected), "the processor's own operators are used"


def test_entries_run_within_it_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    monkeypatch.setattr(Portable, "__enter__", lambda self: entered.append("in") or self)
    monkeypatch.setattr(Portable, "__exit__", lambda *_: None)
    image = np.zeros((64, 64, 3), np.uint8)
    for device in ("cpu", "cuda", "cuda:1", "mps", "privateuseone:0"):
        discover().get("invert").load(Runtime(device=device))(image, resolution=64)
    assert len(entered) == 2

"""LaMa's generator (big-lama), with the names of its published weights.

Written anew after "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (Suvorov et al., 2021,
arXiv:2109.07161) and "Fast Fourier Convolution" (Chi et al., 2020); the original is https://github.com/advimman/lama,
Apache-2.0. No library that we could use has it.

Channels are of two kinds: local ones see 3x3 neighbours, global ones the whole picture through its spectrum. A step
passes both on as a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...portable import WHOLE, picture, spectrum

WIDTH = 64
HALVINGS = 3
BLOCKS = 18
GLOBAL_OF_FOUR = 3
"""Three quarters of the channels of the middle are global ones."""

Pair = tuple[Tensor, Tensor | None]


class _Fourier(nn.Module):
    """A 1x1 convolution of the spectrum, real and imaginary parts as channels side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(width * 2, width * 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width * 2)

    def forward(self, x: Tensor) -> Tensor:
        whole = x.device.type in WHOLE  # else there are no complex numbers, or no transform of them
        found = _spectrum(x.float()) if whole else torch.stack(spectrum(x.float()), dim=2)
        found = torch.relu(self.bn(self.conv_layer(found.flatten(1, 2).to(x.dtype))))
        parts = found.float().unflatten(1, (-1, 2))
        size = (x.shape[-2], x.shape[-1])
        return (_picture(parts, size) if whole else picture(parts[:, :, 0], parts[:, :, 1], size)).to(x.dtype)


def _spectrum(x: Tensor) -> Tensor:
    """(B, C, H, W) to real and imaginary part of its spectrum, (B, C, 2, H, W // 2 + 1)."""
    return torch.view_as_real(torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")).permute(0, 1, 4, 2, 3)


def _picture(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, 2, H, W // 2 + 1) back to (B, C, H, W)."""
    parts = parts.permute(0, 1, 3, 4, 2).contiguous()
    return torch.fft.irfftn(torch.view_as_complex(parts), s=size, dim=(-2, -1), norm="ortho")


class _Spectral(nn.Module):
    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        half = outside // 2
        self.conv1 = nn.Sequential(nn.Conv2d(inside, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU())
        self.fu = _Fourier(half)
        self.conv2 = nn.Conv2d(half, outside, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(x + self.fu(x))


class _Mix(nn.Module):
    """From local to local, local to global and back, each where both ends have channels."""

    def __init__(self, local: tuple[int, int], wide: tuple[int, int], kernel: int, stride: int, padding: int) -> None:
        super().__init__()

        def conv(inside: int, outside: int) -> nn.Module:
            return nn.Conv2d(inside, outside, kernel, stride, padding, bias=False, padding_mode="reflect")

        self.convl2l = conv(local[0], local[1])
        if wide[1]:
            self.convl2g = conv(local[0], wide[1])
        if wide[0]:
            self.convg2l = conv(wide[0], local[1])
            self.convg2g = _Spectral(wide[0], wide[1])

    def forward(self, x: Pair) -> Pair:
        local, wide = x
        near = self.convl2l(local)
        far = self.convl2g(local) if hasattr(self, "convl2g") else None
        if wide is not None and far is not None:
            near, far = near + self.convg2l(wide), far + self.convg2g(wide)
        return near, far


class _Step(nn.Module):
    """The mix, batch norms, ReLU."""

    def __init__(
        self, local: tuple[int, int], wide: tuple[int, int], kernel: int, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.ffc = _Mix(local, wide, kernel, stride, padding)
        self.bn_l = nn.BatchNorm2d(local[1])
        if wide[1]:
            self.bn_g = nn.BatchNorm2d(wide[1])

    def forward(self, x: Pair) -> Pair:
        local, wide = self.ffc(x)
        return torch.relu(self.bn_l(local)), None if wide is None else torch.relu(self.bn_g(wide))


class _Block(nn.Module):
    def __init__(self, local: int, wide: int) -> None:
        super().__init__()
        self.conv1 = _Step((local, local), (wide, wide), 3)
        self.conv2 = _Step((local, local), (wide, wide), 3)

    def forward(self, x: Pair) -> Pair:
        local, wide = self.conv2(self.conv1(x))
        assert wide is not None
        assert x[1] is not None
        return x[0] + local, x[1] + wide


class _Pairwise(nn.Module):
    """From a picture to a pair without global channels."""

    def forward(self, x: Tensor) -> Pair:
        return x, None


class _Join(nn.Module):
    def forward(self, x: Pair) -> Tensor:
        assert x[1] is not None
        return torch.cat((x[0], x[1]), dim=1)


class Generator(nn.Module):
    """`width`: channels after the first step, twice as many after each halving; `blocks`: those of the middle."""

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        middle = width << HALVINGS
        wide = middle * GLOBAL_OF_FOUR // 4
        steps: list[nn.Module] = [nn.Sequential(nn.ReflectionPad2d(3), _Pairwise())]
        steps.append(_Step((4, width), (0, 0), 7, padding=0))
        for halving in range(HALVINGS):
            outside = width << (halving + 1)
            far = wide if halving == HALVINGS - 1 else 0
            steps.append(_Step((outside // 2, outside - far), (0, far), 3, stride=2))
        steps += [_Block(middle - wide, wide) for _ in range(blocks)]
        steps.append(_Join())
        for halving in range(HALVINGS, 0, -1):
            inside = width << halving
            steps.append(nn.ConvTranspose2d(inside, inside // 2, 3, stride=2, padding=1, output_padding=1))
            steps += [nn.BatchNorm2d(inside // 2), nn.ReLU()]
        steps += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Sigmoid()]
        self.model = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, H, W), colours 0..1 without what the mask covers, and the mask, to (B, 3, H, W) 0..1.

        H and W are multiples of 8.
        """
        return self.model(x)

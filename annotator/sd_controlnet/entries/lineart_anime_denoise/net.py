"""The network of "Deep Extraction of Manga Structural Lines" (Li, Liu and Wong, 2017).

Written anew, because no kept library has it; the names of weights are those of MangaLineExtraction_PyTorch (MIT
licence, Copyright (c) 2021 Miaomiao Li), whose file erika.pth users have.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (24, 48, 96, 192, 384)
DEPTHS = (2, 3, 5, 7, 12)
EPSILON = 1e-3
"""Of the batch norms, as in Keras, where the weights come from."""


class Act(nn.Module):
    """Batch norm, leaky ReLU, convolution of `size`, and twice the size where `grows`."""

    def __init__(self, channels: int, out: int, size: int = 3, stride: int = 1, grows: bool = False) -> None:
        super().__init__()
        layers = [
            nn.BatchNorm2d(channels, eps=EPSILON),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, out, size, stride=stride, padding=size // 2),
        ]
        self.model = nn.Sequential(*layers, *[nn.Upsample(scale_factor=2)] * grows)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, out, h', w')."""
        return self.model(x)


class Shortcut(nn.Module):
    """Adds what went past a block, brought to its shape where that differs."""

    def __init__(self, channels: int, out: int, stride: int = 1, grows: bool = False) -> None:
        super().__init__()
        self.model = None
        if channels != out or stride != 1:
            self.model = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride=stride), *[nn.Upsample(scale_factor=2)] * grows
            )

    def forward(self, past: Tensor, x: Tensor) -> Tensor:
        """`past` (B, channels, h, w) and `x` (B, out, h', w') to the shape of `x`."""
        return (past if self.model is None else self.model(past)) + x


class Block(nn.Module):
    """Two convolutions and a shortcut past them."""

    def __init__(self, channels: int, out: int, stride: int = 1, grows: bool = False) -> None:
        super().__init__()
        self.conv1 = Act(channels, out, stride=stride, grows=grows)
        self.residual = Act(out, out)
        self.shortcut = Shortcut(channels, out, stride, grows)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, out, h', w')."""
        return self.shortcut(x, self.residual(self.conv1(x)))


class Stage(nn.Module):
    """`count` blocks. The first may double the size, the last may halve it."""

    def __init__(self, channels: int, out: int, count: int, *, halves: bool = False, grows: bool = False) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(
                Block(
                    channels if number == 0 else out,
                    out,
                    stride=2 if halves and number == count - 1 else 1,
                    grows=grows and number == 0,
                )
                for number in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, out, h', w')."""
        return self.model(x)


class MangaLineNet(nn.Module):
    """Five stages down to a sixteenth, four up again with sums across, and two to the drawing."""

    def __init__(self) -> None:
        super().__init__()
        self.block0 = Stage(1, WIDTHS[0], DEPTHS[0])
        for level in range(1, 5):
            self.add_module(f"block{level}", Stage(WIDTHS[level - 1], WIDTHS[level], DEPTHS[level], halves=True))
        for step, level in enumerate(range(3, -1, -1)):
            stage = Stage(WIDTHS[level + 1], WIDTHS[level], DEPTHS[level], grows=True)
            self.add_module(f"block{5 + step}", stage)
        self.block9 = Stage(WIDTHS[0], 16, 2)
        self.conv15 = Act(16, 1, size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) grey 0..255, H and W multiples of 16, to (B, 1, H, W): about 255 on paper, 0 on lines."""
        passed = []
        for level in range(5):
            x = self.get_submodule(f"block{level}")(x)
            passed.append(x)
        for step, level in enumerate(range(3, -1, -1)):
            x = passed[level] + self.get_submodule(f"block{5 + step}")(x)
        return self.conv15(self.block9(x))

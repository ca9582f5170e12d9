"""One ControlLLLite module, written out after kohya's formulas with torch's own layers: the independent reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReferenceModule(nn.Module):
    """x -> x + multiplier * up(mid(cat(conditioning1(image), down(x))))."""

    def __init__(self, inputs: int, hidden: int, embedding: int, depth: int, conv: bool) -> None:
        super().__init__()
        half = embedding // 2
        layers: list[nn.Module] = [nn.Conv2d(3, half, 4, 4), nn.ReLU()]
        layers += {
            1: [nn.Conv2d(half, embedding, 2, 2)],
            2: [nn.Conv2d(half, embedding, 4, 4)],
            3: [nn.Conv2d(half, half, 4, 4), nn.ReLU(), nn.Conv2d(half, embedding, 2, 2)],
        }[depth]
        self.conditioning1 = nn.Sequential(*layers)

        def layer(a: int, b: int) -> nn.Module:
            return nn.Conv2d(a, b, 1) if conv else nn.Linear(a, b)

        self.down = nn.Sequential(layer(inputs, hidden), nn.ReLU())
        self.mid = nn.Sequential(layer(hidden + embedding, hidden), nn.ReLU())
        self.up = nn.Sequential(layer(hidden, inputs))
        self.conv = conv

    def forward(self, x: Tensor, image: Tensor, multiplier: float, size: tuple[int, int] | None = None) -> Tensor:
        """`image` in -1..1; `size`: of the grid, where rounding gives the image's features another one."""
        cx = self.conditioning1(image)
        if size is not None and cx.shape[-2:] != size:
            cx = nn.functional.interpolate(cx, size, mode="nearest-exact")
        if not self.conv:
            n, c, h, w = cx.shape
            cx = cx.view(n, c, h * w).permute(0, 2, 1)
        if x.shape[0] != cx.shape[0]:
            cx = cx.repeat(x.shape[0] // cx.shape[0], *(1 for _ in cx.shape[1:]))
        joined = torch.cat([cx, self.down(x)], dim=1 if self.conv else 2)
        return x + self.up(self.mid(joined)) * multiplier

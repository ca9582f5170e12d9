"""Hints in pieces: what a tiler hands over, piece by piece, in place of a unit's whole hint.

Tilers for sd-webui-controlnet (Tiled Diffusion) read a unit's hint, cut it as they cut the latent, and set the pieces
of the tiles that the next U-Net call has as rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import HostError
from ..core.residuals import RegionMask
from ..core.step import Step

_CHANNELS = 3
"""Of a hint; a region mask is a fourth one, so that it is cut with it."""


def with_region(image: Tensor, region: RegionMask | None) -> Tensor:
    """A hint (1, 3, H, W) with its region mask as a fourth channel, where it has one."""
    return image if region is None else torch.cat([image, region.at(image)], dim=1)


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of one U-Net call: images (n, 3, H, W), regions (n, 1, H, W) or None, and each row's piece."""

    images: Tensor
    regions: Tensor | None
    of_row: tuple[int, ...]


class TiledHint:
    """A tensor (T, 3 or 4, H, W) that stands in for a unit's hint, one tile or more.

    A call with n tiles of `group` rows has its rows tile by tile. The tensor has each tile once, or once a row: side by
    side, as the rows are, or in turns (Tiled Diffusion with samplers that are not k-diffusion's).
    """

    def __init__(self, tensor: Tensor, orders: dict[tuple[int, int], bool]) -> None:
        self._tensor = tensor
        self._orders = orders
        """Whether copies lie side by side, by the numbers of tiles and copies; looked up once a pass: a GPU waits."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of a piece in pixels."""
        return int(self._tensor.shape[3]), int(self._tensor.shape[2])

    def pieces(self, step: Step) -> Pieces:
        """The pieces of a U-Net call's rows. Raises HostError where there are not as many as its rows have tiles."""
        count = len(self._tensor)
        tiles = max(step.batch // step.group, 1) if step.group else count
        if count % tiles or step.batch % tiles:
            raise HostError(
                "the pieces of the hint do not fit the tiles",
                field="image",
                found=f"{count} pieces for {step.batch} rows in {tiles} tiles",
                remedy="set the tiler's batch size to 1",
            )
        part = self._distinct(tiles, count // tiles)
        regions = part[:, _CHANNELS:] if part.shape[1] > _CHANNELS else None
        each = step.batch // tiles
        return Pieces(part[:, :_CHANNELS], regions, tuple(row // each for row in range(step.batch)))

    def _distinct(self, tiles: int, copies: int) -> Tensor:
        """Each tile's piece once, (tiles, C, H, W), from `copies` of each."""
        if copies == 1 or tiles == 1:
            return self._tensor[:tiles]
        neighbours = self._tensor.reshape(tiles, copies, *self._tensor.shape[1:])
        return neighbours[:, 0] if self._side_by_side(neighbours) else self._tensor[:tiles]

    def _side_by_side(self, neighbours: Tensor) -> bool:
        """Of (tiles, copies, C, H, W): whether the copies of each tile are next to each other."""
        order = (neighbours.shape[0], neighbours.shape[1])
        known = self._orders.get(order)
        if known is not None:
            return known
        answer = torch.equal(neighbours, neighbours[:, :1].expand_as(neighbours))
        if not (answer and torch.equal(neighbours, neighbours[:1].expand_as(neighbours))):  # all alike tell nothing
            self._orders[order] = answer
        return answer

"""One U-Net call as the host saw it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from torch import Tensor

from .rows import RowTensors


class Pass(str, Enum):
    """Which sampling of a generation: the base pass, or the second one of hires fix."""

    base = "base"
    hires = "hires"


@dataclass(frozen=True)
class Step:
    """One call of the U-Net: B rows of one denoiser step.

    x         (B, C, h, w): what the U-Net receives; C is 4, or more with conditioning channels (9 when inpainting)
    timesteps (B,): training timesteps 0..999, fractional with k-diffusion samplers
    context   (B, N, D): text embedding
    y         (B, A): pooled embedding of SDXL, or None
    is_cond   per row: True for the positive prompt. Python values, so that telling rows apart costs no GPU sync
    images    per row: which picture of the batch it belongs to
    progress  0..1, see GuidanceRange
    group     rows of the denoiser's own call of which this U-Net call is a part; with tiles it is `k * group` rows, a
              tile's rows side by side. 0 where nobody told
    again     the denoiser's call has brought more rows to the U-Net than it has: somebody draws it in tiles or windows
    planned   denoiser calls of the pass as the sampler plans them, 0 where nobody told
    kept      the pass's owner of row numbers and flags on the device
    told      rows whose `y` has been replaced by what a control says, to which others add
    turn      which denoiser call of the pass this U-Net call is a part of, from 1; 0 where nobody told
    prompts   another one where the host comes to other parts of its prompts (`[a:b:0.5]`)
    noisy     the sampler adds new noise between its calls
    """

    x: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor | None
    is_cond: tuple[bool, ...]
    images: tuple[int, ...]
    progress: float
    pass_: Pass = Pass.base
    group: int = 0
    again: bool = False
    planned: int = 0
    kept: RowTensors = field(default_factory=RowTensors, repr=False, compare=False)
    told: frozenset[int] = frozenset()
    turn: int = 0
    prompts: Hashable = ()
    noisy: bool = False

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return self.x.shape[0]

    def select(self, rows: Sequence[int]) -> Step:
        """The step with some of its rows, in order; views where the rows are neighbours."""
        if len(rows) == self.batch:
            return self
        part = self.kept.of
        return replace(
            self,
            x=part(self.x, rows),
            timesteps=part(self.timesteps, rows),
            context=part(self.context, rows),
            y=None if self.y is None else part(self.y, rows),
            is_cond=tuple(self.is_cond[row] for row in rows),
            images=tuple(self.images[row] for row in rows),
            told=frozenset(place for place, row in enumerate(rows) if row in self.told),
        )


def own_end(context: Tensor, count: int) -> Tensor:
    """The last `count` tokens of a context (B, N, D), again from its end where it has not as many.

    A prompt that has to become longer hears of its own once more, which says nothing new.
    """
    times = -(-count // context.shape[1])
    return context.repeat(1, times, 1)[:, -count:] if times > 1 else context[:, -count:]


class RowTeller(Protocol):
    """Tells the rows of the U-Net calls within one denoiser step apart."""

    rows: int
    """Rows of the denoiser's call under way, 0 where it is not known."""

    @property
    def again(self) -> bool:
        """The U-Net has got more rows than that call has: somebody draws it in tiles or windows."""
        ...

    def group(self, rows: int) -> None:
        """The denoiser makes a call of its next `rows` rows."""
        ...

    def choose(self, places: Sequence[int]) -> None:
        """The next U-Net calls have these rows of the denoiser's call, () for all, as somebody tells who picks them."""
        ...

    def take(self, rows: int, options: Mapping[str, object]) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """(is_cond, image) of each of the next `rows` rows; `options` is what the U-Net call says of itself."""
        ...


class RowCursor:
    """Tells the rows of successive U-Net calls apart within one denoiser step.

    A1111 orders a denoiser step's rows "all conds of image 0, of image 1, ..., then the unconds, image by image" and
    hands them to the U-Net in one or several calls (`sd_samplers_cfg_denoiser.CFGDenoiser`). `conds[i]` is the number
    of cond rows of image i (more than one with AND prompts), `total` the number of all rows. Rows past `total`
    (somebody calls the U-Net outside a denoiser step) count as cond.

    A tiler comes between: of one call's rows it makes one or several calls with those rows for each tile. Where the
    calls are announced (`group`), the rows of every tile are told apart.
    """

    def __init__(self, conds: Sequence[int], total: int) -> None:
        self._images = [image for image, repeats in enumerate(conds) for _ in range(repeats)]
        self._batch = max(len(conds), 1)
        self._total = total
        self._position = 0
        self._end = 0
        self.rows = 0
        """Rows of the denoiser's call that was announced last, 0 for none."""
        self._taken = 0
        """Rows of that call that the U-Net has got."""
        self._chosen: tuple[int, ...] = ()
        """Those that it gets now, where somebody tells."""

    def group(self, rows: int) -> None:
        """The denoiser makes a call of its next `rows` rows, which reach the U-Net in one call or more."""
        self._position, self.rows, self._taken, self._chosen = self._end, rows, 0, ()
        self._end += rows

    def choose(self, places: Sequence[int]) -> None:
        """The next U-Net calls have these rows of the announced call, () for all."""
        self._chosen = tuple(places)

    @property
    def again(self) -> bool:
        """The U-Net has got more rows than the announced call has."""
        return not self._chosen and 0 < self.rows < self._taken

    def take(self, rows: int, options: Mapping[str, object] = {}) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """(is_cond, image) of each of the next `rows` rows. A1111's U-Net calls tell nothing themselves."""
        del options
        start = self._end - self.rows
        if self._chosen:
            return self._told([start + place for place in self._chosen])
        self._taken += rows
        places = [self._wrapped(at, start) for at in range(self._position, self._position + rows)]
        self._position = self._wrapped(self._position + rows, start) if self.rows else self._position + rows
        return self._told(places)

    def _told(self, places: Sequence[int]) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """(is_cond, image) of rows, counted through all calls of the denoiser step."""
        conds = len(self._images)
        is_cond = tuple(at < conds or at >= self._total for at in places)
        images = tuple(self._images[at] if at < conds else (at - conds) % self._batch for at in places)
        return is_cond, images

    def _wrapped(self, at: int, start: int) -> int:
        return start + (at - start) % self.rows if self.rows else at

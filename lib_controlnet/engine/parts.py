"""One control of a unit while a pass lasts, and what it may act on in the U-Net call under way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import HostError
from ..core.residuals import RegionMask
from ..core.step import Step, own_end
from ..families.base import BoundControl, ControlModel
from .effect import Changed

PREDICTION = "prediction"
"""The place where what the U-Net has predicted is changed."""
_HEARD = 8
"""Places of a control by which its effect is judged: at each, what it gives is compared with what becomes of it."""


@dataclass(eq=False)
class PartCall:
    """What a control may act on in one U-Net call.

    step: the call's, of the rows in which the unit has a say. rows: their numbers. batch: rows of the whole call.
    region: where in the picture. weights: of the layers at this step. strengths: by what each row's are multiplied.
    """

    step: Step
    rows: tuple[int, ...]
    batch: int
    region: RegionMask | None
    weights: Sequence[float]
    strengths: tuple[float, ...] | None = None
    came_by: set[str] = field(default_factory=set[str])
    """The places that the call has passed."""
    told: Changed | None = None
    """Hears what becomes of what the places of `heard` give."""
    heard: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """The unit has its say everywhere in every row, and the same."""
        return self.region is None and self.strengths is None and len(self.rows) == self.batch

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows of `tensor` (B, ...). Raises HostError where the tensor has not the call's rows."""
        if len(tensor) != self.batch:
            raise HostError(
                "a layer of the U-Net gets other rows than the U-Net itself",
                found=f"{len(tensor)} rows instead of {self.batch}",
                remedy="switch off what cuts layers into tiles (such as HyperTile), or disable the unit",
            )
        return tensor if len(self.rows) == self.batch else self.step.kept.of(tensor, self.rows)

    def among(self, rows: Sequence[int]) -> PartCall | None:
        """The same where only some rows of the whole call come by; None where none of them is the unit's."""
        own = [place for place, row in enumerate(self.rows) if row in rows]
        if not own:
            return None
        strengths = None if self.strengths is None else tuple(self.strengths[place] for place in own)
        numbers = tuple(rows.index(self.rows[place]) for place in own)
        return replace(self, step=self.step.select(own), rows=numbers, batch=len(rows), strengths=strengths)

    def changed(
        self,
        given: Tensor,
        change: Callable[[Tensor], Tensor],
        size: tuple[int, int] | None = None,
        place: str = "",
    ) -> Tensor:
        """`given` (B, ...), which a `place` gives, of whose rows the unit's become `change(them)`, within the region
        and as far as the rows' strengths say.

        size: (h, w) of the picture that tokens (B, N, C) are, None where they are the prompt's; of features
        (B, C, h, w) it is their own.
        """
        part = self.of(given)
        new = change(part)
        if new is part:
            return given
        where = share = None if self.region is None else _share(self.region, new, size)
        if self.strengths is not None:
            rows = self.step.kept.strengths(self.strengths, new.device).to(new.dtype)
            rows = rows.reshape(-1, *(1 for _ in new.shape[1:]))
            share = rows if share is None else share * rows
        if share is not None:
            new = torch.lerp(part.to(new), new, share)
        self.hear(place, part, new, where)
        if len(self.rows) == self.batch:
            return new
        result = given.clone()
        self.step.kept.put(result, self.rows, new.to(given))
        return result

    def hear(self, place: str, given: Tensor, new: Tensor, where: Tensor | float | None = None) -> None:
        """The unit's rows of what `place` gives, (n, ...), have become `new`; `where`: how far it has its say there."""
        if self.told is not None and place in self.heard:
            self.told(given, new, where)

    def conditioned(self, step: Step, change: Callable[[Step], Step]) -> Step:
        """`step`, of whose rows the unit's get the context and y that `change` gives. The other rows of a context that
        became longer end with their own last tokens once more, which says nothing new.
        """
        if len(self.rows) == self.batch:
            return change(step)
        changed, kept = change(step.select(self.rows)), step.kept
        context, y = step.context, step.y
        longer = changed.context.shape[1] - context.shape[1]
        context = torch.cat([context, own_end(context, longer)], dim=1) if longer > 0 else context.clone()
        kept.put(context, self.rows, changed.context)
        if y is not None and changed.y is not None:
            y = y.clone()
            kept.put(y, self.rows, changed.y)
        told = step.told | {self.rows[place] for place in changed.told}
        return replace(step, context=context, y=y, told=told)


def _share(region: RegionMask, new: Tensor, size: tuple[int, int] | None) -> Tensor | float:
    """How much of `new` counts at each of its positions."""
    if new.dim() == 4:
        return region.at(new)
    if new.dim() == 3:
        if size is None:
            return region.mean
        height, width = size
        own = min(new.shape[1], height * width) or new.shape[1]
        share = region.of_tokens(new[:, :own], (height, width))
        # Behind the picture's positions is what other controls let an attention see.
        return share if own == new.shape[1] else functional.pad(share, (0, 0, 0, new.shape[1] - own))
    raise HostError(
        "a control that changes the whole picture at once was to keep to a region",
        field="effective_region_mask",
        found=f"{new.dim()} dimensions",
        remedy="remove the region mask",
    )


def _no_unet(_step: Step) -> None:
    raise RuntimeError("a control asks for the U-Net before it has its places in one")


@dataclass(eq=False)
class Part:
    """One control of a unit in the pass that has begun: of its control model, or its preprocessor's own."""

    model: ControlModel
    bound: BoundControl
    call: PartCall | None = None
    """None while it has no say."""
    plain: Callable[[Step], None] = _no_unet
    """Runs the U-Net in use on a step."""
    watching: bool = False
    """The plain call of its `prepare` is under way."""
    places: dict[str, int] = field(default_factory=dict[str, int])
    """Where in the U-Net it acts, and whose layer weight it has there."""
    dear: set[str] = field(default_factory=set[str])
    """Those of them where what there would be without it has to be computed once more."""

    @contextmanager
    def looking_on(self) -> Generator[Callable[[Step], None], None, None]:
        """Lends the U-Net without control, in whose layers this one looks on."""
        self.watching = True
        try:
            yield self.plain
        finally:
            self.watching = False

    def heard(self, call: PartCall) -> frozenset[str]:
        """The places by which its effect in a call is judged: a few, as evenly spread as they can be."""
        acting = [name for name, layer in self.places.items() if _weight(call, layer)]
        dear = [name for name in acting if name in self.dear]
        small = next((name for name in dear if name.startswith("middle_block")), dear[-1] if dear else PREDICTION)
        cheap = [name for name in acting if name not in self.dear]
        return frozenset((PREDICTION, small, *cheap[:: -(-len(cheap) // _HEARD) or 1]))

    def passed_by(self) -> list[str]:
        """The places where it was to act and which the call has not passed."""
        call = self.call
        if call is None:
            return []
        return [name for name, layer in self.places.items() if _weight(call, layer) and name not in call.came_by]


def _weight(call: PartCall, layer: int) -> float:
    return call.weights[layer] if call.weights else 1.0

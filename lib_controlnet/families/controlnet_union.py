"""ControlNet Union (xinsir): one file for many kinds of control images; the unit says which kind its map is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from ..core.errors import UnitError
from ..core.hints import Hint
from ..core.modes import UnionType
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..nets.config import ControlNetConfig
from ..nets.controlnet_union import ControlNetUnion, UnionConfig
from ..nets.operations import Operations
from .base import CONTROLNET_SHARES, BoundControl, Runtime, Sheet, UnitSettings, Weights
from .controlnet import BoundControlNet, ControlNetFamily, LoadedControlNet, load_controlnet, sized

_KINDS = tuple(kind for kind in UnionType if kind is not UnionType.unknown)
"""In the order of the network's task embedding."""


class ControlNetUnionFamily:
    """Detects by what it has beside a ControlNet's keys."""

    id = "controlnet_union"
    shares: Mapping[str, float] = CONTROLNET_SHARES
    before: Sequence[str] = ()
    condition = KeyCondition(
        all_of=("input_hint_block.0.weight", "task_embedding", "control_add_embedding.linear_1.weight"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedUnion:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        union = UnionConfig.from_weights(outlines(weights))

        def network(config: ControlNetConfig, operations: Operations) -> ControlNetUnion:
            return ControlNetUnion(config, union, operations)

        return load_controlnet(path, weights, metadata, runtime, holds_base=False, network=network, model=LoadedUnion)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        sheet = ControlNetFamily().inspect(path, weights)
        return Sheet(sheet.outputs, sheet.made_for, sheet.fits, UnionConfig.from_weights(outlines(weights)).kinds)


FAMILY = ControlNetUnionFamily()


class LoadedUnion(LoadedControlNet[ControlNetUnion]):
    """One Union file's network."""

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundUnion:
        """As a ControlNet's. Raises UnitError for a kind of map that the file does not know."""
        known = self.net.union.kinds
        kind = None if settings.union_type is UnionType.unknown else _KINDS.index(settings.union_type)
        if kind is None and settings.shows in _KINDS[:known]:
            kind = _KINDS.index(settings.shows)
        if kind is not None and kind >= known:
            raise UnitError(
                f'"{self.path.name}" knows {known} kinds of control images, and the unit\'s is none of them',
                unit=settings.unit,
                field="union_control_type",
                found=settings.union_type.value,
                remedy=f"use the ProMax version of the model, or one of: {', '.join(k.value for k in _KINDS[:known])}",
            )
        hint = self._hint(hints, settings)
        # What is to be painted anew is black here, not -1 as for the ControlNets of SD 1.x.
        return BoundUnion(self, [Condition(hint.clamp(min=0.0), kind)], pooled=self._pools(settings))


@dataclass(frozen=True, eq=False)
class Condition:
    """hint (1 or n, C, H, W): a control image, or one for each picture of the batch. kind: of it, None where untold."""

    hint: Tensor
    kind: int | None
    share: float = 1.0
    """How strong it is beside the strongest."""
    encoded: dict[object, Tensor] = field(default_factory=dict[object, Tensor])
    """The network's features of the hint, which a curve of the weights leaves as they are."""


class BoundUnion(BoundControlNet[ControlNetUnion]):
    """A Union with one unit's hint, or those of several, which pass the network together."""

    def __init__(
        self, model: LoadedControlNet[ControlNetUnion], conditions: Sequence[Condition], *, pooled: bool
    ) -> None:
        super().__init__(model, conditions[0].hint, pooled=pooled)
        self.conditions = conditions
        self._embedded: Tensor | None = None
        self._joint: dict[tuple[BoundControl, ...], BoundUnion] = {}

    def joint(self, bounds: Sequence[BoundControl], shares: Sequence[float]) -> BoundControl | None:
        """Where all have one hint, or as many as the others."""
        unions = [bound for bound in bounds if isinstance(bound, BoundUnion) and bound.pooled == self.pooled]
        pairs = zip(unions, shares, strict=False)
        conditions = [replace(one, share=share) for bound, share in pairs for one in bound.conditions]
        alike = len({len(one.hint) for one in conditions} - {1}) < 2
        if not alike or len(unions) < len(bounds):
            return None
        made = self._joint.setdefault(tuple(bounds), BoundUnion(self._model, conditions, pooled=self.pooled))
        made.conditions, made._features = conditions, {}
        return made

    def _encoded_at(self, x: Tensor) -> Tensor:
        parts = [self._of(condition, x) for condition in self.conditions]
        return sum(parts[1:], parts[0])

    def _of(self, condition: Condition, x: Tensor) -> Tensor:
        net = self._model.net
        place = (x.shape[2:], x.dtype, x.device)
        if place not in condition.encoded:
            condition.encoded[place] = net.encode_hint(sized(condition.hint, x))
        features = condition.encoded[place]
        if condition.kind is None:
            return features * condition.share
        return net.encode_kind(features, condition.kind, condition.share)

    def _further(self) -> Tensor:
        if self._embedded is None:
            told = {condition.kind for condition in self.conditions if condition.kind is not None}
            self._embedded = self._model.net.embed_kinds(tuple(told))
        return self._embedded

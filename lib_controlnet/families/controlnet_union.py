"""ControlNet Union (xinsir): one file for many kinds of control images; the unit says which kind its map is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .base import Runtime, Sheet, UnitSettings, Weights
from .controlnet import BoundControlNet, ControlNetFamily, LoadedControlNet, load_controlnet

_KINDS = tuple(kind for kind in UnionType if kind is not UnionType.unknown)
"""In the order of the network's task embedding."""


class ControlNetUnionFamily:
    """Detects by what it has beside a ControlNet's keys."""

    id = "controlnet_union"
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
        kind = None if settings.union_type is UnionType.unknown else _KINDS.index(settings.union_type)
        known = self.net.union.kinds
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
        return BoundUnion(self, hint.clamp(min=0.0), pooled=self._pools(settings), kind=kind)


class BoundUnion(BoundControlNet[ControlNetUnion]):
    """A Union with one unit's hint of one kind, or of none that was told."""

    def __init__(
        self, model: LoadedControlNet[ControlNetUnion], hint: Tensor, *, pooled: bool, kind: int | None
    ) -> None:
        super().__init__(model, hint, pooled=pooled)
        self._kind = kind
        self._embedded: Tensor | None = None

    def _encoded(self, hint: Tensor) -> Tensor:
        net = self._model.net
        features = super()._encoded(hint)
        return features if self._kind is None else net.encode_kind(features, self._kind)

    def _further(self) -> Tensor:
        if self._embedded is None:
            self._embedded = self._model.net.embed_kinds(() if self._kind is None else (self._kind,))
        return self._embedded

"""CoAdapters: T2I-Adapters of one pass that a fuser makes agree on what each of them adds (TencentARC, 2023)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..core.errors import ModelFileError
from ..core.precision import own_types
from ..core.step import Step
from ..loading.build import fill
from ..loading.canonical import canonical
from ..loading.detect import KeyCondition
from ..loading.reader import SUFFIXES, read_weights
from ..loading.sidecar import TASK, TASKS
from ..nets.coadapter import CoAdapterFuser, FuserConfig
from ..nets.operations import Operations
from .base import BoundControl

FUSER = KeyCondition(all_of=("task_embedding", "seq_proj", "spatial_feat_mapping.0.1.weight"))
_PUBLISHED = re.compile(r"coadapter-([a-z]+)-sd15v\d+")
"""Whole names of the published files, which do not say their task in any other way."""


@dataclass(frozen=True)
class CoAdapter:
    """What makes an adapter one of several. task: its number in the fuser. fuser: the file beside it."""

    task: int
    fuser: Path


@runtime_checkable
class Partner(Protocol):
    """A bound CoAdapter."""

    fusion: Fusion | None
    piecewise: bool
    """Of pieces of the hint the others would know nothing."""

    @property
    def co(self) -> CoAdapter | None:
        """None where it is an adapter like others."""
        ...

    def summary(self, step: Step) -> Tensor | Sequence[Tensor]:
        """As far as its weight lets it act: tokens (n, L, C), or the means of its features, (n, C) each."""
        ...


def coadapter_of(path: Path, metadata: Mapping[str, str]) -> CoAdapter | None:
    """None where nothing says the adapter's task, or no fuser lies beside it."""
    published = _PUBLISHED.fullmatch(path.stem.lower())
    task = metadata.get(TASK, published[1] if published else "")
    if task not in TASKS:
        return None
    for file in sorted(path.parent.glob("*fuser*")):
        if file.is_file() and file.suffix.lower() in SUFFIXES and _is_fuser(file):
            return CoAdapter(TASKS.index(task), file)
    return None


def _is_fuser(file: Path) -> bool:
    try:
        weights = read_weights(file, shapes_only=True).weights
    except ModelFileError:
        return False  # what is no weights file is no fuser; it is named where it is chosen as a model
    return FUSER.matches(canonical(weights).keys())


def met(bound: Partner, others: Sequence[BoundControl]) -> None:
    """Brings the CoAdapters of a pass together: the first of at least two makes their fusion."""
    partners = [other for other in others if isinstance(other, Partner) and other.co is not None]
    if len(partners) > 1 and partners[0] is bound and bound.co is not None:
        fusion = Fusion(bound.co.fuser, partners)
        for each in partners:
            each.fusion, each.piecewise = fusion, False


class Fusion:
    """The CoAdapters of one pass. The fuser computes on the processor, in float32, once a size: it sees few tokens."""

    def __init__(self, file: Path, partners: Sequence[Partner]) -> None:
        self._partners = partners
        weights = canonical(read_weights(file).weights)
        config = FuserConfig.from_weights(weights)
        self._net = fill(
            lambda: CoAdapterFuser(config, Operations()), weights, dtype=torch.float32, device="cpu", name=file.name
        )
        self._factors: dict[tuple[int, ...], Sequence[Tensor | tuple[Tensor, ...]]] = {}

    def factors(self, partner: Partner, step: Step) -> Tensor | tuple[Tensor, ...]:
        """Of its tokens (n, L, C), or of each of its features (n, C); on the processor."""
        size = tuple(step.x.shape[2:])
        if size not in self._factors:
            with own_types((step.x.device,)):
                self._factors = {size: self._fused(step)}
        return self._factors[size][self._partners.index(partner)]

    @torch.no_grad()
    def _fused(self, step: Step) -> Sequence[Tensor | tuple[Tensor, ...]]:
        told = [(partner.co.task if partner.co else 0, partner.summary(step)) for partner in self._partners]
        count = max(len(seen) if isinstance(seen, Tensor) else len(seen[0]) for _, seen in told)
        spatial = [(task, [_even(mean, count) for mean in seen]) for task, seen in told if not isinstance(seen, Tensor)]
        styles = [(task, _even(seen, count)) for task, seen in told if isinstance(seen, Tensor)]
        of_features, of_tokens = (iter(part) for part in self._net(spatial, styles))
        return [next(of_tokens) if isinstance(seen, Tensor) else next(of_features) for _, seen in told]


def _even(seen: Tensor, count: int) -> Tensor:
    """(n or 1, ...) -> (count, ...) float32 on the processor."""
    return seen.to("cpu", torch.float32).expand(count, *seen.shape[1:])

"""The metric of each kind of map, and the kind of map that a preprocessor makes.

A preprocessor says it itself (`shows`); for those of other extensions their control type does. What nobody says is
unknown, and compared as that.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.control_types import MAP_KINDS
from ..core.preprocessors import PreprocessorSpec
from .embedded import Embedded
from .graded import Depth, Normals
from .lines import Lines
from .pictures import Colours, Pictures, Unknown
from .poses import Poses
from .score import Metric
from .segments import Regions, Segments

EMBEDDING = "embedding"
UNKNOWN = "unknown"
METRICS: Mapping[str, Metric] = {
    metric.kind: metric
    for metric in (
        Lines(),
        Depth(),
        Normals(),
        Segments(),
        Regions(),
        Poses(),
        Pictures(),
        Colours(),
        Embedded(),
        Unknown(),
    )
}
"""By kind."""


def metric_of(kind: str) -> Metric:
    """The metric of a kind of map; of a kind that is not known it is `Unknown`, which says so."""
    return METRICS.get(kind, METRICS[UNKNOWN])


def kind_of(spec: PreprocessorSpec) -> str:
    """The kind of map that a preprocessor makes, "unknown" where neither it nor its control types say."""
    if spec.shows:
        return spec.shows
    if not spec.returns_image:
        return EMBEDDING
    return next((MAP_KINDS[name] for name in spec.control_types if name in MAP_KINDS), UNKNOWN)

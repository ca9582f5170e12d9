"""The metric of each kind of map, and the kind of map that a preprocessor makes.

A preprocessor says it itself (`shows`); for those of other extensions their control type does. What nobody says is
unknown, and compared as that.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.control_types import MAP_KINDS, MODEL_WORDS
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


def expected_kind(spec: PreprocessorSpec, model: str) -> str:
    """The kind of map that a unit's model is to get: the preprocessor's; where that takes any, its name's.

    A name decides of a warning here, never of what is computed; "unknown" where it says nothing, or two things.
    """
    if not spec.reads_map or kind_of(spec) != UNKNOWN:
        return kind_of(spec)
    name = model.lower()
    types = [type_ for type_, rule in MODEL_WORDS.items() if any(word in name for word in rule.words)]
    kinds = {MAP_KINDS[type_] for type_ in types if type_ in MAP_KINDS}
    return kinds.pop() if len(kinds) == 1 else UNKNOWN

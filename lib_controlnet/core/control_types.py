"""Control types: the words by which a user finds a preprocessor and a model that belong together.

A preprocessor names its types in its specification. A model file has no such field, so its name is searched for the
peers' words: that shortens a list and picks a default, and decides nothing about how the file is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .modes import UnionType
from .preprocessors import PreprocessorSpec

ALL = "All"
NO_PREPROCESSOR = "none"
NO_MODEL = "None"


_Spec = TypeVar("_Spec", bound=PreprocessorSpec)


@dataclass(frozen=True)
class ModelWords:
    """Words in the names of a type's model files; `union`: models of several types are listed too."""

    words: tuple[str, ...]
    union: bool = False


MODEL_WORDS: Mapping[str, ModelWords] = {
    "Canny": ModelWords(("canny",), True),
    "Depth": ModelWords(("depth",), True),
    "IP-Adapter": ModelWords(("ip-adapter", "ip_adapter", "ipadapter", "pulid")),
    "Inpaint": ModelWords(("inpaint", "brushnet"), True),
    "Instant-ID": ModelWords(("instant-id", "instant_id", "instantid")),
    "InstructP2P": ModelWords(("instructp2p", "ip2p")),
    "Lineart": ModelWords(("lineart",), True),
    "MLSD": ModelWords(("mlsd",), True),
    "NormalMap": ModelWords(("normalmap", "normal"), True),
    "OpenPose": ModelWords(("openpose", "densepose"), True),
    "Recolor": ModelWords(("recolor",)),
    "Reference": ModelWords(("reference",)),
    "Revision": ModelWords(("revision",)),
    "Scribble": ModelWords(("scribble", "sketch"), True),
    "Segmentation": ModelWords(("segmentation", "seg"), True),
    "Shuffle": ModelWords(("shuffle",)),
    "SoftEdge": ModelWords(("softedge",), True),
    "SparseCtrl": ModelWords(("sparsectrl",)),
    "T2I-Adapter": ModelWords(("t2i-adapter", "t2i_adapter", "t2iadapter", "t2ia", "coadapter")),
    "Tile": ModelWords(("tile", "blur"), True),
}
"""The peers' types in their order, after "All"."""


UNION_TYPES: Mapping[str, UnionType] = {
    "Canny": UnionType.hard_edge,
    "Depth": UnionType.depth,
    "Inpaint": UnionType.inpaint,
    "Lineart": UnionType.hard_edge,
    "MLSD": UnionType.hard_edge,
    "NormalMap": UnionType.normal,
    "OpenPose": UnionType.openpose,
    "Scribble": UnionType.soft_edge,
    "Segmentation": UnionType.segmentation,
    "SoftEdge": UnionType.soft_edge,
    "Tile": UnionType.tile,
}
"""What a union model is told for a control type; "Unknown" for the others."""

MIXED_TYPES = frozenset({"T2I-Adapter"})
"""The types that say how a model is built: its models need different maps, and its preprocessors are each for one."""

LINE_TYPES = frozenset({"Canny", "Lineart", "MLSD", "Scribble", "SoftEdge"})
"""The types whose models were trained on white lines on black."""


MAP_KINDS: Mapping[str, str] = {
    "Canny": "lines",
    "Depth": "depth",
    "Inpaint": "pictures",
    "Lineart": "lines",
    "MLSD": "lines",
    "NormalMap": "normals",
    "OpenPose": "poses",
    "Recolor": "pictures",
    "Reference": "colours",
    "Scribble": "lines",
    "Segmentation": "segments",
    "Shuffle": "colours",
    "SoftEdge": "lines",
    "Tile": "pictures",
}
"""What the maps of a control type show, as a meter compares them (see `measure/metrics.py`)."""


def type_names(specs: Iterable[PreprocessorSpec] = ()) -> list[str]:
    """All types: "All", the peers', and those that third-party preprocessors add."""
    extra = {name for spec in specs for name in spec.control_types} - set(MODEL_WORDS) - {ALL}
    return [ALL, *sorted({*MODEL_WORDS, *extra})]


def usable_types(specs: Sequence[PreprocessorSpec], models: Sequence[str]) -> list[str]:
    """The types for which there is a preprocessor or a model here; the others would offer nothing."""
    return [
        name
        for name in type_names(specs)
        if name == ALL or any(name in spec.control_types for spec in specs) or len(models_of(name, models)) > 1
    ]


def preprocessors_of(control_type: str, specs: Iterable[_Spec]) -> list[_Spec]:
    """The type's preprocessors: "none", then the others in the order in which they are given."""
    chosen = (spec for spec in specs if control_type in (ALL, *spec.control_types) or spec.id == NO_PREPROCESSOR)
    return sorted(chosen, key=lambda spec: spec.id != NO_PREPROCESSOR)


def default_preprocessor(
    control_type: str, specs: Iterable[_Spec], absent: Iterable[PreprocessorSpec] = (), model: str = NO_MODEL
) -> _Spec | None:
    """The type's first preprocessor after "none"; "none" itself for All and where there is no other.

    `absent` are known and cannot run here. Where one of them is the type's own default, what finds the same takes its
    place, and else "none" does: something of another kind would be a surprise. `model`: the type's default, which of a
    mixed type decides by its name.
    """
    ordered = preprocessors_of(control_type, specs)
    if control_type in MIXED_TYPES and model != NO_MODEL:
        return next((spec for spec in ordered[1:] if _named_alike(spec, model)), next(iter(ordered), None))
    own = max((spec for spec in absent if control_type in spec.control_types), key=lambda spec: spec.rank, default=None)
    if control_type == ALL or not ordered[1:]:
        return next(iter(ordered), None)
    if own is None or getattr(ordered[1], "rank", 0) >= own.rank:
        return ordered[1]
    return next((spec for spec in ordered[1:] if same_kind(spec, own)), ordered[0])


def _named_alike(spec: PreprocessorSpec, model: str) -> bool:
    """Whether the name of a model has a word of the preprocessor's, but for those of the type itself: "style"."""
    common = {word for control_type in MIXED_TYPES for word in MODEL_WORDS[control_type].words}
    own = set(re.split(r"[^a-z]+", model.lower()))
    return bool((set(getattr(spec, "label", "").lower().split("_")) - common) & own)


def same_kind(one: PreprocessorSpec, other: PreprocessorSpec) -> bool:
    """Whether the two find the same in a picture, each in its own way; those of other extensions do not say."""
    found = getattr(one, "finds", "")
    return bool(found) and found == getattr(other, "finds", "")


def models_of(control_type: str, names: Iterable[str]) -> list[str]:
    """ "None" and the display names that fit the type."""
    if control_type == ALL:
        return [NO_MODEL, *names]
    rule = MODEL_WORDS.get(control_type, ModelWords((control_type.lower(),)))
    words = (*rule.words, "union") if rule.union else rule.words
    return [NO_MODEL, *(name for name in names if any(word in name.lower() for word in words))]


def default_model(control_type: str, names: Iterable[str], fits: Callable[[str], bool] = lambda _name: True) -> str:
    """The type's first model of ControlNet 1.1 (`…_v11p_…`), else its first, else "None".

    `fits` says whether a model controls the loaded checkpoint: one that does not is no default.
    """
    fitting = [] if control_type == ALL else [name for name in models_of(control_type, names)[1:] if fits(name)]
    newer = [name for name in fitting if "11" in name.rpartition(" [")[0]]
    return next(iter(newer or fitting), NO_MODEL)

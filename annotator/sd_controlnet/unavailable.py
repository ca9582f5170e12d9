"""Preprocessors that users of other extensions know and this version does not have.

They are not listed; asked for by name they are answered with what is missing instead of "unknown".
An entry leaves this table by getting a folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unavailable:
    """A known preprocessor and what running it would need. aliases: what other tools call it."""

    id: str
    needs: str
    label: str = ""
    control_types: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it is asked for by."""
        return tuple(name for name in (self.id, self.label, *self.aliases) if name)

    @property
    def reason(self) -> str:
        """Why it is not offered, as a clause."""
        return f"it needs {self.needs}"


_DEPTH = ("Depth",)
_NORMAL = ("NormalMap",)
_METRIC = (
    "the network of Metric3D, whose code (BSD-2-Clause) is in no package on PyPI; "
    "depth_anything_v2_metric_indoor gives depth in metres, normal_bae gives normals"
)


UNAVAILABLE: tuple[Unavailable, ...] = (
    Unavailable(
        "depth_hand_refiner",
        "the package handrefinerportable, which is not on PyPI, and MANO's model of a hand, which can be read as a "
        "pickle alone and is licensed for research",
        control_types=_DEPTH,
        aliases=("MeshGraphormer-DepthMapPreprocessor", "MeshGraphormer+ImpactDetector-DepthMapPreprocessor"),
    ),
    Unavailable("metric3d_depth", _METRIC, control_types=_DEPTH, aliases=("Metric3D-DepthMapPreprocessor",)),
    Unavailable("metric3d_normal", _METRIC, control_types=_NORMAL, aliases=("Metric3D-NormalMapPreprocessor",)),
    Unavailable(
        "normal_dsine",
        "the network of DSINE, which is in no package on PyPI and whose licence allows neither commercial use nor "
        "passing it on; normal_bae gives normals too",
        control_types=_NORMAL,
        aliases=("DSINE-NormalMapPreprocessor",),
    ),
)

"""The picture itself: for a map that was made elsewhere."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="none",
    aliases=("identity", "passthrough"),
    control_types=("InstructP2P",),
    rank=10,
    resolution=None,
    reads_map=True,
)


def load(runtime: Runtime) -> Detector:
    """The identity, alpha over white."""
    from .detector import identity

    return identity

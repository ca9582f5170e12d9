"""The picture's contents moved about by a smooth random flow, so that only its colours and style are left."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="shuffle",
    aliases=("ShufflePreprocessor",),
    control_types=("Shuffle",),
    resolution=None,
    cacheable=False,
    scatters=True,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import shuffle

    return shuffle

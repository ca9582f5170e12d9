"""The pictures of a batch attend to one another while they are sampled (the engine's effect); no picture is read."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPECS = (
    PreprocessorSpec(
        id="style_align",
        label="style_align (pictures of a batch)",
        control_types=("Reference",),
        rank=-10,
        resolution=None,
        model_free=True,
        pictureless=True,
        hides_control_mode=True,
        effect="style_align",
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Shows a picture itself, where one is previewed."""
    from ..none.detector import identity

    return identity

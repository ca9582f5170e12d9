"""The picture with the mask as its fourth channel, for the inpaint models."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPECS = (
    PreprocessorSpec(
        id="inpaint",
        label="inpaint_global_harmonious",
        aliases=("InpaintPreprocessor",),
        control_types=("Inpaint",),
        resolution=None,
        accepts_mask=True,
        requires_mask=True,
        keeps_alpha=True,
    ),
    PreprocessorSpec(
        id="inpaint_only",
        control_types=("Inpaint",),
        rank=100,
        resolution=None,
        accepts_mask=True,
        requires_mask=True,
        keeps_alpha=True,
        within_host_mask="inpaint",
        effect="inpaint_only",
        effect_options={"from_filling": False},
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Both give the same map; "only" also keeps what lies outside the mask while sampling (the engine's effect)."""
    from .detector import inpaint

    return inpaint

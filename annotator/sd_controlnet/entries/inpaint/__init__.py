"""The picture with the mask as its fourth channel, for the inpaint models."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

_TASKS = {
    "object": (),
    "shape": (Slider("Fitting degree", 0.3, 1.0, 0.05, 1.0),),
    "removal": (),
    "outpainting": (),
    "context": (),
}
"""What PowerPaint v2 may be told to do with the hole."""

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
    *(
        PreprocessorSpec(
            id=f"powerpaint_{task}",
            control_types=("Inpaint",),
            rank=-100,
            sliders=sliders,
            resolution=None,
            accepts_mask=True,
            requires_mask=True,
            keeps_alpha=True,
            effect_options={"powerpaint": task},
        )
        for task, sliders in _TASKS.items()
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """All give the same map; "only" also keeps what lies outside the mask while sampling (the engine's effect), and
    PowerPaint's tell its network what to do."""
    from .detector import inpaint

    return inpaint

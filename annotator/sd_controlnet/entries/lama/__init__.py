"""What a mask covers, filled by LaMa before the inpaint model sees the picture (Suvorov et al., 2021)."""

from __future__ import annotations

from ...spec import FLOAT16, Detector, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="ControlNetLama.pth", folder="lama", size=204_584_570, licence="Apache-2.0", repo="lllyasviel/Annotators"
)

SPEC = PreprocessorSpec(
    id="inpaint_only+lama",
    control_types=("Inpaint",),
    resolution=None,
    weights=(WEIGHTS,),
    half=FLOAT16,
    accepts_mask=True,
    requires_mask=True,
    keeps_alpha=True,
    fills_border=True,
    effect="inpaint_only",
    effect_options={"from_filling": True},
)


def load(runtime: Runtime) -> Detector:
    """The filled picture with the mask as its fourth channel; "only" is the engine's effect, as for `inpaint_only`."""
    from .detector import Lama

    return Lama(runtime, WEIGHTS)

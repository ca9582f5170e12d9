"""Metric depth by ZoeDepth (Bhat et al., 2023, arXiv:2302.12288), the network for rooms (NYU)."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="ZoeD_M12_N.pt", folder="zoedepth", size=1_443_406_099, licence="MIT", repo="lllyasviel/Annotators"
)

SPEC = PreprocessorSpec(
    id="depth_zoe",
    # the second node runs ZoeDepth too, since comfyui_controlnet_aux gave up its network on Depth Anything
    aliases=("Zoe-DepthMapPreprocessor", "Zoe_DepthAnythingPreprocessor"),
    control_types=("Depth",),
    finds="depth",
    weights=(WEIGHTS,),
    full_because="a rounding moves its bins of depth by up to 4/255",
)


def load(runtime: Runtime) -> Detector:
    """One network."""
    from .detector import Zoe

    return Zoe(runtime, WEIGHTS)

"""The picture itself; the U-Net attends to it while sampling (the engine's effect), without a control model."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider


def _reference(id_: str, rank: int = 0, *, attention: bool = False, adain: bool = False) -> PreprocessorSpec:
    return PreprocessorSpec(
        id=id_,
        control_types=("Reference",),
        rank=rank,
        resolution=None,
        sliders=(Slider("Style Fidelity (only for Balanced mode)", 0, 1, 0.01, 0.5),),
        model_free=True,
        effect="reference",
        effect_options={"attention": attention, "adain": adain},
    )


SPECS = (
    _reference("reference_only", 100, attention=True),
    _reference("reference_adain", adain=True),
    _reference("reference_adain+attn", attention=True, adain=True),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """All show the picture itself; they differ in what is done while sampling."""
    from ..none.detector import identity

    return identity

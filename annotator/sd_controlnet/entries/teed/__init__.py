"""Soft edges by a tiny network (Soria et al., 2023, arXiv:2308.06468), and Anyline, which adds fine lines to them."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, Slider, WeightFile, resolution_slider

WEIGHTS = {
    "softedge_teed": WeightFile(
        name="7_model.pth",
        folder="TEED",
        size=257_000,
        licence="MIT",
        repo="bdsqlsz/qinglong_controlnet-lllite",
        path="Annotators/7_model.pth",
    ),
    "softedge_anyline": WeightFile(
        name="MTEED.pth",
        folder="TEED",
        size=257_000,
        licence="MIT",
        repo="TheMistoAI/MistoLine",
        path="Anyline/MTEED.pth",
    ),
}
_SAFE_STEPS = Slider("Safe Steps", 0, 10, 1, 2)
_LIBRARIES = (Library("controlnet_aux", "controlnet-aux", "0.0.9"),)

SPECS = (
    PreprocessorSpec(
        id="softedge_teed",
        aliases=("TEEDPreprocessor",),
        control_types=("SoftEdge",),
        finds="soft edges",
        sliders=(_SAFE_STEPS,),
        weights=(WEIGHTS["softedge_teed"],),
        libraries=_LIBRARIES,
        full_because="a rounding moves pixels over the steps",
    ),
    PreprocessorSpec(
        id="softedge_anyline",
        aliases=("AnyLineArtPreprocessor_aux",),
        control_types=("SoftEdge",),
        finds="soft edges",
        resolution=resolution_slider(1280),
        sliders=(_SAFE_STEPS,),
        weights=(WEIGHTS["softedge_anyline"],),
        libraries=_LIBRARIES,
        full_because="a rounding moves pixels over the steps",
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One architecture with two sets of weights."""
    from .detector import Anyline, Teed

    return {"softedge_teed": Teed, "softedge_anyline": Anyline}[id_](runtime, id_, WEIGHTS[id_])

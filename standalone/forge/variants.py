"""In what the members of the family differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One WebUI. `core`: the package of its models; `unet`: the class of its U-Nets; `version`: what
    `modules_forge.forge_version` says."""

    name: str
    core: str
    unet: str
    version: str
    release: str | None = None
    hires: tuple[str, ...] = ("before_hr", "reset", "call")
    """What happens between the passes: the callback, unpatched objects, the callback before sampling."""
    uncond_dropped: bool = False
    """At CFG 1 no negative prompt is encoded and `uc` is None; otherwise only its rows are left out."""
    ldm_model: bool = True
    """`shared.sd_model` is a LatentDiffusion too; otherwise it has no `model`."""
    options_argument: bool = False
    """`get_control` gets the transformer options as a fifth argument, and the object is given none."""
    control_model: bool = True
    """The control object itself is handed on to the U-Net."""
    blocks_called: bool = False
    """A block of the U-Net is called; otherwise its layers are, and hooks on blocks never fire."""
    resizes_residuals: bool = False
    """A residual of another size or type is fitted; otherwise it is left out with a line on the console."""
    marks_rows: bool = True
    """The transformer options tell cond rows from uncond rows (`cond_mark`, ...); otherwise they have `uuids`."""
    schedule_told: bool = False
    """The transformer options have `sampling_sigmas`, the whole schedule."""
    knows_dtype: bool = True
    """`patcher.model_dtype()` answers; otherwise it is None."""


BACKEND_UNET = "backend.nn.unet.IntegratedUNet2DConditionModel"
LDM_UNET = "ldm_patched.ldm.modules.diffusionmodules.openaimodel.UNetModel"
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            "forge",
            "backend",
            BACKEND_UNET,
            "2.0.1v1.10.1",
            hires=("before_hr", "call", "reset", "call"),
            uncond_dropped=True,
            ldm_model=False,
            blocks_called=True,
            knows_dtype=False,
        ),
        Variant(
            "neo",
            "backend",
            BACKEND_UNET,
            "neo",
            release="2.26",
            uncond_dropped=True,
            ldm_model=False,
            blocks_called=True,
            schedule_told=True,
            knows_dtype=False,
        ),
        Variant(
            "reforge",
            "ldm_patched",
            LDM_UNET,
            "1.0.0v2-v1.10.1RC",
            hires=("reset", "before_hr", "call"),
            options_argument=True,
            control_model=False,
            resizes_residuals=True,
            marks_rows=False,
        ),
        Variant("classic", "ldm_patched", LDM_UNET, "classic"),
    )
}

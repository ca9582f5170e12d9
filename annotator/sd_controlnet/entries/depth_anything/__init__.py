"""Relative and metric depth by Depth Anything (Yang et al., 2024, arXiv:2401.10891) and its second version."""

from __future__ import annotations

from ...spec import FLOAT16, Detector, PreprocessorSpec, Runtime, WeightFile

_MEGABYTE = 1_000_000
_SIZES = {"small": ("s", 99), "base": ("b", 390), "large": ("l", 1341), "giant": ("g", 4500)}


def _first(size: str) -> WeightFile:
    letter, megabytes = _SIZES[size]
    name = f"depth_anything_vit{letter}14.pth"
    return WeightFile(
        name=name,
        folder="depth_anything",
        size=megabytes * _MEGABYTE,
        licence="Apache-2.0",
        repo="LiheYoung/Depth-Anything",
        path=f"checkpoints/{name}",
        repo_type="space",
    )


def _second(size: str) -> WeightFile:
    letter, megabytes = _SIZES[size]
    return WeightFile(
        name=f"depth_anything_v2_vit{letter}.pth",
        folder="depth_anything_v2",
        size=megabytes * _MEGABYTE,
        licence="Apache-2.0" if size == "small" else "CC-BY-NC-4.0",
        repo=f"depth-anything/Depth-Anything-V2-{size.capitalize()}",
    )


def _metric(place: str, where: str) -> WeightFile:
    return WeightFile(
        name=f"depth_anything_v2_metric_{place}_vitl.pth",
        folder="depth_anything_v2",
        size=_SIZES["large"][1] * _MEGABYTE,
        licence="CC-BY-NC-4.0",
        repo=f"depth-anything/Depth-Anything-V2-Metric-{where}-Large",
    )


def _spec(id_: str, weight: WeightFile, *aliases: str) -> PreprocessorSpec:
    return PreprocessorSpec(
        id=id_, aliases=aliases, control_types=("Depth",), finds="depth", weights=(weight,), half=FLOAT16
    )


_SAFETENSORS = WeightFile(
    name="depth_anything_v2_vitl.safetensors",
    folder="depth_anything_v2",
    size=_SIZES["large"][1] * _MEGABYTE,
    licence="CC-BY-NC-4.0",
    repo="MackinationsAi/Depth-Anything-V2_Safetensors",
)

SPECS = (
    _spec("depth_anything", _first("large"), "DepthAnythingPreprocessor"),
    _spec("depth_anything_base", _first("base")),
    _spec("depth_anything_small", _first("small")),
    _spec("depth_anything_v2", _SAFETENSORS),
    _spec("depth_anything_v2_small", _second("small")),
    _spec("depth_anything_v2_base", _second("base")),
    _spec("depth_anything_v2_large", _second("large"), "DepthAnythingV2Preprocessor"),
    _spec("depth_anything_v2_giant", _second("giant")),
    _spec(
        "depth_anything_v2_metric_indoor",
        _metric("hypersim", "Hypersim"),
        "Metric_DepthAnythingV2Preprocessor",
    ),
    _spec("depth_anything_v2_metric_outdoor", _metric("vkitti", "VKITTI")),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """A network for each."""
    from .detector import DepthAnything

    weight = next(spec.weights[0] for spec in SPECS if spec.id == id_)
    return DepthAnything(
        runtime,
        weight,
        version=2 if "_v2" in id_ else 1,
        metric="_metric_" in id_,
        # sd-webui-controlnet feeds these two with red and blue exchanged; maps that users have were made so
        exchanged=id_ in ("depth_anything", "depth_anything_v2"),
    )

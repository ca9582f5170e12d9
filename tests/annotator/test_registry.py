"""The frame: finding, naming, refusing, and what reading the specifications costs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from annotator.sd_controlnet.registry import (
    Disabled,
    DuplicatePreprocessor,
    Entry,
    Registry,
    UnavailablePreprocessor,
    UnknownPreprocessor,
    discover,
)
from annotator.sd_controlnet.spec import AnnotatorError, Cancelled, PreprocessorSpec, Runtime, Slider, resolution_slider
from annotator.sd_controlnet.unavailable import UNAVAILABLE, Unavailable

ROOT = Path(__file__).resolve().parents[2]
EFFECTS = ("reference", "tile_colorfix", "inpaint_only", "recolor")


def entry(id_: str, **fields: Any) -> Entry:
    return Entry(PreprocessorSpec(id=id_, **fields), lambda runtime: lambda image, **_: image)


# --- finding ------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A package of preprocessor folders; call it with folder names and their sources, get its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"annotator_of_{abs(hash(request.node.name))}"

    def make(**folders: str) -> str:
        (tmp_path / name / "entries").mkdir(parents=True)
        for folder, source in folders.items():
            (tmp_path / name / "entries" / folder).mkdir()
            (tmp_path / name / "entries" / folder / "__init__.py").write_text(
                "from annotator.sd_controlnet.spec import PreprocessorSpec\n" + source, encoding="utf-8"
            )
        return name

    return make


GOOD = "SPEC = PreprocessorSpec(id='good')\ndef load(runtime): return runtime.device"


def test_a_folder_is_an_entry(package: Any) -> None:
    registry = discover(package=package(good=GOOD))
    assert [found.spec.id for found in registry.entries] == ["good"]
    assert registry.get("good").load(Runtime(device="cuda:1")) == "cuda:1"  # type: ignore[comparison-overlap]


def test_a_folder_may_hold_several(package: Any) -> None:
    source = "SPECS = [PreprocessorSpec(id=i) for i in 'ab']\ndef load(runtime, id_): return id_"
    registry = discover(package=package(pair=source))
    assert [registry.get(name).load(Runtime()) for name in "ab"] == ["a", "b"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_library_nobody_has", "ModuleNotFoundError: No module named 'a_library_nobody_has'"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError: operator torchvision::nms"),
        ("def load(runtime): ...", "AttributeError"),
        ("SPEC = PreprocessorSpec(id='')", "ValueError: a preprocessor's id must be a name"),
        ("SPEC = PreprocessorSpec(id='x')", "AttributeError"),
        ("x = (", "SyntaxError"),
    ],
)
def test_a_folder_that_fails_is_disabled_with_its_reason(package: Any, source: str, reason: str) -> None:
    registry = discover(package=package(bad=source, good=GOOD))
    assert [found.spec.id for found in registry.entries] == ["good"]
    assert reason in registry.disabled["bad"].reason
    with pytest.raises(UnavailablePreprocessor, match="known, but not available"):
        registry.get("Bad")


def test_two_folders_with_one_name_do_not_stop_the_others(package: Any) -> None:
    other = GOOD.replace("id='good'", "id='other', aliases=('GOOD',)")
    registry = discover(package=package(good=GOOD, other=other, third=GOOD.replace("'good'", "'third'")))
    assert {found.spec.id for found in registry.entries} == {"good", "third"}
    assert 'has the name "good" of "good"' in registry.disabled["other"].reason


def test_modules_beside_the_folders_are_no_entries(package: Any, tmp_path: Path) -> None:
    name = package(good=GOOD)
    (tmp_path / name / "beside.py").write_text("raise RuntimeError", encoding="utf-8")
    registry = discover(package=name)
    assert "beside" not in registry.disabled


def test_the_package_is_found_under_the_name_it_is_mounted_by() -> None:
    code = """
import sys, types
package = types.ModuleType("a_private_name"); package.__path__ = [sys.argv[1]]; sys.modules["a_private_name"] = package
import importlib
registry = importlib.import_module("a_private_name.registry").discover()
assert registry.get("canny").spec.id == "canny"
assert not any(name.split(".")[0] in ("annotator", "lib_controlnet") for name in sys.modules)
detector = registry.get("canny").load(importlib.import_module("a_private_name.spec").Runtime())
assert detector.__module__ == "a_private_name.entries.canny.detector"
"""
    subprocess.run([sys.executable, "-c", code, str(ROOT / "annotator" / "sd_controlnet")], check=True)


def test_discovery_imports_no_libraries_and_takes_little() -> None:
    code = """
import sys, time
import dataclasses, typing, pathlib, importlib, pkgutil, difflib
from annotator.sd_controlnet.registry import discover
discover()  # compiles the folders if nobody has yet
for name in [name for name in sys.modules if name.startswith("annotator")]:
    del sys.modules[name]
start = time.process_time()
from annotator.sd_controlnet.registry import discover
registry = discover()
seconds = time.process_time() - start
heavy = {"torch", "cv2", "numpy", "PIL", "modules", "lib_controlnet", "gradio", "scipy", "skimage", "transformers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert len(registry.entries) >= 8
assert seconds < 0.15, seconds
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- names --------------------------------------------------------------------------------------------------------


def test_any_name_in_any_case() -> None:
    registry = Registry()
    registry.register(entry("color", label="t2ia_color_grid", aliases=("ColorPreprocessor",)))
    for name in ("color", "COLOR", "T2ia_Color_Grid", "colorpreprocessor", " color "):
        assert registry.get(name).spec.id == "color"
        assert name in registry
    assert "colour" not in registry
    assert 3 not in registry


def test_unknown_names_are_told_similar_ones() -> None:
    registry = Registry()
    registry.register(entry("canny"))
    with pytest.raises(UnknownPreprocessor) as raised:
        registry.get("cany")
    assert str(raised.value) == 'there is no preprocessor "cany"; similar names: canny'
    assert isinstance(raised.value, KeyError)
    with pytest.raises(UnknownPreprocessor, match='use "none"'):
        registry.get("zzz")


def test_duplicates_raise_and_change_nothing() -> None:
    registry = Registry()
    registry.register(entry("canny", label="Edges"))
    for taken in (entry("CANNY"), entry("x", label="edges"), entry("x", aliases=("new", "Canny"))):
        with pytest.raises(DuplicatePreprocessor, match='of "canny"'):
            registry.register(taken)
    assert [found.spec.id for found in registry.entries] == ["canny"]
    assert "new" not in registry


def test_known_but_unavailable() -> None:
    registry = Registry([Unavailable("hed", "the weights x.pth", "softedge_hed")])
    assert registry.entries == ()
    for name in ("hed", "SoftEdge_HED"):
        with pytest.raises(UnavailablePreprocessor, match=r"needs the weights x\.pth"):
            registry.get(name)
        assert name not in registry
    assert list(registry.disabled) == ["hed"]


def test_a_third_party_may_offer_what_is_unavailable() -> None:
    registry = Registry([Unavailable("hed", "the weights x.pth", "softedge_hed")])
    registry.register(entry("hed", label="HED of somebody"))
    assert registry.get("hed").spec.label == "HED of somebody"
    assert not registry.disabled
    with pytest.raises(UnknownPreprocessor):
        registry.get("softedge_hed")


def test_an_entry_whose_effect_the_engine_lacks_is_not_offered() -> None:
    wanted = entry("reference_only", label="Reference", effect="reference")
    without, with_it = Registry(), Registry(effects=["reference"])
    without.register(wanted)
    with_it.register(wanted)
    with pytest.raises(UnavailablePreprocessor, match='the effect "reference"'):
        without.get("reference")
    assert with_it.get("reference").spec is wanted.spec


def test_disabled_reasons_cannot_be_changed_from_outside() -> None:
    with pytest.raises(TypeError):
        Registry().disabled["x"] = Disabled("x", "y")  # type: ignore[index]


def test_order_is_none_then_rank_then_label_downwards() -> None:
    registry = Registry()
    for id_, rank in (("a", 0), ("b", 0), ("top", 100), ("none", 10), ("mid", 20)):
        registry.register(entry(id_, rank=rank))
    assert [found.spec.id for found in registry.entries] == ["none", "top", "mid", "b", "a"]


# --- the real set -------------------------------------------------------------------------------------------------

# (id, label) of sd-webui-controlnet's preprocessors, as its clients and old infotexts name them.
PEERS = """
none | canny | blur_gaussian | scribble_xdog | shuffle | inpaint_only | inpaint_only+lama | softedge_teed
softedge_anyline | normal_dsine | mobile_sam | facexlib | ip-adapter-auto | ip-adapter_pulid | animal_openpose
invert = invert (from white bg & black line) | inpaint = inpaint_global_harmonious | depth_anything | depth_anything_v2
densepose = densepose (pruple bg & purple torso) | densepose_parula = densepose_parula (black bg & blue torso)
depth_hand_refiner | depth_leres | depth_leres++ | depth = depth_midas | depth_zoe | dw_openpose_full
instant_id_face_embedding | instant_id_face_keypoints | ip-adapter_clip_sd15 = ip-adapter_clip_h
ip-adapter_clip_sdxl = ip-adapter_clip_g | ip-adapter_clip_sdxl_plus_vith | ip-adapter_face_id
ip-adapter_face_id_plus | lineart_anime | lineart_anime_denoise | lineart_coarse | lineart = lineart_realistic
lineart_standard = lineart_standard (from white bg & black line) | mediapipe_face | mlsd | normal_bae
normal_map = normal_midas | openpose | openpose_face | openpose_faceonly | openpose_full | openpose_hand
recolor_intensity | recolor_luminance | reference_adain | reference_adain+attn | reference_only | revision_clipvision
revision_ignore_prompt | scribble_hed | pidinet_scribble = scribble_pidinet | anime_face_segment = seg_anime_face
oneformer_ade20k = seg_ofade20k | oneformer_coco = seg_ofcoco | segmentation = seg_ufade20k | hed = softedge_hed
hed_safe = softedge_hedsafe | pidinet = softedge_pidinet | pidinet_safe = softedge_pidisafe | color = t2ia_color_grid
pidinet_sketch = t2ia_sketch_pidi | clip_vision = t2ia_style_clipvision | threshold | tile_colorfix
tile_colorfix+sharp | tile_resample
"""
PEER_NAMES = [
    tuple(part.strip() for part in item.split("=")) for item in PEERS.replace("\n", "|").split("|") if item.strip()
]


@pytest.mark.parametrize("names", PEER_NAMES, ids=lambda names: names[0])
def test_every_name_of_the_peer_is_offered_or_explained(names: tuple[str, ...]) -> None:
    registry = discover()
    for name in names:
        if name in registry:
            assert registry.get(name).spec.id == names[0]
        else:
            with pytest.raises(UnavailablePreprocessor, match="it needs"):
                registry.get(name)
            assert names[0] in registry.disabled


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("CLIP-G (Revision)", "revision_clipvision"),
        ("CLIP-ViT-H (IPAdapter)", "ip-adapter_clip_sd15"),
        ("InsightFace (InstantID)", "instant_id_face_embedding"),
        ("normalbae", "normal_bae"),
        ("depth_marigold", "depth_marigold"),
        ("DSINE-NormalMapPreprocessor", "normal_dsine"),
        ("Metric3D-DepthMapPreprocessor", "metric3d_depth"),
        ("Metric3D-NormalMapPreprocessor", "metric3d_normal"),
        ("MeshGraphormer-DepthMapPreprocessor", "depth_hand_refiner"),
        ("SAMPreprocessor", "sam_vit_b"),
    ],
)
def test_names_of_other_peers_are_offered_or_explained(name: str, id_: str) -> None:
    registry = discover()
    if name in registry:
        assert registry.get(name).spec.id == id_
        return
    with pytest.raises(UnavailablePreprocessor, match="it needs"):
        registry.get(name)
    assert id_ in registry.disabled


@pytest.mark.parametrize(("name", "id_"), [("None", "none"), ("inpaint_global_harmonious", "inpaint")])
def test_names_of_forge_are_offered(name: str, id_: str) -> None:
    assert discover().get(name).spec.id == id_


def test_all_72_names_are_there() -> None:
    assert len(PEER_NAMES) == len(set(PEER_NAMES)) == 72


def test_nothing_is_both_offered_and_disabled() -> None:
    registry = discover(EFFECTS)
    assert not {found.spec.id for found in registry.entries} & set(registry.disabled)
    assert not any("Error: " in item.reason for item in registry.disabled.values()), "a folder failed to import"
    assert {id_ for id_, item in registry.disabled.items() if item.spec is None} <= {item.id for item in UNAVAILABLE}


def test_without_effects_only_what_works_by_its_map_is_offered() -> None:
    offered = {found.spec.id for found in discover().entries}
    everything = {found.spec.id for found in discover(EFFECTS).entries}
    assert {"none", "canny", "inpaint", "tile_resample"} <= offered
    assert {"inpaint_only", "reference_only", "tile_colorfix", "recolor_luminance"} <= everything - offered


# --- specifications -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [(1, 0, 1, 0.5), (0, 1, 1, 2), (0, 1, 0, 0.5), (0, 1, -1, 0.5)])
def test_a_slider_that_is_no_range_is_refused(fields: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="slider"):
        Slider("x", *fields)


@pytest.mark.parametrize(("value", "expected"), [(-1, 100), (0, 100), (1, 1), (77.5, 77.5), (255, 255), (256, 100)])
def test_values_outside_the_range_mean_the_default(value: float, expected: float) -> None:
    assert Slider("Low Threshold", 1, 255, 1, 100).resolve(value) == expected


def test_settings_are_resolved() -> None:
    spec = PreprocessorSpec(id="x", sliders=(Slider("a", 0, 1, 0.1, 0.5), Slider("b", 0, 9, 1, 3)))
    assert spec.resolve_params() == (0.5, 3)
    assert spec.resolve_params(-1, 10) == (0.5, 3)
    assert spec.resolve_params(0.2) == (0.2, 3)
    assert spec.resolve_params(0.2, 4, 7) == (0.2, 4)
    assert spec.resolve_resolution(-1) == 512
    assert spec.resolve_resolution(64) == 64
    assert replace(spec, resolution=resolution_slider(1280)).resolve_resolution(-1) == 1280
    assert replace(spec, resolution=None).resolve_resolution(1024) == 512


def test_a_specification_is_checked() -> None:
    with pytest.raises(ValueError, match="id"):
        PreprocessorSpec(id=" x")
    with pytest.raises(ValueError, match="mask"):
        PreprocessorSpec(id="x", requires_mask=True)
    assert PreprocessorSpec(id="x").label == "x"


def test_errors_say_what_was_found_and_what_to_do() -> None:
    assert str(AnnotatorError("no", found=3, remedy="do")) == "no; found: 3; do"


def test_a_runtime_reports_and_stops_between_stages() -> None:
    told: list[float] = []
    Runtime(progress=told.append).stage(0.5)
    assert told == [0.5]
    with pytest.raises(Cancelled):
        Runtime(progress=told.append, cancelled=lambda: True).stage(0.7)
    assert told == [0.5]

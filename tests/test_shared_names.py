"""Hosts keep every extension's root at the front of `sys.path`: a name of ours must not stand before one of theirs.

The names are those that lie directly in these folders in AUTOMATIC1111 1.10.1, Forge (dfdcbab6), Forge Neo 2.26,
reForge (3b56b268), Classic (1f95d717), SD.Next (058a7f0cf) and sd-webui-controlnet 1.1.455.
"""

from __future__ import annotations

import pytest

from .test_architecture import ROOT

THEIRS = {
    "annotator": """
        anime_face_segment annotator_path binary canny clipseg clipvision color densepose depth_anything
        depth_anything_v2 hed keypose lama leres lineart lineart_anime manga_line mediapipe_face midas mlsd mmpkg
        mobile_sam normalbae normaldsine oneformer openpose pidinet shuffle teed uniformer util zoe
    """,
    "lib_controlnet": """
        api args controlnet_ui enums external_code global_state infotext logging lvminthin utils
    """,
    "": """
        backend cli configs data download_supported_configs embeddings extensions extensions_builtin
        extract_controlnet extract_controlnet_diff installer internal_controlnet k_diff k_diffusion ldm ldm_patched
        localizations modules modules_forge packages_3rdparty patch_version pipelines random_res_config repositories
        sgm spaces test textual_inversion_templates ui unit_tests webui wiki
    """,
}
FOUND_FIRST = {"launch"}
"""The host's own is imported before any extension's root is on the path, and ours is a name that users type."""


@pytest.mark.parametrize("folder", THEIRS)
def test_no_name_of_ours_stands_before_one_of_a_host(folder: str) -> None:
    ours = {
        entry.stem
        for entry in (ROOT / folder).iterdir()
        if not entry.name.startswith((".", "_")) and (entry.suffix == ".py" or any(entry.rglob("*.py")))
    }
    assert len(ours) >= (1 if folder == "annotator" else 8)
    assert ours & set(THEIRS[folder].split()) - FOUND_FIRST == set()


def test_everything_of_the_annotator_is_in_one_package() -> None:
    assert [entry.name for entry in (ROOT / "annotator").iterdir() if any(entry.rglob("*.py"))] == ["sd_controlnet"]

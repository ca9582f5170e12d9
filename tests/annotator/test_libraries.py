"""Whether Python packages are there, seen without importing them; parts of controlnet_aux without the whole."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from annotator.sd_controlnet import libraries
from annotator.sd_controlnet.libraries import controlnet_aux, problem
from annotator.sd_controlnet.registry import Registry, UnavailablePreprocessor
from annotator.sd_controlnet.spec import AnnotatorError, Library, PreprocessorSpec

from .test_registry import entry


def forget() -> None:
    """What was found out about installed packages."""
    libraries._is_there.cache_clear()
    libraries._version.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package `fancy_net`, installed as "fancy-net" 1.10.2+cpu, that must not be imported."""
    (tmp_path / "fancy_net").mkdir()
    (tmp_path / "fancy_net" / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    info = tmp_path / "fancy_net-1.10.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fancy-net\nVersion: 1.10.2+cpu\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    return "fancy_net"


@pytest.mark.parametrize(
    ("minimum", "below", "reason"),
    [
        ("", "", ""),
        ("1.10", "", ""),
        ("1.9", "1.11", ""),
        ("1.10.2", "1.10.3", ""),
        ("1.11", "", 'it needs fancy-net>=1.11, and 1.10.2+cpu is installed: pip install --no-deps "fancy-net>=1.11"'),
        (
            "",
            "1.10.2",
            'it needs fancy-net<1.10.2, and 1.10.2+cpu is installed: pip install --no-deps "fancy-net<1.10.2"',
        ),
        (
            "1",
            "1.10",
            'it needs fancy-net>=1,<1.10, and 1.10.2+cpu is installed: pip install --no-deps "fancy-net>=1,<1.10"',
        ),
    ],
)
def test_versions(package: str, minimum: str, below: str, reason: str) -> None:
    assert problem([Library(package, "fancy-net", minimum, below)]) == reason


def test_a_missing_package_is_named_with_its_purpose() -> None:
    found = problem([Library("torch"), Library("nobody_has_this", "nobody-has-this", "2.0", why="finds faces")])
    command = 'pip install --no-deps "nobody-has-this>=2.0"'
    assert found == f"it needs the Python package nobody-has-this>=2.0 (finds faces), which is not installed: {command}"


def test_an_entry_without_its_library_is_disabled_with_the_reason() -> None:
    registry = Registry()
    registry.register(entry("faces", libraries=(Library("nobody_has_this"),)))
    with pytest.raises(UnavailablePreprocessor, match="Python package nobody_has_this"):
        registry.get("faces")
    spec = registry.disabled["faces"].spec
    assert isinstance(spec, PreprocessorSpec)
    assert spec.id == "faces"


def test_a_part_of_controlnet_aux_comes_alone() -> None:
    code = """
import sys
from annotator.sd_controlnet.libraries import controlnet_aux
assert controlnet_aux("hed").ControlNetHED_Apache2
assert controlnet_aux("open_pose.model").bodypose_model
assert controlnet_aux("hed") is controlnet_aux("hed")
unwanted = {"controlnet_aux", "torchvision", "timm", "mediapipe", "skimage", "scipy"} & set(sys.modules)
assert not unwanted, unwanted
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_part_is_given_what_stands_in_for_a_package_and_nobody_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wants_it.py").write_text("import json\nfrom nobody_has_this.part import thing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = libraries._imported("wants_it", {"nobody_has_this.part": SimpleNamespace(thing=7)})
    monkeypatch.delitem(sys.modules, "wants_it")
    assert module.thing == 7
    assert module.json.dumps
    with pytest.raises(ImportError, match="nobody_has_this"):
        importlib.import_module("nobody_has_this.part")


def test_a_part_that_lacks_something_says_what() -> None:
    with pytest.raises(AnnotatorError, match="no_such_part"):
        controlnet_aux("no_such_part")


def test_a_folder_of_packages_is_found_last_and_outlives_a_reset_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("fancy_net", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("here = True", encoding="utf-8")
    info = tmp_path / "fancy_net-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fancy-net\nVersion: 3.1\n", encoding="utf-8")
    forget()
    before = list(sys.path)
    libraries.use_folder(tmp_path / "nowhere")
    libraries.use_folder(tmp_path)
    libraries.use_folder(tmp_path)
    assert sys.path == before
    assert len([finder for finder in sys.meta_path if isinstance(finder, libraries.FolderFinder)]) == 1
    assert problem([Library("fancy_net", "fancy-net", "3")]) == ""
    assert "3.1 is installed" in problem([Library("fancy_net", "fancy-net", "4")])
    assert importlib.import_module("fancy_net").here
    assert not hasattr(importlib.import_module("json"), "here")
    del sys.modules["fancy_net"]
    forget()

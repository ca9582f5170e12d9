"""install.py and preload.py as A1111 and Forge run them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAUNCHER = """
import json, os
def is_installed(name): return name not in os.environ["MISSING"].split()
def run_pip(command, desc=None):
    print(json.dumps([command, desc]))
    if "safetensors" in command and os.environ.get("BROKEN"):
        raise RuntimeError("no network")
"""


def run_install(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python install.py` in the host's folder, which is on PYTHONPATH: its own folder comes before it."""
    (tmp_path / "launch.py").write_text(LAUNCHER, "utf-8")
    return subprocess.run(
        [sys.executable, str(ROOT / "install.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), **environment},
        check=False,
    )


def test_nothing_missing_nothing_done(tmp_path):
    result = run_install(tmp_path, MISSING="")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_missing_package_comes_without_touching_numpy(tmp_path):
    import numpy

    result = run_install(tmp_path, MISSING="cv2")
    assert result.returncode == 0, result.stderr
    assert "opencv-python-headless" in result.stdout
    assert f"numpy=={numpy.__version__}" in result.stdout
    assert "safetensors" not in result.stdout


def test_what_preprocessors_run_on_goes_into_a_folder_of_the_extension(tmp_path):
    result = run_install(tmp_path, MISSING="controlnet_aux mediapipe onnxruntime absl flatbuffers")
    assert result.returncode == 0, result.stderr
    commands = [json.loads(line)[0] for line in result.stdout.splitlines()]
    assert len(commands) == 5
    for command in commands:
        assert command.startswith(f'install --no-deps --upgrade --retries 1 --target "{ROOT / ".packages"}" "')
    assert any("controlnet-aux==" in command for command in commands)


def test_failure_is_said_and_the_rest_is_tried(tmp_path):
    result = run_install(tmp_path, MISSING="cv2 safetensors", BROKEN="1")
    assert result.returncode == 1
    assert "safetensors" in result.stderr
    assert "no network" in result.stderr
    assert "Traceback" not in result.stderr
    assert "opencv" in result.stdout


def load_preload() -> ModuleType:
    spec = importlib.util.spec_from_file_location("preload", ROOT / "preload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_options_of_the_peers_are_accepted():
    parser = argparse.ArgumentParser()
    load_preload().preload(parser)
    flags = ["--controlnet-dir", "a", "--controlnet-annotator-models-path", "b", "--no-half-controlnet"]
    flags += ["--controlnet-preprocessor-cache-size", "16", "--controlnet-loglevel", "INFO", "--controlnet-tracemalloc"]
    options = parser.parse_args(flags)
    assert (options.controlnet_dir, options.controlnet_annotator_models_path) == ("a", "b")


def test_taken_option_keeps_the_others():
    parser = argparse.ArgumentParser()
    parser.add_argument("--controlnet-dir", default="first")
    load_preload().preload(parser)
    options = parser.parse_args(["--controlnet-annotator-models-path", "b"])
    assert (options.controlnet_dir, options.controlnet_annotator_models_path) == ("first", "b")


@pytest.mark.parametrize("how", ["imported", "on the path"])
def test_forge_keeps_its_own_options(tmp_path, monkeypatch, how):
    if how == "imported":
        monkeypatch.setitem(sys.modules, "modules_forge", ModuleType("modules_forge"))
    else:
        (tmp_path / "modules_forge").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path))
    parser = argparse.ArgumentParser()
    load_preload().preload(parser)
    for flag in ("--controlnet-dir", "--controlnet-loglevel", "--controlnet-tracemalloc"):
        parser.add_argument(flag)  # what Forge and its built-in extension do after us

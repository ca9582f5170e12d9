"""install.py and preload.py as A1111 and Forge run them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]

NEEDED = ("cv2", "safetensors", "einops", "huggingface_hub")
EXTRAS = ("controlnet_aux", "onnxruntime", "flatbuffers", "absl", "mediapipe")

LAUNCHER = """
import json, os
def run_pip(command, desc=None):
    print(json.dumps([command, desc]))
    if "safetensors" in command and os.environ.get("BROKEN"):
        raise RuntimeError("no network")
"""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class Host:
    """The WebUI as install.py meets it: `launch` and installed packages on PYTHONPATH, the extension in its folder."""

    python = (sys.executable, "-S")
    """Without the packages that are installed: what it finds is what a test gives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.extension = folder / "extensions" / "controlnet"
        self.extension.mkdir(parents=True)
        for name in ("install.py", "launch.py"):
            shutil.copy(ROOT / name, self.extension)
        (folder / "launch.py").write_text(LAUNCHER, "utf-8")

    def has(self, *packages: str) -> None:
        for package in packages:
            (self.folder / package).mkdir(parents=True, exist_ok=True)
            (self.folder / package / "__init__.py").write_text("raise AssertionError('imported')", "utf-8")

    def has_version(self, package: str, version: str) -> None:
        info = self.folder / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", "utf-8")

    def install(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`python install.py` in the host's folder, which is on PYTHONPATH: its own folder comes before it."""
        return subprocess.run(
            [*self.python, *options, str(self.extension / "install.py")],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), **environment},
            check=False,
        )

    def commands(self, **environment: str) -> list[str]:
        """The arguments of pip."""
        result = self.install(**environment)
        assert result.returncode == 0, result.stderr
        return [json.loads(line)[0] for line in result.stdout.splitlines()]


def test_nothing_missing_nothing_done(host: Host) -> None:
    host.has(*NEEDED, *EXTRAS)
    result = host.install()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_nothing_missing_nothing_imported(host: Host) -> None:
    """It runs at every start of the WebUI: not even the WebUI's launcher, which reads its command line, is needed."""
    host.has(*NEEDED, *EXTRAS)
    known = {"types", "__future__"}
    imported = {line.split("|")[-1].strip() for line in host.install("-X", "importtime").stderr.splitlines()}
    bare = subprocess.run(
        [*host.python, "-X", "importtime", "-c", "import os"], capture_output=True, text=True, check=True
    )
    assert "os" in imported
    assert imported - {line.split("|")[-1].strip() for line in bare.stderr.splitlines()} <= known


@pytest.mark.parametrize("package", [*NEEDED, *EXTRAS])
def test_one_missing_package_is_brought_alone(host: Host, package: str) -> None:
    host.has(*({*NEEDED, *EXTRAS} - {package}))
    (command,) = host.commands()
    named = {"cv2": "opencv-python-headless", "absl": "absl-py"}.get(package, package).replace("_", "-")
    assert f'"{named}' in command.replace("_", "-")


def test_missing_package_comes_without_touching_numpy(host: Host) -> None:
    host.has(*({*NEEDED, *EXTRAS} - {"cv2"}))
    host.has_version("numpy", "1.26.2")
    assert host.commands() == ['install "opencv-python-headless>=4.8" "numpy==1.26.2"']


def test_what_preprocessors_run_on_goes_into_a_folder_of_the_extension(host: Host) -> None:
    host.has(*NEEDED)
    commands = host.commands()
    assert len(commands) == len(EXTRAS)
    for command in commands:
        assert command.startswith(
            f'install --no-deps --upgrade --retries 1 --target "{host.extension / ".packages"}" "'
        )
    assert any("controlnet-aux==" in command for command in commands)
    for package in EXTRAS:
        (host.extension / ".packages" / package).mkdir(parents=True)
    assert host.commands() == []


@pytest.mark.parametrize(("protobuf", "mediapipe"), [("3.20.0", "0.10.9"), ("4.25.9", "0.10.21"), ("", "0.10.21")])
def test_mediapipe_fits_the_protobuf_of_the_host(host: Host, protobuf: str, mediapipe: str) -> None:
    host.has(*({*NEEDED, *EXTRAS} - {"mediapipe"}))
    if protobuf:
        host.has_version("protobuf", protobuf)
    (command,) = host.commands()
    assert command.endswith(f'"mediapipe=={mediapipe}"')


def test_failure_is_said_and_the_rest_is_tried(host: Host) -> None:
    host.has("einops", "huggingface_hub", *EXTRAS)
    result = host.install(BROKEN="1")
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

"""What the WebUI runs at its start for this extension: adds the Python packages that are missing.

Never installs or changes torch, numpy, gradio or another package of the WebUI itself: what is there is used. What only
preprocessors use goes into a folder of the extension, where no other package's requirements are touched by it.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
PACKAGES = ROOT / ".packages"
"""Found last (annotator/libraries.py), so that whatever the WebUI has of these is used instead."""

NEEDED = (
    # (import name, requirement): headless, since the full package needs a system library (libGL)
    ("cv2", "opencv-python-headless>=4.8"),
    ("safetensors", "safetensors>=0.4"),
    ("einops", "einops>=0.4.1"),
    ("huggingface_hub", "huggingface_hub>=0.15"),
)


class Extra(NamedTuple):
    """A package that preprocessors run on, installed without its own list of packages, and what it is for."""

    module: str
    requirement: str
    purpose: str


def extras() -> tuple[Extra, ...]:
    """What preprocessors run on, in the versions that fit this WebUI."""
    # the releases of mediapipe that bring their models; the later one needs protobuf 4, which some WebUIs must not have
    mediapipe = "0.10.9" if _version("protobuf").startswith("3.") else "0.10.21"
    return (
        Extra("controlnet_aux", "controlnet-aux==0.0.10", "most preprocessors"),
        Extra("onnxruntime", "onnxruntime>=1.16,<2", "dw_openpose, animal_openpose"),
        Extra("flatbuffers", "flatbuffers>=2", "onnxruntime and mediapipe"),
        Extra("absl", "absl-py>=1", "mediapipe"),
        Extra("mediapipe", f"mediapipe=={mediapipe}", "mediapipe_face and other mediapipe preprocessors"),
    )


def main() -> int:
    """Install what is missing through the WebUI's launcher; returns the exit code."""
    host = _host_launcher()
    if not hasattr(host, "run_pip"):
        print("install.py is run by the WebUI; for the embedded one there is launch.py.", file=sys.stderr)
        return 2
    failed = False
    for module, requirement in NEEDED:
        if not host.is_installed(module):
            failed |= not _install(host, f'"{requirement}" {_kept()}', requirement, "ControlNet")
    for extra in extras():
        if not (host.is_installed(extra.module) or (PACKAGES / extra.module).is_dir()):
            place = f'--no-deps --upgrade --retries 1 --target "{PACKAGES}"'
            failed |= not _install(host, f'{place} "{extra.requirement}"', extra.requirement, extra.purpose)
    return 1 if failed else 0


def _install(host: ModuleType, arguments: str, requirement: str, purpose: str) -> bool:
    try:
        host.run_pip(f"install {arguments}", f"{requirement} for {purpose}")
    except RuntimeError as error:
        print(f"ControlNet: {requirement} (for {purpose}) could not be installed: {error}", file=sys.stderr)
        return False
    return True


def _host_launcher() -> ModuleType:
    """The WebUI's `launch`; this folder, first on the path, has one of its own."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    import launch

    return launch


def _kept() -> str:
    """NumPy at the installed version: a new OpenCV would otherwise bring NumPy 2 into a WebUI built for 1."""
    version = _version("numpy")
    return f'"numpy=={version}"' if version else ""


def _version(package: str) -> str:
    """The installed version, or "" where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

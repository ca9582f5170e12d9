"""What the WebUI runs at its start for this extension: adds the Python packages that are missing.

Never installs or changes torch, numpy, gradio or another package of the WebUI itself: what is there is used. What only
preprocessors use goes into a folder of the extension, where no other package's requirements are touched by it.

Runs at every start, in a process of its own: where nothing is missing it imports next to nothing.
"""

from __future__ import annotations

import os
import sys
import types

ROOT = os.path.dirname(os.path.realpath(__file__))
PACKAGES = os.path.join(ROOT, ".packages")
"""Found last (annotator/sd_controlnet/libraries.py), so that whatever the WebUI has of these is used instead."""

NEEDED = (
    # (import name, requirement): headless, since the full package needs a system library (libGL)
    ("cv2", "opencv-python-headless>=4.8"),
    ("safetensors", "safetensors>=0.4"),
    ("einops", "einops>=0.4.1"),
    ("huggingface_hub", "huggingface_hub>=0.15"),
)
EXTRAS = (
    # what preprocessors run on: (import name, requirement, what it is for), installed without its own list of packages
    ("controlnet_aux", "controlnet-aux==0.0.10", "most preprocessors"),
    ("onnxruntime", "onnxruntime>=1.16,<2", "dw_openpose, animal_openpose"),
    ("flatbuffers", "flatbuffers>=2", "onnxruntime and mediapipe"),
    ("absl", "absl-py>=1", "mediapipe"),
    ("mediapipe", "mediapipe", "mediapipe_face and other mediapipe preprocessors"),
)


def main() -> int:
    """Install what is missing through the WebUI's launcher; returns the exit code."""
    # this folder, first on the path, has a `launch` of its own, and nothing that we look for
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != ROOT]
    needed = [package for package in NEEDED if not _is_there(package[0])]
    extras = [package for package in EXTRAS if not (_is_there(package[0]) or os.path.isdir(_in_packages(package[0])))]
    return _install(needed, extras) if needed or extras else 0


def _is_there(module: str) -> bool:
    """Whether `import module` would find something."""
    return any(finder.find_spec(module, None) for finder in sys.meta_path)


def _in_packages(module: str) -> str:
    return os.path.join(PACKAGES, module)


def _install(needed: list[tuple[str, str]], extras: list[tuple[str, str, str]]) -> int:
    import launch  # the WebUI's

    if not hasattr(launch, "run_pip"):
        print("install.py is run by the WebUI; for the embedded one there is launch.py.", file=sys.stderr)
        return 2
    done = [_pip(launch, f'"{requirement}" {_kept()}', requirement, "ControlNet") for _, requirement in needed]
    for module, requirement, purpose in extras:
        exact = _mediapipe() if module == "mediapipe" else requirement
        place = f'--no-deps --upgrade --retries 1 --target "{PACKAGES}"'
        done.append(_pip(launch, f'{place} "{exact}"', exact, purpose))
    return 0 if all(done) else 1


def _pip(host: types.ModuleType, arguments: str, requirement: str, purpose: str) -> bool:
    try:
        host.run_pip(f"install {arguments}", f"{requirement} for {purpose}")
    except RuntimeError as error:
        print(f"ControlNet: {requirement} (for {purpose}) could not be installed: {error}", file=sys.stderr)
        return False
    return True


def _mediapipe() -> str:
    """The release that fits this WebUI, of those that bring their models; the later one needs protobuf 4."""
    return f"mediapipe=={'0.10.9' if _version('protobuf').startswith('3.') else '0.10.21'}"


def _kept() -> str:
    """NumPy at the installed version: a new OpenCV would otherwise bring NumPy 2 into a WebUI built for 1."""
    version = _version("numpy")
    return f'"numpy=={version}"' if version else ""


def _version(package: str) -> str:
    """The installed version, or "" where there is none."""
    import importlib.metadata  # not at the top: slower than all the rest of a start at which nothing is missing

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

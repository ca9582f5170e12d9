"""The main job without a browser: a drawing and a prompt make a picture, with and without control.

    python launch.py demo [--out DIR] [--json]
    python launch.py demo --preprocessors [--out DIR] [--json]

It runs the extension in the embedded WebUI: the same script, session, samplers and checkpoint loader as the page uses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from lib_controlnet.measure.lines import edge_score

from ..annotate.options import UsageError, make_folder
from . import preprocessors
from .metrics import ColourScore, colour_score, edges
from .shapes import COLOURS, SHAPES, SIZE, Image

MODELS: Final = Path(__file__).resolve().parents[2] / "models" / "demo"
DRAWING: Final = MODELS / "drawing.png"
COLOUR, SHAPE, BACKGROUND = "blue", "heart", "yellow"
SEED: Final = 5
NAMES: Final = ("input", "map", "without_control", "controlled", "sheet")


@dataclass(frozen=True, eq=False)
class Outcome:
    """The pictures, (h, w, 3) RGB uint8, and how the two generated ones compare with the map and the prompt."""

    drawing: Image
    map: Image
    without: Image
    controlled: Image
    f1_with: float
    f1_without: float
    colours: ColourScore
    seconds: float

    @property
    def control_acts(self) -> bool:
        return self.f1_with > self.f1_without and not np.array_equal(self.without, self.controlled)


def main(argv: Sequence[str]) -> int:
    """Exit code 0, or 1 when control has no effect."""
    options = _arguments().parse_args(argv)
    try:
        make_folder(options.out)
        if options.preprocessors:
            return preprocessors.show(options)
        drawing = read(options.image)
    except (UsageError, OSError) as error:  # PIL's, of what is no picture, is one too
        print(f"launch.py demo: {error}", file=sys.stderr)
        return 2
    with contextlib.redirect_stdout(sys.stderr):  # what the host prints is no part of the answer
        outcome, files = run(drawing, options)
    report: dict[str, Any] = {
        "f1_with": round(outcome.f1_with, 4),
        "f1_without": round(outcome.f1_without, 4),
        "color_error": round(outcome.colours.error, 2),
        "colors_right": outcome.colours.right,
        "seconds": round(outcome.seconds, 2),
        "prompt": prompt(options),
        "files": {key: str(path) for key, path in files.items()},
    }
    print(json.dumps(report) if options.json else _text(report, outcome))
    if not outcome.control_acts:
        print("The picture with control follows the map no better than the one without.", file=sys.stderr)
        return 1
    return 0


def prompt(options: argparse.Namespace) -> str:
    return f"a {options.color} {options.shape} on a {options.background} background"


def run(drawing: Image, options: argparse.Namespace) -> tuple[Outcome, dict[str, Path]]:
    """Generate twice with one seed in a host of its own, measure, and write the pictures."""
    import torch

    from standalone.app import boot

    torch.set_num_threads(1)  # tensors this small are slower with more, far slower on a busy machine
    started = time.monotonic()
    settings: dict[str, Any] = {
        "prompt": prompt(options),
        "seed": options.seed,
        "steps": 20,
        "cfg_scale": options.cfg,
        "width": SIZE,
        "height": SIZE,
        "sampler_name": "DDIM",
    }
    unit = {
        "enabled": True,
        "module": "canny",
        "model": options.model,
        "image": drawing,
        "weight": options.weight,
        "pixel_perfect": True,
        "resize_mode": "Crop and Resize",
    }
    with tempfile.TemporaryDirectory() as folder:
        app = boot(options.ckpt, options.controlnet_dir, data_dir=folder, api=False, ui=False)
        try:
            without = pictures_of(app.txt2img(**settings))[0]
            controlled, control_map = pictures_of(app.txt2img({"ControlNet": [unit]}, **settings))[:2]
            seconds = time.monotonic() - started
            colours = options.color, options.background
            outcome = measure(drawing, control_map, without, controlled, colours, seconds)
            return outcome, _write(outcome, options.out)
        finally:
            app.close()


def measure(
    drawing: Image, control_map: Image, without: Image, controlled: Image, colours: tuple[str, str], seconds: float
) -> Outcome:
    wanted = control_map.max(2) > 127
    return Outcome(
        drawing,
        control_map,
        without,
        controlled,
        f1_with=edge_score(edges(controlled), wanted).f1,
        f1_without=edge_score(edges(without), wanted).f1,
        colours=colour_score(controlled, inside_of(wanted), *colours),
        seconds=seconds,
    )


def inside_of(lines: np.ndarray) -> Image:
    """What the lines (h, w) bool enclose, 255 inside: all that cannot be reached from the picture's border."""
    closed = cv2.dilate(lines.astype(np.uint8), np.ones((3, 3), np.uint8))
    reached = np.pad(closed, 1)
    cv2.floodFill(reached, None, (0, 0), (2,))
    return np.where(reached[1:-1, 1:-1] == 2, 0, 255).astype(np.uint8)


def pictures_of(processed: Any) -> list[Image]:
    """The pictures of a finished job, the generated one first and then the control maps."""
    return [np.ascontiguousarray(np.asarray(image.convert("RGB"), np.uint8)) for image in processed.images]


def read(path: Path) -> Image:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} is not a picture.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _write(outcome: Outcome, out: Path) -> dict[str, Path]:
    four = (outcome.drawing, outcome.map, outcome.without, outcome.controlled)
    files: dict[str, Path] = {}
    for name, image in zip(NAMES, (*four, side_by_side(four, 3 * SIZE)), strict=True):
        files[name] = out / f"{name}.png"
        save(files[name], image)
    return files


def side_by_side(pictures: Sequence[Image], side: int, gap: int = 0) -> Image:
    """A row (side, w, 3) of square pictures, `gap` white pixels between them; enlarged ones keep their pixels."""
    white = np.full((side, gap, 3), 255, np.uint8)
    row: list[Image] = []
    for picture in pictures:
        how = cv2.INTER_NEAREST if picture.shape[0] < side else cv2.INTER_AREA
        row += [np.asarray(cv2.resize(picture, (side, side), interpolation=how), np.uint8), white]
    return np.concatenate(row[:-1], axis=1)


def save(path: Path, picture: Image) -> None:
    """In the format of the suffix, under any name."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    data.tofile(path)


def _text(report: Mapping[str, Any], outcome: Outcome) -> str:
    right = "right" if outcome.colours.right else "wrong"
    colours = f"object {outcome.colours.object_distance:.1f}, background {outcome.colours.background_distance:.1f}"
    return "\n".join(
        (
            f"prompt                     {report['prompt']}",
            f"edge F1 with control       {outcome.f1_with:.3f}",
            f"edge F1 without control    {outcome.f1_without:.3f}",
            f"colour error               {outcome.colours.error:.1f} of 255 ({colours}; nearest colours {right})",
            f"seconds                    {outcome.seconds:.1f} (host, models and two pictures)",
            *(f"{key:<27}{path}" for key, path in report["files"].items()),
        )
    )


def _existing(text: str) -> Path:
    """A file or folder that is read."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no {text}")
    return Path(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py demo", description="Draw without and with control; measure both.")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder of the five pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--preprocessors", action="store_true", help="instead: maps of a photograph by true networks")
    parser.add_argument("--photograph", type=_existing, help="another one for --preprocessors")
    parser.add_argument("--image", type=_existing, default=DRAWING, help="the drawing whose outlines are followed")
    parser.add_argument("--color", choices=tuple(COLOURS), default=COLOUR)
    parser.add_argument("--shape", choices=SHAPES, default=SHAPE)
    parser.add_argument("--background", choices=tuple(COLOURS), default=BACKGROUND)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--model", default="demo_canny")
    parser.add_argument("--ckpt", type=_existing, default=MODELS / "demo.safetensors")
    parser.add_argument("--controlnet-dir", type=_existing, default=MODELS / "controlnet")
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

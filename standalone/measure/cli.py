"""How well pictures follow their maps:

    python launch.py measure PICTURES... --maps MAPS --preprocessor ID [--json] [--out DIR]
        [--floor PICTURES] [--sources PICTURES [--vae FILE]] [--prompt TEXT --clip FOLDER]

The preprocessor is run on each picture, and what it finds is compared with the picture's map: one map for all, or a
folder with a file of the same name (any ending; `.json` is a pose) for each. It looks at the map's own resolution
unless `--param resolution=N` says another. With --floor, pictures of the same names made without control, and
--sources, those that the maps are of, it is told how much of what it could each picture follows. See docs/measure.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from annotator.sd_controlnet.spec import AnnotatorError, Runtime
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.core.images import read_file
from lib_controlnet.engine.metering import DECIMALS, Detector, Metered, measure_picture, measuring, with_note
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.measure.metrics import EMBEDDING, kind_of, metric_of
from lib_controlnet.measure.score import Evidence
from lib_controlnet.measure.shown import error_map
from standalone.annotate.options import OWN_WEIGHTS, UsageError, make_folder, read_parameters
from standalone.annotate.sources import PICTURES

from .beside import Adherence, Beside, likeness, through_autoencoder

POSE = ".json"
BESIDE = ("floor", "ceiling", "followed", "similarity")


def main(argv: Sequence[str]) -> int:
    """0: all measured; 1: some could not be; 2: the command line is wrong."""
    given = _parser().parse_args(argv)
    try:
        report = measure(given)
    except (UsageError, ControlNetError, AnnotatorError, KeyError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        print(json.dumps({"error": text}) if given.json else f"launch.py measure: {text}", file=sys.stderr)
        return 2
    print(json.dumps(report) if given.json else _table(report))
    for failure in report["failed"]:
        print(f"failed: {failure['picture']}: {failure['error']}", file=sys.stderr)
    return 1 if report["failed"] else 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The report as JSON. Raises UsageError, ControlNetError, AnnotatorError."""
    registry: Any = importlib.import_module("annotator.sd_controlnet.registry").discover(None)
    asked = registry.get(given.preprocessor).spec
    spec = measuring([entry.spec for entry in registry.entries], asked)
    values = read_parameters(spec, given.param)  # type: ignore[arg-type]
    thresholds = (*values["thresholds"], -1.0, -1.0)
    resolution = None if values["resolution"] < 0 else values["resolution"]
    detector = with_note(Detector(asked), spec)
    detector = Detector(detector.spec, resolution, thresholds[0], thresholds[1], detector.notes)
    runtime = Runtime(device=given.device, weight_folders=(*given.weights, OWN_WEIGHTS))
    runner = PreprocessRunner(registry, lambda: runtime, stays=True)
    pairs = _pairs(_files(given.pictures, PICTURES), given.maps)
    beside = _beside(given)
    if given.out is not None:
        make_folder(given.out)
    began = time.monotonic()
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for picture, map_ in pairs:
        try:
            wanted = _wanted(runner, map_, detector)
            measured = measure_picture(runner, read_file(picture), wanted, detector)
            more = beside.values(picture, measured.score.adherence, _adherence(runner, wanted, detector))
        except ControlNetError as error:
            failed.append({"picture": str(picture), "error": str(error)})
            continue
        row = {"picture": str(picture), "map": str(map_), **measured.report(), **more}
        if given.out is not None:
            row |= _draw(measured, picture, given.out)
        done.append(row)
    return {
        "preprocessor": spec.id,
        "kind": kind_of(spec),
        "pictures": done,
        "mean": _means(done, [*metric_of(kind_of(spec)).better, *BESIDE]),
        "failed": failed,
        "seconds": round(time.monotonic() - began, 3),
    }


def _adherence(runner: PreprocessRunner, wanted: Any, detector: Detector) -> Adherence:
    """Of any picture to `wanted`."""
    return lambda picture: measure_picture(runner, picture, wanted, detector).score.adherence


def _beside(given: argparse.Namespace) -> Beside:
    """What is told beside the adherence. Raises UsageError, ModelFileError."""
    if (given.prompt is None) != (given.clip is None):
        raise UsageError("--prompt and --clip go together: what the pictures are to show, and who compares")
    if given.vae is not None and given.sources is None:
        raise UsageError("--vae is what --sources goes through: name them too")
    floor, sources = (None if path is None else _by_name(path, PICTURES) for path in (given.floor, given.sources))
    more: dict[str, Any] = {}
    if given.vae is not None:
        more["through"] = through_autoencoder(given.vae, given.device)
    if given.clip is not None:
        more["alike"] = likeness(given.clip, given.prompt, given.device)
    return Beside(floor, sources, **more)


def _wanted(runner: PreprocessRunner, path: Path, detector: Detector) -> Any:
    """The map of a file; of a preprocessor that gives embeddings, what it sees in that picture."""
    if path.suffix.lower() == POSE:
        try:
            return Evidence(pose=json.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise UsageError(f'"{path}" is no pose in JSON: {error}') from error
    if kind_of(detector.spec) == EMBEDDING:
        return runner.run(detector.spec.id, read_file(path)).found
    return read_file(path)


def _pairs(pictures: Sequence[Path], maps: Path) -> list[tuple[Path, Path]]:
    """Each picture with its map. Raises UsageError."""
    by_name = _by_name(maps, PICTURES | {POSE})
    if isinstance(by_name, Path):
        return [(picture, by_name) for picture in pictures]
    missing = [picture for picture in pictures if picture.stem not in by_name]
    if missing:
        raise UsageError(f'there is no map of the name "{missing[0].stem}" in "{maps}" ({len(missing)} are missing)')
    return [(picture, by_name[picture.stem]) for picture in pictures]


def _by_name(path: Path, endings: frozenset[str]) -> dict[str, Path] | Path:
    """The files of a folder by their names, or the file itself. Raises UsageError."""
    if path.is_file():
        return path
    by_name: dict[str, Path] = {}
    for file in _files([str(path)], endings):
        if file.stem in by_name:
            raise UsageError(f'"{by_name[file.stem]}" and "{file}" are both of the name "{file.stem}"')
        by_name[file.stem] = file
    return by_name


def _files(given: Sequence[str], endings: frozenset[str]) -> list[Path]:
    found: list[Path] = []
    for name in given:
        path = Path(name)
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [file for file in inside if file.is_file() and (not path.is_dir() or file.suffix.lower() in endings)]
        if not files:
            raise UsageError(f'"{name}" names no file of these: {", ".join(sorted(endings))}')
        found += files
    return found


def _draw(measured: Metered, picture: Path, out: Path) -> dict[str, str]:
    if measured.field is None:
        return {}
    file = out / f"{picture.stem}.png"
    Image.fromarray(error_map(read_file(picture), measured.field)).save(file)
    return {"error_map": str(file)}


def _means(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    columns = {name: [row[name] for row in rows if row.get(name) is not None] for name in ("adherence", *names)}
    return {name: round(float(np.mean(column)), DECIMALS) for name, column in columns.items() if column}


def _table(report: dict[str, Any]) -> str:
    names = list(report["mean"])
    lines = [f"{'picture':<40}" + "".join(f"{name:>18}" for name in names)]
    for row in (*report["pictures"], {"picture": "mean", **report["mean"]}):
        cells = ("-" if row.get(name) is None else f"{row[name]:.4f}" for name in names)
        lines.append(f"{Path(row['picture']).name:<40}" + "".join(f"{cell:>18}" for cell in cells))
    if report["pictures"]:
        lines += [f"{name}: {text}" for name, text in report["pictures"][0]["measured"].items()]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="+", help="pictures, or folders of them")
    parser.add_argument("--maps", type=Path, required=True, help="one map for all, or a folder of maps by name")
    parser.add_argument("--preprocessor", required=True, metavar="ID", help="what made the maps")
    parser.add_argument("--floor", type=Path, help="the same pictures without control, by name, or one for all")
    parser.add_argument("--sources", type=Path, help="the pictures that the maps are of: the most that can be reached")
    parser.add_argument("--vae", type=Path, help="a checkpoint or VAE that the sources go through first")
    parser.add_argument("--prompt", help="what the pictures are to show, for their similarity to it")
    parser.add_argument("--clip", type=Path, help="a folder with a CLIP in transformers' layout, which compares them")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=NUMBER", help="as `annotate` takes it")
    parser.add_argument("--weights", type=Path, action="append", default=[], help="a folder of preprocessors' weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a folder for maps of where each picture follows its map")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser

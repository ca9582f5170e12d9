"""Preprocessors over many pictures.

    python launch.py annotate INPUT... --preprocessor ID [--param NAME=VALUE] --out DIR

INPUT is a picture, a folder, a pattern or a WebDataset shard (.tar). What is already in DIR is skipped, so that a run
that was stopped goes on where it ended; files are written whole or not at all. Exit code 1 if a picture failed:
report.json in DIR says which and why.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from annotator.sd_controlnet.registry import Registry
from annotator.sd_controlnet.spec import AnnotatorError, PreprocessorSpec, Runtime
from annotator.sd_controlnet.weights import find as find_weights

from ..cluster import add_options, at_least, cluster_of
from .cluster import on_ray
from .engines import local
from .gallery import PAGE, gallery
from .listing import listing, table
from .options import Options, UsageError, make_folder, read_parameters
from .sheet import contact_sheet
from .sources import Task, find
from .work import MAP_SUFFIX, TENSOR_SUFFIX, Outcome

SETTINGS = "settings.json"


def main(argv: Sequence[str]) -> int:
    """0: all done; 1: some pictures failed; 2: the command line is wrong."""
    given = _parser().parse_args(argv)
    registry = importlib.import_module("annotator.sd_controlnet.registry").discover(effects=None)
    if given.list:
        found = listing(registry, Options("", weights=tuple(given.weights)).folders)
        print(json.dumps(found, indent=1) if given.json else table(found))
        return 0
    try:
        if given.gallery is not None:
            return _gallery(given, registry)
        report = _annotate(given, registry)
    except (UsageError, AnnotatorError) as error:
        print(f"launch.py annotate: {error}", file=sys.stderr)
        return 2
    _say(report, given)
    return 1 if report["failed"] else 0


def _gallery(given: argparse.Namespace, registry: Registry) -> int:
    options = Options("", weights=tuple(given.weights), device=given.device)
    make_folder(given.gallery, "--gallery")
    tasks = find(given.inputs, given.gallery, MAP_SUFFIX)
    made = gallery(registry, [task.source for task in tasks if not task.is_shard], options, given.gallery)
    for failure in made["failed"]:
        print(f"failed: {failure['file']}: {failure['error']}", file=sys.stderr)
    print(json.dumps(made) if given.json else f"{len(made['shown'])} preprocessors shown: {given.gallery / PAGE}")
    return 1 if made["failed"] else 0


def _annotate(given: argparse.Namespace, registry: Registry) -> dict[str, Any]:
    if not given.inputs or given.preprocessor is None or given.out is None:
        raise UsageError("give INPUT, --preprocessor and --out, or --list")
    spec = registry.get(given.preprocessor).spec
    options = Options(
        preprocessor=spec.id,
        seed=given.seed,
        masks=given.masks,
        weights=tuple(given.weights),
        download=given.download,
        trusted=tuple(given.trust),
        device=given.device,
        overwrite=given.overwrite,
        **read_parameters(spec, given.param),
    )
    tasks = find(given.inputs, given.out, MAP_SUFFIX if spec.returns_image else TENSOR_SUFFIX)
    _bring(spec, options)
    _same_settings(options, given.out)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    with tqdm(total=len(tasks), unit="file", disable=given.json, smoothing=0.05) as bar:
        for outcome in _outcomes(tasks, options, given):
            outcomes.append(outcome)
            bar.update()
            bar.set_postfix(failed=sum(len(done.errors) for done in outcomes), refresh=False)
    report = _report(spec.id, outcomes, time.monotonic() - started)
    if given.contact_sheet and contact_sheet(tasks, given.out / "contact_sheet.jpg"):
        report["contact_sheet"] = str(given.out / "contact_sheet.jpg")
    (given.out / "report.json").write_text(json.dumps(report, indent=1), "utf-8")
    return report


def _outcomes(tasks: Sequence[Task], options: Options, given: argparse.Namespace) -> Iterator[Outcome]:
    """From the engine that was chosen. Raises UsageError."""
    cluster = cluster_of(given, on_card=options.device.startswith("cuda"))
    return local(tasks, options, given.workers or 1) if cluster is None else on_ray(tasks, options, cluster)


def _bring(spec: PreprocessorSpec, options: Options) -> None:
    """Have every weight file before the first picture: one error instead of one a picture, one download a file."""
    for weight in spec.weights:
        with tqdm(total=weight.size, unit="B", unit_scale=True, desc=weight.name, leave=False, delay=0.5) as bar:
            find_weights(
                weight,
                Runtime(
                    weight_folders=options.folders,
                    download_folder=lambda: options.folders[0] if options.download else None,
                    progress=partial(_show, bar),
                ),
            )


def _show(bar: Any, part: float) -> None:
    bar.update(int(part * bar.total) - bar.n)


def _same_settings(options: Options, out: Path) -> None:
    """Maps of other settings in the folder would be taken for done: refuse, unless they are to be made again."""
    file = out / SETTINGS
    if file.exists() and not options.overwrite:
        try:
            earlier = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f'"{file}" cannot be read ({error}); delete it, or choose another --out') from error
        if earlier != options.settings:
            raise UsageError(f"{out} holds maps of other settings ({earlier}); choose another --out, or --overwrite")
    make_folder(out)
    file.write_text(json.dumps(options.settings), "utf-8")


def _report(preprocessor: str, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    return {
        "preprocessor": preprocessor,
        "done": sum(outcome.pictures for outcome in outcomes),
        "skipped": sum(outcome.skipped for outcome in outcomes),
        "failed": [{"file": name, "error": error} for outcome in outcomes for name, error in outcome.errors],
        "seconds": round(seconds, 3),
    }


def _say(report: dict[str, Any], given: argparse.Namespace) -> None:
    if given.json:
        print(json.dumps(report))
        return
    for failure in report["failed"][:10]:
        print(f"failed: {failure['file']}: {failure['error']}", file=sys.stderr)
    more = len(report["failed"]) - 10
    if more > 0:
        print(f"failed: {more} more, all in {given.out / 'report.json'}", file=sys.stderr)
    print(f"{report['done']} made, {report['skipped']} were there, {len(report['failed'])} failed: {given.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py annotate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="picture, folder, pattern or shard")
    parser.add_argument("--preprocessor", metavar="ID", help="id, label or alias; see --list")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="see --list --json")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="masks with the pictures' names, for inpainting")
    parser.add_argument("--seed", type=int, default=0, help="for preprocessors that draw random numbers")
    parser.add_argument(
        "--workers",
        type=at_least(1, int),
        metavar="N",
        help=f"pictures at a time (1; this machine has {os.cpu_count()} cores); with --engine ray as many as fit",
    )
    add_options(parser, "a picture")
    parser.add_argument("--device", default="cpu", help="as PyTorch names it: cpu, cuda, cuda:1, mps")
    parser.add_argument("--weights", type=Path, action="append", default=[], metavar="DIR", help="folder with weights")
    parser.add_argument("--download", action="store_true", help="bring missing weights from huggingface.co")
    trust = "run this file with code (TorchScript); the refusal of one says its sha256"
    parser.add_argument("--trust", action="append", default=[], metavar="SHA256", help=trust)
    parser.add_argument("--overwrite", action="store_true", help="make again what is there")
    parser.add_argument("--contact-sheet", action="store_true", help="contact_sheet.jpg of pictures and maps")
    parser.add_argument("--gallery", type=Path, metavar="DIR", help="a page with every preprocessor on each INPUT")
    parser.add_argument("--list", action="store_true", help="list the preprocessors")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser

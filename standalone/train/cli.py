"""The command line of the trainer.

    python launch.py train CONFIG.toml [--steps N] [--out DIR] [--resume [--accept-changes]] [--json]
    python launch.py train CONFIG.toml --push USER/NAME [--public]
    python launch.py train CONFIG.toml --plan [--memory GIB] [--json]
    python launch.py train CONFIG.toml --prepare [--engine ray] [--json]

The configuration is described in docs/training.md. Several processes: `accelerate launch -m standalone.train.cli ...`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.training.config import TrainConfig, read_config
from lib_controlnet.training.hub import push, uploads
from lib_controlnet.training.needed import check_names
from lib_controlnet.training.planning import plan
from lib_controlnet.training.session import Outcome, TrainingSession
from lib_controlnet.training.shares import SHARE, Helpers

from ..annotate.options import UsageError
from ..cluster import above_zero, add_options, at_least, cluster_of, connected
from .helping import Work, on_ray
from .preprocessors import Preprocessors
from .screen import Screen, memory
from .shapes import read_shapes


def main(argv: Sequence[str]) -> int:
    """Exit code 0 after a whole training, 1 after an error that is told, 130 after one that was stopped."""
    options = _parser().parse_args(argv)
    screen = Screen(hidden=options.quiet)
    try:
        config = _config(options)
        if options.memory is not None and not options.plan:
            raise UsageError("--memory is of the card that --plan counts for: give --plan with it")
        if options.plan:
            check_names(config, Preprocessors(options.weights).kind)
            found = plan(config, None if options.memory is None else int(options.memory * 2**30))
            print(json.dumps(found.as_json()) if options.json else found)
            return 0 if found.fits else 1
        if options.threads:
            torch.set_num_threads(options.threads)
        if options.prepare:
            return _prepare(config, screen, options)
        if options.engine != "local":
            raise UsageError("--engine ray encodes ahead of a training: give --prepare with it")
        session = _session(config, screen, options)
        outcome = session.run()
        address = _pushed(options, config, outcome) if session.accelerator.is_main_process else ""
    except (ControlNetError, UsageError) as error:
        return _told(str(error), screen, options)
    except ImportError as error:
        problem = f"packages of {sys.executable} do not fit together. Found: {error}."
        return _told(f"{problem} What to do: install other versions of them", screen, options)
    screen.close()
    if session.accelerator.is_main_process:
        report = report_of(outcome) | ({"pushed": address} if address else {})
        print(json.dumps(report) if options.json else _text(report))
    return 130 if outcome.stopped else 0


def _told(problem: str, screen: Screen, options: argparse.Namespace) -> int:
    screen.close()
    print(json.dumps({"error": problem}) if options.json else f"launch.py train: {problem}", file=sys.stderr)
    return 1


def _session(
    config: TrainConfig, screen: Screen, options: argparse.Namespace, helpers: Helpers | None = None
) -> TrainingSession:
    return TrainingSession(
        config, screen, Preprocessors(options.weights), {"demo": read_shapes}, resume=options.resume,
        accept_changes=options.accept_changes, helpers=helpers,
    )  # fmt: skip


def _prepare(config: TrainConfig, screen: Screen, options: argparse.Namespace) -> int:
    """Here, or by the machines of a cluster. Raises UsageError."""
    cluster = cluster_of(options, on_card=torch.cuda.is_available())
    if options.workers and cluster is None:
        raise UsageError("--workers is for a cluster: give --engine ray with it")
    with contextlib.ExitStack() as open_now:
        helpers = None
        if cluster is not None:
            ray = open_now.enter_context(connected(cluster))
            screen.listen()
            weights = tuple(folder.absolute() for folder in options.weights)
            helpers = on_ray(ray, cluster, Work(config.base, config.data, config.train.precision, weights))
        session = _session(config, screen, options, helpers)
        made = session.prepare()
    screen.close()
    if session.accelerator.is_main_process:
        report = {**dataclasses.asdict(made), "seconds": round(made.seconds, 1), "memory_mb": memory() >> 20}
        new = ", ".join(f"{count} {name}" for name, count in made.made.items() if count) or "nothing new"
        ready = f"{made.pairs} pairs are ready for a training ({new} encoded in {made.seconds:.0f} s)"
        print(json.dumps(report) if options.json else "stopped; begin again to go on" if made.stopped else ready)
    return 130 if made.stopped else 0


def _pushed(options: argparse.Namespace, config: TrainConfig, outcome: Outcome) -> str:
    """The address of the model on the hub; "" where it was not asked for, or the training is not at its end."""
    if not options.push or outcome.stopped:
        return ""
    files = uploads(config.output.folder, outcome.files)
    return push(options.push, files, public=options.public, endpoint=options.hub)


def _config(options: argparse.Namespace) -> TrainConfig:
    changes: dict[str, dict[str, Any]] = {}
    if options.steps:
        changes["train"] = {"steps": options.steps}
    if options.out:
        changes["output"] = {"folder": options.out.resolve()}
    return read_config(options.config, **changes)


def report_of(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON."""
    found = outcome.convergence
    return {
        "steps": outcome.steps,
        "loss": None if outcome.loss is None else round(outcome.loss, 6),
        "locked_unchanged": outcome.locked_unchanged,
        "f1": outcome.adherence,
        "f1_mismatched": outcome.adherence_mismatched,
        "f1_without": outcome.adherence_without,
        "f1_ceiling": outcome.ceiling,
        "control": None
        if outcome.adherence is None
        else round(outcome.adherence - (outcome.adherence_mismatched or 0.0), 4),
        "half_way": outcome.half_way,
        "convergence": None if found is None else dataclasses.asdict(found),
        "stopped": outcome.stopped,
        "seconds": round(outcome.seconds, 1),
        "memory_mb": memory() >> 20,
        "files": {name: str(path) for name, path in outcome.files.items()},
    }


def _text(report: dict[str, Any]) -> str:
    lines = [f"{key:<18}{value}" for key, value in report.items() if key != "files"]
    return "\n".join([*lines, *(f"{key:<18}{path}" for key, path in report["files"].items())])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py train", description="Train a control model.")
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what to train: see docs/training.md")
    parser.add_argument("--steps", type=at_least(1, int), help="instead of train.steps")
    parser.add_argument("--out", type=Path, help="instead of output.folder")
    parser.add_argument("--resume", action="store_true", help="go on from the newest state in the output folder")
    parser.add_argument("--plan", action="store_true", help="count what memory it takes, and train nothing")
    parser.add_argument("--prepare", action="store_true", help="make maps, encode pictures and prompts; train nothing")
    parser.add_argument("--workers", type=at_least(1, int), metavar="N",
                        help=f"with --engine ray: so many times {SHARE} at once (as many as fit)")  # fmt: skip
    add_options(parser, "encoding")
    parser.add_argument(
        "--memory", type=above_zero, metavar="GIB", help="with --plan: another card's than this computer's"
    )
    parser.add_argument(
        "--accept-changes", action="store_true", help="with --resume: go on with other settings or data than before"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--push", metavar="USER/NAME", help="at the end: upload model and card to this hub repository")
    parser.add_argument("--public", action="store_true", help="with --push: a new repository is no private one")
    parser.add_argument("--hub", metavar="URL", help="with --push: another hub than huggingface.co")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--threads", type=at_least(1, int), help="threads of PyTorch (small networks: 1)")
    parser.add_argument(
        "--weights", type=Path, action="append", default=[], help="folder of preprocessors' weights; may be repeated"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

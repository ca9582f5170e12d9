"""Where control begins, seed by seed, and that it does not on shuffled pairs:

python -m standalone.demo.convergence --out DIR [--seeds 3] [--shuffled 5]

Short trainings of the demo's canny ControlNet, one after another, with the paper's start (the hint encoder as PyTorch
draws it, half of the prompts empty, a constant rate). `DIR/convergence.json` has each curve of what the map brings and
what the trainer said of it, `convergence.png` shows them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from lib_controlnet.training.config import DataOptions, TrainConfig, read_config
from lib_controlnet.training.errors import TrainingError
from lib_controlnet.training.examples import Example, Reading
from lib_controlnet.training.session import Outcome, TrainingSession
from standalone.train.preprocessors import Preprocessors
from standalone.train.screen import Screen
from standalone.train.shapes import read_shapes

from .checkpoint import FOLDER

SHUFFLED = "demo shuffled"
_APART = 7
_STEPS, _EVERY, _PICTURES, _SHOWN = 700, 50, 1600, 8
_RATE = 2.5e-3
"""Three times the recipe's: at that one nothing has begun after 400 steps from the paper's start."""


def shuffled(options: DataOptions) -> Reading:
    """The demo's pictures, each with the map of another one, also those that are held out."""
    found = read_shapes(options)
    return Reading(_turned(found.examples), _turned(found.held_out))


def _turned(examples: list[Example]) -> list[Example]:
    """Each with the map of the one `_APART` places on."""
    return [
        dataclasses.replace(example, hint=examples[(index + _APART) % len(examples)].hint)
        for index, example in enumerate(examples)
    ]


def settings(out: Path, seed: int, pairs: str, steps: int = _STEPS) -> TrainConfig:
    """The recipe of models/demo/canny.toml, begun as the paper begins, short, and looked at often."""
    return read_config(
        FOLDER / "canny.toml",
        base={"hint_init": "torch"},
        data={"format": pairs, "count": _PICTURES, "held_out": _SHOWN},
        train={"steps": steps, "schedule": "constant", "learning_rate": _RATE, "seed": seed},
        samples={"every": _EVERY, "steps": 10},
        output={"folder": out, "save_every": steps},
    )


def run(out: Path, seed: int, pairs: str, steps: int) -> dict[str, Any]:
    """One training; what was encoded by another one of the same pictures is used again."""
    began = time.process_time()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "cache").exists():
        (out / "cache").symlink_to(out.parent / "cache", target_is_directory=True)
    readers = {"demo": read_shapes, SHUFFLED: shuffled}
    session = TrainingSession(settings(out, seed, pairs, steps), Screen(), Preprocessors(()), readers, planned=False)
    return _told(session, session.run(), time.process_time() - began) | {"seed": seed, "pairs": pairs}


def _told(session: TrainingSession, outcome: Outcome, seconds: float) -> dict[str, Any]:
    if outcome.stopped:
        raise TrainingError("it was stopped", field="train")
    found = outcome.convergence
    return {
        "convergence": None if found is None else dataclasses.asdict(found),
        "half_way": outcome.half_way,
        "floor": outcome.adherence_without,
        "ceiling": outcome.ceiling,
        "curve": [[point.step, point.matched, point.mismatched] for point in session.curve],
        "cpu_seconds": round(seconds),
    }


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Curves of what the map brings; where the trainer named a jump, its two looks are marked."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for one in runs:
        steps = [step for step, _, _ in one["curve"]]
        values = [matched - mismatched for _, matched, mismatched in one["curve"]]
        colour, name = ("tab:grey", "shuffled") if one["pairs"] == SHUFFLED else (None, "true pairs")
        (line,) = axes.plot(steps, values, color=colour, label=f"{name}, seed {one['seed']}")
        if one["convergence"] is not None:
            at = [steps.index(one["convergence"][key]) for key in ("after", "step")]
            axes.plot([steps[i] for i in at], [values[i] for i in at], "o", color=line.get_color())
    axes.set(xlabel="step", ylabel="adherence with the own map\nminus with another picture's")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="trainings on true pairs")
    parser.add_argument("--shuffled", type=int, default=5, help="trainings on shuffled pairs")
    parser.add_argument("--steps", type=int, default=_STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out.resolve()
    report = out / "convergence.json"
    (out / "cache").mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = json.loads(report.read_text("utf-8")) if report.exists() else []
    known = {(one["pairs"], one["seed"]) for one in runs}
    wanted = [("demo", seed) for seed in range(options.seeds)]
    wanted += [(SHUFFLED, seed) for seed in range(options.shuffled)]
    for pairs, seed in wanted:
        if (pairs, seed) in known:
            continue
        runs.append(run(out / f"{pairs.replace(' ', '_')}-{seed}", seed, pairs, options.steps))
        report.write_text(json.dumps(runs, indent=1), "utf-8")
        draw(runs, out / "convergence.png")


if __name__ == "__main__":
    main()

"""What reuse control costs in adherence, and how many calls it computes, in whole jobs of the embedded WebUI:

    python -m standalone.demo.reuse --out FILE.json [--pairs 32] [--first 64] [--case NAME ...]

Each job is made in full and reused, with the demo's models, for held-out pairs of 128 pixels. Adherence is F1 within
2 pixels of the picture's canny lines against those of the true one, whatever the map shows. The schedule was chosen on
pairs before FRESH: what it keeps is shown with those behind. The figures are those of docs/reuse.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from .controls import control_map
from .data import HELD_OUT_SEED
from .embedded import embedded
from .evaluate import line_scores
from .shapes import SIZE, Image, Picture, pictures

BUDGET = 0.9
"""Of the residuals' change: what docs/reuse.md recommends."""
FRESH = 64
"""The number of the first held-out pair that had no part in choosing when residuals serve."""


@dataclass(frozen=True)
class Case:
    """A kind of job: the maps of its units, and what it asks of the host."""

    kinds: tuple[str, ...] = ("canny",)
    sampler: str = "DDIM"
    steps: int = 20
    scheduler: str = "Automatic"
    more: dict[str, Any] = field(default_factory=dict[str, Any])


_HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6}
CASES = {
    "canny": Case(),
    "scribble": Case(("scribble",)),
    "seg": Case(("seg",)),
    "canny, DPM++ 2M Karras": Case(sampler="DPM++ 2M", scheduler="Karras"),
    "canny, Euler a": Case(sampler="Euler a"),
    "canny, Euler of 8 steps": Case(sampler="Euler", steps=8),
    "canny, UniPC of 8 steps": Case(sampler="UniPC", steps=8),
    "canny and seg": Case(("canny", "seg"), "DPM++ 2M", 20, "Karras"),
    "canny, hires": Case(("canny",), "DPM++ 2M", 20, "Karras", _HIRES),
    "canny, Restart": Case(sampler="Restart"),
    "canny, Heun of 10 steps": Case(sampler="Heun", steps=10),
}


@dataclass(frozen=True)
class Figures:
    """Of the pairs' jobs. kept: reused / full. error: of that mean. computed, calls: in a pass, the mean of all;
    halved: those of the computed ones in which the cond rows alone were."""

    pairs: int
    full: float
    reused: float
    kept: float
    error: float
    computed: float
    halved: float
    calls: float


class Jobs:
    """Jobs of one embedded WebUI for `pairs` held-out pairs from number `first`; a pair's number is its job's seed."""

    def __init__(self, app: Any, pairs: int, first: int = 0) -> None:
        self._app = app
        self._first = first
        all_pictures = pictures(first + pairs, HELD_OUT_SEED)
        self.truth = all_pictures[first:]
        kinds = {kind for case in CASES.values() for kind in case.kinds}
        self._maps = {kind: list(_maps(kind, all_pictures))[first:] for kind in sorted(kinds)}

    def figures(self, case: Case) -> Figures:
        """Each pair in full and reused."""
        rows = [(self._job(case, pair, 0.0), self._job(case, pair, BUDGET)) for pair in range(len(self.truth))]
        scores = np.array([[self._score(pair, one[0]) for one in row] for pair, row in enumerate(rows)])
        full, reused = scores.mean(axis=0)
        error = float((scores[:, 1] - scores[:, 0]).std() / len(rows) ** 0.5 / full)
        counts = np.array([count for row in rows for count in row[1][1]], np.float64).mean(axis=0)
        kept = float(reused / full)
        numbers = (round(float(number), 4) for number in (full, reused, kept, error, *counts))
        return Figures(len(rows), *numbers)

    def counts(self, case: Case) -> tuple[float, float, float]:
        """(computed, halved, all) calls of a reused pass, the mean over pairs, units and passes."""
        counts = [count for pair in range(len(self.truth)) for count in self._job(case, pair, BUDGET)[1]]
        computed, halved, calls = np.array(counts, np.float64).mean(axis=0).tolist()
        return computed, halved, calls

    def _job(self, case: Case, pair: int, budget: float) -> tuple[Image, list[tuple[int, int, int]]]:
        """The picture, and (computed, halved, all) calls of each unit in each pass where the job reuses."""
        units = [
            {"enabled": True, "module": "none", "model": f"demo_{kind}", "image": self._maps[kind][pair],
             "reuse_control": budget}
            for kind in case.kinds
        ]  # fmt: skip
        settings = {"width": SIZE, "height": SIZE, "cfg_scale": 4.0, "steps": case.steps, "scheduler": case.scheduler}
        made = self._app.txt2img(
            {"ControlNet": units}, prompt=self.truth[pair].prompt, seed=self._first + pair, sampler_name=case.sampler,
            **settings, **case.more,
        )  # fmt: skip
        passes = [one for unit in json.loads(made.js())["controlnet"] for one in unit["effect"]["passes"]]
        counts = [(one["computed"], one["halved"], len(one["steps"])) for one in passes if "computed" in one]
        return np.asarray(made.images[0].convert("RGB"), np.uint8), counts

    def _score(self, pair: int, image: Image) -> float:
        if image.shape[0] != SIZE:  # hires
            image = np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), np.uint8)
        return line_scores([image], [self.truth[pair]])[0]["f1_tolerant"] or 0.0


def _maps(kind: str, truth: Sequence[Picture]) -> Iterator[Image]:
    rng = random.Random(HELD_OUT_SEED)
    return (control_map(kind, picture, rng) for picture in truth)


@contextlib.contextmanager
def running(pairs: int, first: int = 0) -> Iterator[Jobs]:
    """An embedded WebUI with the demo's models, while it is needed; see `Jobs`."""
    with embedded() as app:
        yield Jobs(app, pairs, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help=f"number of the first pair; from {FRESH} they are fresh")
    parser.add_argument("--case", action="append", choices=tuple(CASES))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {}
    with running(given.pairs, given.first) as jobs:
        for name in given.case or CASES:
            found[name] = vars(jobs.figures(CASES[name]))
            print(name, found[name], file=sys.stderr, flush=True)
            given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

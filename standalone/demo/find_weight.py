"""Whether "Find weight" reaches its target, in whole jobs of the embedded WebUI:

    python -m standalone.demo.find_weight --out FILE.json [--pairs 10] [--first 0] [--steps 10]

For each held-out pair of 128 pixels the adherence at weight 0 and at weight 1 is asked for (a search for 1.0, which
none reaches), then the weight that reaches the middle between the two. The figures are those of docs/measure.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lib_controlnet.measure.search import CLOSE, MOST_JOBS

from .data import HELD_OUT_SEED
from .embedded import embedded
from .shapes import SIZE, Picture, pictures


@dataclass(frozen=True)
class Found:
    """Of one pair. floor, most: its adherence at weight 0 and 1. jobs: those of the search."""

    pair: int
    floor: float
    most: float
    target: float
    weight: float
    adherence: float
    jobs: int

    @property
    def within(self) -> bool:
        """The target is reached, and not by too much, in as many jobs as are allowed."""
        return abs(self.adherence - self.target) <= CLOSE and self.jobs <= MOST_JOBS


def search(app: Any, picture: Picture, pair: int, steps: int) -> Found:
    """Two studies of one job, whose seed is the pair's number."""
    (floor, most) = (adherence for _, adherence in _study(app, picture, pair, steps, 1.0)["curve"])
    target = round((floor + most) / 2, 4)
    found = _study(app, picture, pair, steps, target)
    return Found(pair, floor, most, target, found["weight"], found["adherence"], len(found["curve"]))


def _study(app: Any, picture: Picture, pair: int, steps: int, target: float) -> dict[str, Any]:
    unit = {"enabled": True, "module": "canny", "model": "demo_canny", "image": picture.image, "processor_res": SIZE}
    question = {"study": {"what": "weight", "unit": 0, "target": target}}
    made = app.txt2img(
        {"ControlNet": [unit, question]}, prompt=picture.prompt, seed=pair, sampler_name="DDIM", steps=steps,
        width=SIZE, height=SIZE, cfg_scale=4.0,
    )  # fmt: skip
    return json.loads(made.js())["controlnet_study"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    truth = pictures(given.first + given.pairs, HELD_OUT_SEED)
    found: list[Found] = []
    with embedded() as app:
        for pair in range(given.first, given.first + given.pairs):
            found.append(search(app, truth[pair], pair, given.steps))
            print(found[-1], file=sys.stderr, flush=True)
    within, jobs = sum(one.within for one in found), [one.jobs for one in found]
    report = {"pairs": len(found), "within": within, "jobs": [min(jobs), max(jobs)], "each": [asdict(x) for x in found]}
    given.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"within {CLOSE:g} of the target: {within} of {len(found)} pairs, in {min(jobs)} to {max(jobs)} jobs")


if __name__ == "__main__":
    main()

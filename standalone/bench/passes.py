"""Whole passes with reuse control at SD1.5's size, step by step against the bare U-Net's:

    python -m standalone.bench.passes [--pixels 512] [--passes 1] [--case NAME ...] [--threads 1] [--json]

`launch.py bench` measures a step that computes and one that need not, and takes from jobs of the demo how many there
are of each. Here 20 steps of a sampling are driven as a host drives them, and the engine itself decides in which of
them control is computed. The latents go a DDIM sampler's way from noise to a picture, as they would if the U-Net
predicted well. The steps of all passes take turns with a bare step on the same latents, so that a slow minute
meets all alike; steps of one kind (the bare, those that compute all rows, or the cond row alone, or need not) count as
in their shortest stretches. The figures are those of docs/reuse.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib_controlnet.engine.effect import Computed
from standalone.demo import reuse

from .measure import Progress, Stopwatch
from .stage import ControlledStep, Stage
from .steps import STEPS

CASES: Mapping[str, tuple[int, bool]] = {
    "one ControlNet": (1, False),
    "two ControlNets": (2, False),
    "one ControlNet, the sampler adds noise": (1, True),
}
"""How many units, and whether as with an ancestral sampler."""
BARE = "bare"

Kind = tuple[str, int, int]
"""Whose step, for how many rows it computed control, and of how many stretches it is."""


@dataclass
class Kinds:
    """The steps so far by kind: how many, and each one's stretches, each as short as it has ever been."""

    counts: dict[Kind, int] = field(default_factory=dict[Kind, int])
    least: dict[Kind, list[float]] = field(default_factory=dict[Kind, list[float]])

    def add(self, name: str, stretches: Sequence[float], rows: int = 0) -> None:
        """A step of `name` has been made, which computed control for so many rows."""
        kind = name, rows, len(stretches)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.least[kind] = [min(pair) for pair in zip(self.least.get(kind, stretches), stretches, strict=True)]

    def mean(self, name: str) -> float:
        """CPU seconds of a mean step of `name`."""
        own = [kind for kind in self.counts if kind[0] == name]
        seconds = sum(self.counts[kind] * sum(self.least[kind]) for kind in own)
        return seconds / sum(self.counts[kind] for kind in own)


def latents(stage: Stage) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """x (rows, 4, h, w) and timesteps (rows,) of each step of a DDIM sampler whose model is right."""
    noise, picture = stage.x, torch.randn(stage.x[:1].shape, generator=torch.Generator().manual_seed(6))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = (1.0 - betas).cumprod(0)
    for step in reversed(range(STEPS)):
        time = step * (1000 // STEPS) + 1
        x = signal[time].sqrt() * picture.to(noise) + (1.0 - signal[time]).sqrt() * noise
        yield x, torch.full_like(stage.timesteps, time)


def one_pass(
    stage: Stage, cases: Collection[str], stopwatch: Stopwatch, kinds: Kinds, progress: Progress
) -> dict[str, Computed]:
    """All steps of the cases, added to `kinds`; returns in how many of them each case computed control."""
    running = {name: _begun(stage, *CASES[name]) for name in cases}
    actions: dict[str, Callable[[], object]] = {BARE: stage.bare_step, **running}
    names = list(actions)
    for turn, (x, timesteps) in enumerate(latents(stage), 1):
        stage.x, stage.timesteps = x, timesteps
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name in running:
                running[name].turn, running[name].progress = turn, (turn - 1) / STEPS
            seen = RowsOf(running[name].network) if name in running else None
            stretches = stopwatch.stretches(actions[name])
            kinds.add(name, stretches, 0 if seen is None else seen.taken())
            progress(f"step {turn}/{STEPS}: {name} {sum(stretches):.3f} s")
    return {name: _computed(step) for name, step in running.items()}


class RowsOf:
    """For how many rows a ControlNet is computed, from now until it is asked."""

    def __init__(self, network: nn.Module) -> None:
        self._rows = 0
        self._handle = network.register_forward_hook(self._seen)

    def taken(self) -> int:
        """0 where it is not."""
        self._handle.remove()
        return self._rows

    def _seen(self, _network: nn.Module, args: tuple[Tensor, ...], _outputs: object) -> None:
        self._rows = args[3].shape[0]  # of the prompts: rows may share their latents


def _computed(step: ControlledStep) -> Computed:
    """In how many steps of a pass that ends now."""
    step.session.end(STEPS)
    found = [effect.computed for effect in step.session.taken_effects() if effect.computed is not None]
    return max(found, key=lambda computed: computed.calls)


def _begun(stage: Stage, units: int, noisy: bool) -> ControlledStep:
    given = [stage.unit(index=index, reuse_control=reuse.BUDGET) for index in range(units)]
    step = stage.controlled(*given)
    step.planned, step.noisy = STEPS, noisy
    return step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--case", action="append", choices=tuple(CASES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    cases = given.case or tuple(CASES)
    kinds, computed = Kinds(), dict[str, Computed]()
    with Stage(given.pixels) as stage:
        start = stage.x, stage.timesteps
        stage.bare_step()  # first calls allocate and choose kernels
        stopwatch = Stopwatch()
        stopwatch.watch(stage.unet)
        stopwatch.watch(stage.controlled(stage.unit()).network)
        for number in range(given.passes):
            stage.x, stage.timesteps = start
            computed = one_pass(stage, cases, stopwatch, kinds, lambda text, n=number: _say(f"pass {n + 1}, {text}"))
    bare = kinds.mean(BARE)
    rows = {
        name: {"ratio": round(kinds.mean(name) / bare, 4), "seconds": round(kinds.mean(name), 3),
               "bare_seconds": round(bare, 3), "computed": computed[name].calls, "halved": computed[name].halved,
               "steps": STEPS}
        for name in cases
    }  # fmt: skip
    if given.json:
        print(json.dumps({"pixels": given.pixels, "passes": given.passes, "cases": rows}))
        return
    for name, row in rows.items():
        often = f"computed in {row['computed']} of {STEPS}, in {row['halved']} of them for the cond row alone"
        print(f"{name:<42}{row['ratio']:>8.3f} of the bare step, {often}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Cases about time: a whole denoiser step with control against the bare U-Net's, and the networks alone.

The U-Net is ours, so that whatever makes a layer of the ControlNet faster (see `nets/operations.py`) makes the same
layer of the U-Net faster too: the ratios tell what control adds, not whose layers are better.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lib_controlnet.core.modes import ControlMode, UnionType
from lib_controlnet.engine.reuse import FIRST
from lib_controlnet.families.base import Runtime
from standalone.demo import reuse

from . import networks
from .card import CardStopwatch
from .measure import Goal, Progress, Result, Stopwatch, take_turns
from .stage import CPU, ControlledStep, Given, Stage

GOALS = {
    "engine_overhead": Goal(1.05),
    "step_one": Goal(1.36),
    "step_two": Goal(1.70),
    "step_more_important": Goal(1.19),
    "step_reuse_one": Goal(1.10),
    "step_reuse_two": Goal(1.18),
    "step_t2i_adapter": Goal(1.01),
    "step_union_two": Goal(1.36),
    "step_control_lora": Goal(1.02),
    "step_ip_plus": Goal(1.05),
    "step_lllite": Goal(1.09),  # what sd-webui-controlnet takes in one job of A1111 1.10.1, of which ours took 1.03
    "step_weight_zero": Goal(1.02, 0.98),
    "step_outside_range": Goal(1.02, 0.98),
    "step_installed_only": Goal(1.02, 0.98),
}
UNITS: dict[str, list[dict[str, Any]]] = {
    "step_one": [{}],
    "step_two": [{"index": 0}, {"index": 1}],
    "step_more_important": [{"control_mode": ControlMode.control}],
    "step_reuse_one": [{"reuse_control": reuse.BUDGET}],
    "step_reuse_two": [{"index": 0, "reuse_control": reuse.BUDGET}, {"index": 1, "reuse_control": reuse.BUDGET}],
    "step_t2i_adapter": [{"model": "bench_t2i_adapter"}],
    "step_union_two": [
        {"index": 0, "model": "bench_controlnet_union", "union_type": UnionType.depth},
        {"index": 1, "model": "bench_controlnet_union", "union_type": UnionType.hard_edge},
    ],
    "step_control_lora": [{"model": "bench_control_lora"}],
    "step_ip_plus": [{"model": "bench_ip_adapter_plus", "preprocessor": "ip-adapter-auto"}],
    "step_lllite": [{"model": "bench_lllite"}],
    "step_weight_zero": [{"weight": 0.0}],
    "step_outside_range": [{"guidance_start": 0.0, "guidance_end": 0.3}],
}
BARE, FORWARD = "bare U-Net step", "ControlNet forward alone"
SERVED, HALVED = ", residuals of an earlier step", ", the cond row alone"
"""Behind the name of a case with reuse: its steps that compute nothing, and those that compute a half."""
WHOLE, HALF, NONE = "whole", "half", "none"
"""Steps of such a case: for how many of their rows control is computed."""
STEPS = 20
"""Of a sampling."""
REUSED = {"step_reuse_one": "canny, DPM++ 2M Karras", "step_reuse_two": "canny and seg"}
"""The demo's jobs whose shares of computed calls count in a case with reuse."""
PAIRS = 4
"""Of them, each job made for so many."""


def whole_steps(
    names: Collection[str], pixels: int, rounds: int, progress: Progress, runtime: Runtime = CPU
) -> list[Result]:
    """The cases of GOALS among `names`, measured in one run against one bare step."""
    shares = _computed(names, progress)
    with Stage(pixels, runtime) as stage:
        actions = _actions(set(names), stage)
        stopwatch = _stopwatch(runtime)
        stopwatch.watch(stage.unet)
        for network in {action.network for action in actions.values() if isinstance(action, (ControlledStep, Reusing))}:
            stopwatch.watch(network)
        ready = {name: action.ready for name, action in actions.items() if isinstance(action, Reusing)}
        seconds = take_turns(actions, rounds, progress, stopwatch, ready)
    return [_result(name, seconds, shares) for name in GOALS if name in names]


def _computed(names: Collection[str], progress: Progress) -> dict[str, tuple[float, float]]:
    """The shares of calls that compute all rows, and that compute the cond rows alone, in jobs of the demo: its
    pictures decide when residuals serve."""
    wanted = {name: reuse.CASES[case] for name, case in REUSED.items() if name in names}
    if not wanted:
        return {}
    progress("jobs of the demo: how often they compute")
    with reuse.running(PAIRS) as jobs:
        counts = {name: jobs.counts(case) for name, case in wanted.items()}
    return {name: ((made - halved) / calls, halved / calls) for name, (made, halved, calls) in counts.items()}


def _actions(names: Set[str], stage: Stage) -> dict[str, Callable[[], object]]:
    actions: dict[str, Callable[[], object]] = {BARE: stage.bare_step}
    for name, units in UNITS.items():
        if name in names or (name == "step_one" and names & {"engine_overhead", "step_control_lora"}):
            step = stage.controlled(*(stage.unit(**settings) for settings in units))
            actions[name] = step if name not in REUSED else Reusing(step, WHOLE)
            for suffix, kind in ((HALVED, HALF), (SERVED, NONE)) if name in REUSED else ():
                again = stage.controlled(*(stage.unit(**settings) for settings in units))
                actions[name + suffix] = Reusing(again, kind)
    if "engine_overhead" in names:
        actions[FORWARD] = _forward(stage.controlled(stage.unit()).network, stage, distinct=1)
    if "step_installed_only" in names:
        actions["step_installed_only"] = _installed_only(stage)
    return actions


class Reusing:
    """Steps of a job with reuse: of those that compute all rows and those that compute the cond row alone, which take
    turns, the ones of a kind, or those that compute nothing."""

    def __init__(self, step: ControlledStep, kind: str) -> None:
        self._step = step
        self._apart, step.planned = (1, 1 << 20) if kind == NONE else (STEPS, STEPS)
        self._before = {WHOLE: 1, HALF: FIRST, NONE: FIRST}[kind]
        """Steps of other kinds that come before the next one."""
        self._between = 0 if kind == NONE else 1

    @property
    def network(self) -> Any:
        """The first unit's ControlNet."""
        return self._step.network

    def ready(self) -> None:
        """The next step is one of the kind."""
        for _ in range(self._before):
            self()
        self._before = self._between

    def __call__(self) -> object:
        self._step.turn += self._apart
        return self._step()


def _result(name: str, seconds: Mapping[str, float], shares: Mapping[str, tuple[float, float]]) -> Result:
    bare = seconds[BARE]
    if name + SERVED in seconds:
        whole, half, served = seconds[name], seconds[name + HALVED], seconds[name + SERVED]
        often, halved = shares[name]
        mean = often * whole + halved * half + (1.0 - often - halved) * served
        detail = (
            f"{whole:.3f} s for {often * STEPS:.1f} of {STEPS} steps, {half:.3f} s for {halved * STEPS:.1f}, "
            f"{served:.3f} s for the others, {bare:.3f} s bare"
        )
        return Result(name, mean / bare, GOALS[name], detail)
    if name == "engine_overhead":
        added, alone = seconds["step_one"] - bare, seconds[FORWARD]
        detail = f"a step grows by {added:.3f} s, the forward takes {alone:.3f} s"
        return Result(name, added / alone, GOALS[name], detail)
    if name == "step_control_lora":
        detail = f"{seconds[name]:.3f} s against {seconds['step_one']:.3f} s of a ControlNet"
        return Result(name, seconds[name] / seconds["step_one"], GOALS[name], detail)
    return Result(name, seconds[name] / bare, GOALS[name], f"{seconds[name]:.3f} s against {bare:.3f} s")


def _stopwatch(runtime: Runtime) -> Stopwatch:
    return Stopwatch() if runtime.device.type == "cpu" else CardStopwatch(runtime.device)


def _forward(network: Any, stage: Given, distinct: int) -> Callable[[], object]:
    """Our ControlNet's forward with the hint's features at hand, as in every step but the first.

    `distinct`: how many rows are given; the rows of a step repeat them (see `ControlNet.forward`).
    """
    x, timesteps, context = stage.x[:distinct], stage.timesteps[:distinct], stage.context
    with torch.no_grad():
        features = network.encode_hint(networks.hint(stage.pixels).to(x))

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return network(x, features, timesteps, context)

    return forward


def _installed_only(stage: Stage) -> Callable[[], object]:
    """A job without units: what the host calls of us at its start and at every step, and the U-Net."""
    from lib_controlnet.hosts.webui.runner import Runner

    host: Any = SimpleNamespace(unet=lambda: stage.unet)
    runner = Runner(stage.services, host)
    job = SimpleNamespace(sampler=None, extra_generation_params={}, is_hr_pass=False)
    runner.process(job, lambda: [])
    runner.begin_sampling(job, stage.x[:1])
    half = networks.ROWS // 2
    params = SimpleNamespace(x=stage.x, text_cond=stage.context[:half], text_uncond=stage.context[half:])
    params.denoiser = SimpleNamespace(step=10, total_steps=20, sampler=None)

    def step() -> Tensor:
        runner.denoiser_step(params)
        return stage.bare_step()

    return step


def control_forward_vs_diffusers(pixels: int, rounds: int, progress: Progress, runtime: Runtime = CPU) -> Result:
    """Our ControlNet's forward, hint cached, against that of diffusers' class, whose forward encodes the hint."""
    device, dtype = runtime.device, runtime.dtype
    given = Given(pixels, runtime)
    network = networks.controlnet().to(device, dtype)
    reference = networks.diffusers_controlnet().to(device, dtype)
    ours = _forward(network, given, distinct=networks.ROWS)  # all of them, as diffusers' must
    stopwatch = _stopwatch(runtime)
    stopwatch.watch(network)
    stopwatch.watch(reference)
    # diffusers wants a hint for each row
    hint = networks.hint(pixels).expand(networks.ROWS, -1, -1, -1).to(device, dtype)

    def theirs() -> object:
        with torch.no_grad():
            return reference(given.x, given.timesteps, given.context, controlnet_cond=hint, return_dict=False)

    seconds = take_turns({"ours": ours, "diffusers": theirs}, rounds, progress, stopwatch)
    detail = f"{seconds['ours']:.3f} s against {seconds['diffusers']:.3f} s"
    return Result("control_forward_vs_diffusers", seconds["ours"] / seconds["diffusers"], Goal(0.97), detail)

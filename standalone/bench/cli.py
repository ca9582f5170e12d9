"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch

from lib_controlnet.families.base import Runtime

from . import annotators, device_events, duration, files, memory, pose, start, steps, training
from .card import runtime_of
from .measure import Progress, Result

CASES = (
    "control_forward_vs_diffusers",
    "engine_overhead",
    "step_one",
    "step_two",
    "step_more_important",
    "step_reuse_one",
    "step_reuse_two",
    "step_t2i_adapter",
    "step_union_two",
    "step_control_lora",
    "step_ip_plus",
    "step_lllite",
    "step_weight_zero",
    "step_outside_range",
    "step_installed_only",
    "memory_added",
    *training.GOALS,
    "load_vs_read",
    "start_cpu_seconds",
    *(f"openpose_post_{size}" for size in pose.SIZES),
    *annotators.CASES,
    "device_events",
)

ON_A_CARD = ("control_forward_vs_diffusers", *steps.GOALS, "memory_added")
"""Those that `--device` may move to a graphics card."""

DESCRIPTION = """
Costs of control at SD1.5's real size, in CPU seconds. Variants take turns for several rounds; of each layer the least
time counts, so that other programs disturb little. The U-Net is the extension's own and its layers are those of the
ControlNet, so a step's ratio is nearly the share of arithmetic: 1.334 for one ControlNet, 1.669 for two, 1.167 for one
on the cond row alone; less where cond and uncond rows share what precedes their first look at the prompt, as our
ControlNet lets them, since hosts give both the same latents. The goals are those of 512x512: at 256x256 reading the
weights costs more than the arithmetic, and a ControlNet has 42 % of a U-Net's weights but 33 % of its arithmetic.
Needs about 11 GB of memory; trainings, timed at half of SD1.5's width, 10 GB, at its true one (--true-width) 19 GB.
Exit code 1 if a goal is missed at 512x512.

On a graphics card (--device cuda) the same ratios are of seconds between two waits for it, in half precision; a step
after the first that makes the processor wait for the card is an error. Without one, the case device_events counts what
would disturb it.
"""


def main(argv: Sequence[str]) -> int:
    """Measure and print; 1 when a goal is missed at full size, else 0."""
    parser = _parser()
    options = parser.parse_args(argv)
    runtime = _runtime(parser, options)
    torch.set_num_threads(options.threads)
    possible = CASES if runtime.device.type == "cpu" else ON_A_CARD
    names = options.case or [name for name in possible if not (options.quick and name.endswith("_1024"))]
    pixels = 256 if options.quick else 512
    rounds = options.rounds or (3 if options.quick else 5)
    if runtime.device.type == "cpu":
        seconds = duration.expected_seconds(names, pixels, rounds, options.true_width)
        _say(f"cases: {len(names)}, {duration.in_words(seconds)}")
    if not options.json:
        where = f"{options.threads} thread(s)" if runtime.device.type == "cpu" else str(runtime.device)
        kind = str(runtime.dtype).removeprefix("torch.")
        print(f"SD1.5's size, random {kind} weights, {pixels}x{pixels}, cond and uncond row, {where}")
    try:
        results = _measure(names, pixels, rounds, runtime, _say, options.true_width)
    except KeyboardInterrupt:
        _say("interrupted; nothing is left behind")
        return 130
    print(json.dumps({"results": [result.as_json() for result in results]}) if options.json else _table(results))
    return 0 if options.quick or all(result.ok for result in results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py bench", description=DESCRIPTION)
    parser.add_argument("--case", action="append", choices=CASES, metavar="NAME", help=f"one of: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="256x256 and fewer rounds: does all run?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (5; more where other programs run)")
    parser.add_argument("--true-width", action="store_true", help="time trainings at SD1.5's true width, one by one")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or mps")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1: least noise)")
    return parser


def _runtime(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Runtime:
    try:
        runtime = runtime_of(options.device)
    except (RuntimeError, ValueError) as error:
        parser.error(f"--device {options.device}: {error}")
    others = set(options.case or ()) - set(ON_A_CARD)
    if runtime.device.type != "cpu" and others:
        parser.error(f"these are measured on the CPU only: {', '.join(sorted(others))}")
    return runtime


def _measure(
    names: Sequence[str], pixels: int, rounds: int, runtime: Runtime, progress: Progress, true_width: bool = False
) -> list[Result]:
    """Results in the order of CASES."""
    results: list[Result] = []
    if "control_forward_vs_diffusers" in names:
        results.append(steps.control_forward_vs_diffusers(pixels, rounds, progress, runtime))
    if set(names) & set(steps.GOALS):
        results += steps.whole_steps(names, pixels, rounds, progress, runtime)
    if "memory_added" in names:
        results.append(memory.memory_added(pixels, progress, runtime))
    if set(names) & set(training.GOALS):
        results += training.train_costs(names, pixels, rounds, progress, true_width)
    if "load_vs_read" in names:
        results.append(files.load_vs_read(rounds, progress))
    if "start_cpu_seconds" in names:
        results.append(start.start_cpu_seconds(rounds, progress))
    for size in pose.SIZES:
        if f"openpose_post_{size}" in names:
            results.append(pose.openpose_post(size, rounds, progress))
    results += annotators.annotators(names, rounds, progress)
    results.sort(key=lambda result: CASES.index(result.name))
    return results + (device_events.device_events(progress) if "device_events" in names else [])


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _table(results: Sequence[Result]) -> str:
    lines = [f"{'case':30} {'value':>8}  {'goal':14} {'':6} detail"]
    for result in results:
        verdict = "ok" if result.ok else "MISSED"
        lines.append(f"{result.name:30} {result.value:8.3f}  {result.goal!s:14} {verdict:6} {result.detail}")
    return "\n".join(lines)

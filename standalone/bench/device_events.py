"""What a step does to a graphics card beside computing: counted on a pretended one, since no clock runs there.

SD1.5's real size in half precision and small latents, of which copies and waits do not depend. The card and what it
records are the tests' own: `tests/device/pretend.py`.
"""

from __future__ import annotations

import gc
import importlib
import shutil
from typing import Any

import torch

from lib_controlnet.families.base import Runtime

from .measure import Goal, Progress, Result
from .stage import Stage

PIXELS = 64
STEPS = 4
Units = list[dict[str, Any]]

EVENTS: dict[str, tuple[int, Units]] = {
    "plain": (1, [{}]),
    "reference": (1, [{"preprocessor": "reference_only", "model": "None"}]),
    "batch": (3, [{}]),
    "low_vram": (1, [{"low_vram": True}]),
}
"""Pictures in the batch and the units of each case whose goal is not to disturb the card."""

PEAKS: dict[str, tuple[float, Units]] = {
    "three_one_late": (2.1, [{"guidance_end": 0.6}, {"model": "second"}, {"model": "third", "guidance_start": 0.7}]),
    "three_low_vram": (1.1, [{"low_vram": True, "model": name} for name in ("bench_controlnet", "second", "third")]),
}
"""As many ControlNets as may lie on the card at the same time, with what a step computes, and the units."""


def device_events(progress: Progress) -> list[Result]:
    """One result a case of EVENTS, copies and waits per step after the first, and one of PEAKS, in nets."""
    results: list[Result] = []
    pretended = importlib.import_module("tests.device.pretend").pretended
    with pretended("cuda") as card, Stage(PIXELS, Runtime(card.device, torch.float16)) as stage:
        for other in ("second", "third"):
            shutil.copy(stage.file, stage.file.with_stem(other))
        for name, (images, units) in EVENTS.items():
            progress(f"device events: {name}")
            stage.batch(images)
            counts = _counted(card, stage, units)
            disturbed = counts["copies_per_step"] + counts["syncs_per_step"]
            results.append(Result(f"device_events_{name}", disturbed, Goal(0.0), _told(counts), counts))
        net = stage.file.stat().st_size / 2  # the file is in float32
        stage.batch(1)
        for name, (nets, units) in PEAKS.items():
            progress(f"device events: {name}")
            counts = _counted(card, stage, units)
            results.append(Result(f"device_peak_{name}", counts["peak_bytes"] / net, Goal(nets), _told(counts), counts))
    return results


def _told(counts: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in counts.items())


def _counted(card: Any, stage: Stage, units: Units) -> dict[str, float]:
    """Bytes are of what our part of the job keeps on the card, beside the U-Net and a step's inputs."""
    stage.services.models.clear()
    others = _live(card)
    card.restart()
    step = stage.controlled(*(stage.unit(**{"index": index, **unit}) for index, unit in enumerate(units)))
    events: list[Any] = []
    for number in range(STEPS):
        step.progress = number / STEPS
        card.events.clear()
        step()
        events += card.events if number else []
    copies = [event for event in events if event.kind in ("up", "down")]
    resident, peak = _live(card) - others, card.memory.peak - others
    step.session.end(STEPS)
    after_pass = _live(card) - others
    step.session.close()
    del step
    return {
        "copies_per_step": len(copies) / (STEPS - 1),
        "syncs_per_step": sum(event.waits for event in events) / (STEPS - 1),
        "bytes_per_step": sum(event.size for event in copies) / (STEPS - 1),
        "resident_bytes": resident,
        "peak_bytes": peak,
        "bytes_after_pass": after_pass,
        "bytes_after_job": _live(card) - others,
    }


def _live(card: Any) -> int:
    gc.collect()
    return int(card.memory.live)

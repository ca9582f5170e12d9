"""Cases about starting: loading a model file against reading it, and importing the extension."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model

from . import networks
from .measure import Goal, Progress, Result, take_turns

ROOT = Path(__file__).resolve().parents[2]


def load_vs_read(rounds: int, progress: Progress) -> Result:
    """From the path of an fp32 ControlNet file to a network that can run, against `read_bytes` of the file.

    Both end with all weights in memory of their own; the file is in the system's cache for both.
    """
    families, runtime = discover(), Runtime(torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory(prefix="controlnet-bench-") as folder:
        path = networks.controlnet_file(Path(folder))
        actions = {"read": lambda: len(path.read_bytes()), "load": lambda: load_model(path, runtime, families)}
        seconds = take_turns(actions, rounds, progress)
    detail = f"{seconds['load']:.3f} s against {seconds['read']:.3f} s"
    return Result("load_vs_read", seconds["load"] / seconds["read"], Goal(2.0), detail)


IMPORT = """
import json, sys, time
sys.path[:0] = [{root!r} + "/standalone", {root!r}]
import gradio, torch
from modules import shared_cmd_options
shared_cmd_options.parse([], [])
from modules import processing, script_callbacks, script_loading, scripts, shared
scripts.current_basedir = {root!r}
before, started = set(sys.modules), time.process_time()
script_loading.load_module({root!r} + "/scripts/controlnet.py")
print(json.dumps([time.process_time() - started, len(set(sys.modules) - before)]))
"""
"""In a fresh process, where the embedded host has imported what A1111 has before it loads extensions."""


def import_cpu_seconds(rounds: int, progress: Progress) -> Result:
    """CPU seconds of executing `scripts/controlnet.py` where torch, gradio and the host are imported already."""
    measured: list[tuple[float, int]] = []
    for number in range(rounds):
        command = [sys.executable, "-c", IMPORT.format(root=str(ROOT))]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if run.returncode:
            raise RuntimeError(f"scripts/controlnet.py could not be imported:\n{run.stderr[-2000:]}")
        measured.append(tuple(json.loads(run.stdout.splitlines()[-1])))
        progress(f"round {number + 1}/{rounds}: {measured[-1][0]:.3f} s")
    seconds, modules = min(measured)
    return Result("import_cpu_seconds", seconds, Goal(0.3), f"{modules} modules")

"""The case about files: loading a model file against reading it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from lib_controlnet.families.base import Runtime
from lib_controlnet.families.registry import discover, load_model

from . import networks
from .measure import Goal, Progress, Result, take_turns


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

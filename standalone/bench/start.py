"""The case about starting: all that the extension adds to the start of a WebUI, in CPU seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .measure import Goal, Progress, Result

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("install.py", "import", "page", "routes")

START = """
import json, pathlib, sys, time
sys.path[:0] = [{root!r} + "/standalone", {root!r}]
import fastapi, gradio, torch
from modules import paths_internal, shared_cmd_options
paths_internal.configure(pathlib.Path({data!r}), None)
shared_cmd_options.parse([], [])
from modules import processing, script_callbacks, script_loading, scripts, shared_init
shared_init.initialize()
scripts.current_basedir = {root!r}
script_callbacks.on_script_unloaded(print)
spent = {{}}

def timed(part, action, *arguments):
    started = time.process_time()
    found = action(*arguments)
    spent[part] = spent.get(part, 0) + time.process_time() - started
    return found

timed("import", script_loading.load_module, {root!r} + "/scripts/controlnet.py")
extension = sys.modules["sd_controlnet_annotator"].extension
timed("page", extension.before_page)
timed("page", extension.settings_page)
for is_img2img in (False, True):
    with gradio.Blocks():
        timed("page", extension.panel, scripts.Script(), is_img2img)
timed("page", extension.tabs)
timed("routes", extension.mount_routes, None, fastapi.FastAPI())
print(json.dumps(spent))
"""
"""In a fresh process, where the embedded host has imported what A1111 has before it loads extensions. A host looks for
the file of a callback in its call stack, the first time in all modules: that is the first extension's, never ours."""


def start_cpu_seconds(rounds: int, progress: Progress) -> Result:
    """CPU seconds of the process that runs install.py, of executing `scripts/controlnet.py`, the page and the routes.

    Each part as short as in its shortest round; the files' bytecode is at hand, as at every start but the first.
    """
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="controlnet-bench-") as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for number in range(rounds + 1):  # the first one compiles
            spent = {"install.py": _install_cpu_seconds(environment), **_extension_cpu_seconds(environment, folder)}
            best = {part: min(spent[part], best.get(part, spent[part])) for part in PARTS}
            progress(f"round {number}/{rounds}: {_detail(spent)}")
    return Result("start_cpu_seconds", sum(best.values()), Goal(0.3), _detail(best))


def _detail(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {spent[part]:.3f} s" for part in PARTS)


def _install_cpu_seconds(environment: Mapping[str, str], times: int = 5) -> float:
    """A1111 runs it like this, with its own folder on PYTHONPATH; nothing is missing. The mean: the clock is coarse."""
    before = os.times()
    for _ in range(times):
        _run([str(ROOT / "install.py")], {**environment, "PYTHONPATH": str(ROOT / "standalone")})
    after = os.times()
    return (after.children_user + after.children_system - before.children_user - before.children_system) / times


def _extension_cpu_seconds(environment: Mapping[str, str], data: str) -> dict[str, float]:
    return json.loads(_run(["-c", START.format(root=str(ROOT), data=data)], environment).splitlines()[-1])


def _run(arguments: list[str], environment: Mapping[str, str]) -> str:
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    if run.returncode:
        raise RuntimeError(f"python {arguments[0]} failed:\n{run.stderr[-2000:]}")
    return run.stdout

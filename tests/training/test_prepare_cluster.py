"""`train --prepare --engine ray` as a user runs it, on a cluster of its own: killed, begun again, trained on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import launch
from lib_controlnet.training.records import write_toml
from lib_controlnet.training.shares import SHARE
from tests.standalone.test_annotate_cluster import MADE, ROOT, Machines, _below, _kill, report_of

from .test_prepare import watched
from .tiny import config, draw, session

pytestmark = pytest.mark.skipif(bool(MADE._missing(launch.RAY.run)), reason="python launch.py ray --version makes it")
COUNT = 3 * SHARE


@pytest.fixture
def folder() -> Iterator[Path]:
    # not pytest's folder: the path of a socket in it would be too long for the system
    with tempfile.TemporaryDirectory(prefix="cn-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def test_what_a_killed_preparation_made_is_there_and_a_training_finds_all(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder / "data", folder / "out"
    data.mkdir()
    for number in range(COUNT + 1):
        Image.fromarray(draw(number)[0]).save(data / f"{number:04d}.png")
        (data / f"{number:04d}.txt").write_text(f"disc {number % 3}", "utf-8")
    settings = config(checkpoint, data, out, data={"format": "pictures", "held_out": 1}, train={"steps": COUNT // 2})
    write_toml(folder / "config.toml", settings.as_json())
    line = [sys.executable, str(ROOT / "launch.py"), "train", str(folder / "config.toml"), "--prepare", "--json"]
    line += ["--engine", "ray", "--workers", "1"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=Machines(folder).environment, cwd=folder)  # fmt: skip

    first = start()
    deadline = time.monotonic() + 600
    while not list(out.glob("cache/train/latents-*.safetensors")) and first.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = _below(first.pid)
    first.kill()
    first.communicate()
    for process in started:
        _kill(process)
    made = SHARE * len(list(out.glob("cache/train/latents-*.safetensors")))
    assert 0 < made < COUNT

    report = report_of(start())
    assert report["pairs"] == COUNT + 1
    assert report["made"] == {"pictures": COUNT - made + 1, "captions": 6, "control maps": COUNT + 1}
    encoded = watched(monkeypatch)
    run = session(settings)
    assert run.prepare().pairs == COUNT + 1
    assert encoded == []

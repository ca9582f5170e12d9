"""Several processes are accelerate's business; that they compute what one does, each its share, is ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from . import parallel, parallel_stream
from .test_stream import make_shards


def launch(script: str | None, *arguments: object) -> None:
    """Two processes of `script`."""
    assert script is not None
    line = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    line += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    line += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0", script, *map(str, arguments)]
    # accelerate has no switch for several processes on a processor but a config file; its several-GPU launcher with
    # this variable is the same thing.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    answer = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]


def test_two_processes_give_the_gradient_of_one_with_the_double_batch(tmp_path: Path) -> None:
    parallel.main(str(tmp_path / "one"), 4)
    launch(parallel.__file__, tmp_path / "two", 2)
    one, two = load_file(str(tmp_path / "one")), load_file(str(tmp_path / "two"))
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    gradients = [key for key in one if key.startswith("gradient")]
    assert any(one[key].any() for key in gradients)
    assert one.keys() == two.keys()
    for key in gradients:
        assert (one[key] - two[key]).abs().max() <= 1e-6, key
    for key in one.keys() - set(gradients):
        assert (one[key] - two[key]).abs().max() <= 1e-5, key


def test_two_processes_share_a_stream(checkpoint: Path, tmp_path: Path) -> None:
    """12 pairs in windows of 6, two held out: with two rows a step each process sees five of the other ten."""
    data, out = make_shards(tmp_path / "data", 12), tmp_path / "out"
    launch(parallel_stream.__file__, checkpoint, data, out)
    one, two = (json.loads((out / f"visited-{process}.json").read_text("utf-8")) for process in range(2))
    assert one["processes"] == two["processes"] == 2
    assert [len(of["trained"]) for of in (one, two)] == [5, 5]
    assert len({*one["trained"], *two["trained"]}) == 10
    assert [len(of["encoded"]) for of in (one, two)] == [6, 6], "each encodes its half of a window"
    assert len({*one["encoded"], *two["encoded"]}) == 12
    assert {*one["trained"], *two["trained"]} < {*one["encoded"], *two["encoded"]}

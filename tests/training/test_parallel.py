"""Several processes are accelerate's business; that they compute what one does is ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from . import parallel


def test_two_processes_give_the_gradient_of_one_with_the_double_batch(tmp_path: Path) -> None:
    parallel.main(str(tmp_path / "one"), 4)
    line = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    line += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    line += ["--main_process_port", "0", parallel.__file__, str(tmp_path / "two"), "2"]
    # accelerate has no switch for several processes on a processor but a config file; its several-GPU launcher with
    # this variable is the same thing.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    answer = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    one, two = load_file(str(tmp_path / "one")), load_file(str(tmp_path / "two"))
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    gradients = [key for key in one if key.startswith("gradient")]
    assert any(one[key].any() for key in gradients)
    assert one.keys() == two.keys()
    for key in gradients:
        assert (one[key] - two[key]).abs().max() <= 1e-6, key
    for key in one.keys() - set(gradients):
        assert (one[key] - two[key]).abs().max() <= 1e-5, key

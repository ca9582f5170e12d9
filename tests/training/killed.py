"""Run as a program: a training is killed with SIGKILL again and again, each time in a child that goes on from the
newest state. Children are forked, so that they live for steps and not for imports.

killed.py CHECKPOINT PAIRS OUT KILLS STEPS -> prints JSON {"kills", "steps_at_kills"}
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint  # noqa: E402, F401
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: E402, F401
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: E402, F401

from lib_controlnet.training.state import states  # noqa: E402
from tests.training.tiny import config, session  # noqa: E402


def train(checkpoint: Path, pairs: Path, out: Path, steps: int) -> None:
    torch.set_num_threads(1)
    settings = config(
        checkpoint, pairs, out,
        train={"steps": steps, "batch_size": 1, "schedule": "cosine"}, output={"save_every": 2},
    )  # fmt: skip
    session(settings, resume=True).run()


def child(*arguments: object) -> int:
    """Pid of a child that trains."""
    pid = os.fork()
    if pid:
        return pid
    try:
        train(*arguments)  # type: ignore[arg-type]
    except BaseException:  # noqa: BLE001 - a forked child must not return into the parent's program
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_for_lines(log: Path, count: int) -> None:
    """Until a child has begun its log anew and written `count` lines more."""
    before, wanted = begun(log), None
    while wanted is None or (lines(log) < wanted):
        time.sleep(0.002)
        if wanted is None and begun(log) != before:
            wanted = lines(log) + count


def begun(log: Path) -> int:
    """Changes with every start of a training, which writes the log anew."""
    return log.stat().st_ino if log.exists() else 0


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def main(checkpoint: str, pairs: str, out: str, kills: int, steps: int) -> None:
    arguments = (Path(checkpoint), Path(pairs), Path(out), steps)
    chance = random.Random(1)
    at: list[int] = []
    while len(at) < kills:
        pid = child(*arguments)
        wait_for_lines(Path(out) / "log.jsonl", chance.randint(0, 6))
        time.sleep(chance.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"the training ended by itself after {len(at)} kills: {status}")
        kept = states(Path(out))
        at.append(int(kept[-1].stem.split("-")[1]) if kept else 0)
    if os.waitpid(child(*arguments), 0)[1]:
        raise SystemExit("the last run failed")
    print(json.dumps({"kills": len(at), "steps_at_kills": at}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:4], *(int(number) for number in sys.argv[4:6]))

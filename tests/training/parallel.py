"""Run by `accelerate launch`: gradients of the first step and the weights after three, from several processes.

parallel.py OUT BATCH: writes OUT, a safetensors file
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from tests.training.test_trainer import OPTIONS, trainer  # noqa: E402


def main(out: str, batch: int) -> None:
    torch.set_num_threads(1)
    run = trainer(replace(OPTIONS, batch_size=batch, accumulation=2))
    run.train_step()
    found = {
        f"gradient {index}": weight.grad.clone() for index, weight in enumerate(run.trained) if weight.grad is not None
    }
    run.train_step()
    run.train_step()
    found |= {f"weight {index}": weight.detach().clone() for index, weight in enumerate(run.trained)}
    if run.accelerator.is_main_process:
        save_file(found | {"processes": torch.tensor(run.accelerator.num_processes)}, out)
    run.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

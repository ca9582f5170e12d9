"""Run by `accelerate launch`: a stream trained by several processes.

parallel_stream.py CHECKPOINT DATA OUT: each process writes OUT/visited-N.json, what it encoded and trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from lib_controlnet.training.cache import EncodedData  # noqa: E402
from lib_controlnet.training.encoder import Encoder  # noqa: E402
from tests.training.tiny import config, session  # noqa: E402


def main(checkpoint: Path, data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    settings = config(checkpoint, data, out, data={"format": "webdataset", "stream": 6, "held_out": 2},
                      train={"steps": 5, "batch_size": 1, "average_decay": 0.0})  # fmt: skip
    found: dict[str, list[str]] = {"encoded": [], "trained": []}
    batch, encode = EncodedData.batch, Encoder._encode_pictures

    def batched(self: Any, indices: torch.Tensor, generator: torch.Generator) -> Any:
        found["trained"] += [self.examples[index].name for index in indices.tolist()]
        return batch(self, indices, generator)

    def encoded(self: Any, what: Any, examples: Any, *rest: Any) -> None:
        found["encoded"] += [example.name for example in examples]
        encode(self, what, examples, *rest)

    EncodedData.batch, Encoder._encode_pictures = batched, encoded  # type: ignore[method-assign]
    run = session(settings)
    run.run()
    process = run.accelerator.process_index
    (out / f"visited-{process}.json").write_text(json.dumps({**found, "processes": run.accelerator.num_processes}))
    run.accelerator.end_training()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

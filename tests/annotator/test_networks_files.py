"""Weights of preprocessors live in memory of their own: their file may be written over while they are used."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from annotator.sd_controlnet.networks import read_weights


def test_a_file_that_is_cut_while_its_weights_are_in_use_changes_nothing(tmp_path: Path):
    path = tmp_path / "network.safetensors"
    tensor = torch.arange(1 << 16, dtype=torch.float32)
    save_file({"weight": tensor}, path)
    weights = read_weights(path)
    with path.open("r+b") as file:  # in place, as `cp` does
        file.truncate(64)
    assert torch.equal(weights["weight"], tensor)

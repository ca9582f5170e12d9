"""The memory of a training, counted at SD 1.5's layout and a fifth of its width: it does not depend on the machine."""

from __future__ import annotations

from standalone.train.cost import cases, total_bytes


def test_memory_beside_fine_tuning_and_diffusers() -> None:
    """The bound fails when the U-Net's encoder builds a graph or its decoder gets gradients of its weights."""
    held = {name: total_bytes(case) for name, case in cases(width=64, batch=2, latent=32).items()}
    assert held["ours"] <= 0.82 * held["fine-tune"]
    assert held["ours"] <= held["diffusers"]

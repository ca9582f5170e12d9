"""The memory of a training, counted at SD 1.5's layout and true width: it does not depend on the machine."""

from __future__ import annotations

import pytest
from torch._subclasses import FakeTensorMode

from standalone.train.cost import TRUE_WIDTH, cases, total_bytes


def test_memory_beside_fine_tuning_and_diffusers() -> None:
    """With batch 4 and 512x512, as the paper. Kept graphs of the locked encoder, or gradients of the decoder's weights,
    would show."""
    with FakeTensorMode():
        held = {name: total_bytes(case) for name, case in cases(TRUE_WIDTH, batch=4, latent=64).items()}
    assert held["ours"] <= 0.82 * held["fine-tune"]
    assert held["ours"] <= held["diffusers"]


@pytest.mark.parametrize("name", ["fine-tune", "ours", "diffusers"])
def test_counting_without_content_counts_the_same(name: str) -> None:
    with FakeTensorMode():
        counted = total_bytes(cases(width=32, batch=1, latent=16)[name])
    assert counted == total_bytes(cases(width=32, batch=1, latent=16)[name])

"""The memory of a training, counted at SD 1.5's layout and true width: it does not depend on the machine."""

from __future__ import annotations

from torch._subclasses import FakeTensorMode

from standalone.train.cost import TRUE_WIDTH, cases, kind_cases, total_bytes


def test_memory_beside_fine_tuning_and_diffusers() -> None:
    """With batch 4 and 512x512, as the paper. Kept graphs of the locked encoder, or gradients of the decoder's weights,
    would show."""
    with FakeTensorMode():
        held = {name: total_bytes(case) for name, case in cases(TRUE_WIDTH, batch=4, latent=64).items()}
    assert held["ours"] <= 0.77 * held["fine-tune"]
    assert held["ours"] <= held["diffusers"]


def test_counting_without_content_counts_the_same() -> None:
    def held() -> dict[str, int]:
        made = cases(32, 1, 8, levels=2) | kind_cases(32, 1, 8, ["control_lora"], levels=2)
        return {name: total_bytes(case) for name, case in made.items()}

    with FakeTensorMode():
        counted = held()
    assert counted == held()
    assert set(counted) == {"fine-tune", "ours", "diffusers", "control_lora"}

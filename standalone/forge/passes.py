"""What happens around a pass: memory is asked for, control objects are told."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from standalone.forge import memory
from standalone.forge.variants import Variant


def prepare(variant: Variant, patcher: Any, x: Tensor) -> None:
    """Loads the U-Net and what its control objects want beside it, then tells each of these that a pass begins."""
    rows, *rest = x.shape
    estimate = patcher.model_options.get("memory_peak_estimation_modifier", patcher.memory_required)
    needed = estimate([rows * 2, *rest])
    further = patcher.extra_preserved_memory_during_sampling
    models = patcher.extra_model_patchers_during_sampling
    newest = patcher.controlnet_linked_list
    if newest is not None:
        further += newest.inference_memory_requirements(patcher.model_dtype())
        models += newest.get_models()  # in place: a patcher that is sampled with twice names them twice
    load, _ = memory.BY_VARIANT[variant.name]
    if variant.name == "forge":
        load([patcher, *models], memory_required=needed, hard_memory_preservation=further)
    else:
        load([patcher, *models], memory_required=needed + further)
    for control in patcher.list_controlnets():
        control.pre_run(patcher.model, patcher.model.schedule.percent_to_sigma)


def cleanup(patcher: Any) -> None:
    for control in patcher.list_controlnets():
        control.cleanup()

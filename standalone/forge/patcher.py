"""Patchers: a model, and what a job changes about it without touching it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch

BYTES_PER_CELL = 16384 * 1.28
"""What a U-Net of SD1 is reckoned to need per latent cell and byte of a number."""


class ModelPatcher:
    """A model with the devices that it computes and rests on."""

    def __init__(
        self, model: Any, load_device: Any, offload_device: Any, size: int = 0, current_device: Any = None, **_: Any
    ) -> None:
        self.model = model
        self.load_device, self.offload_device = load_device, offload_device
        self.current_device = offload_device if current_device is None else current_device
        self.size = size or sum(x.numel() * x.element_size() for x in model.state_dict().values())
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def model_size(self) -> int:
        return self.size

    def clone(self) -> Any:
        """The same model with options of its own."""
        twin = type(self)(self.model, self.load_device, self.offload_device, self.size, self.current_device)
        twin.model_options = copy.deepcopy(self.model_options)
        return twin

    def is_clone(self, other: Any) -> bool:
        return getattr(other, "model", None) is self.model

    def model_dtype(self) -> torch.dtype | None:
        """None where the model does not say, as in Forge and Neo."""
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None


class UnetPatcher(ModelPatcher):
    """The U-Net's patcher. Control objects form a list by `previous_controlnet`, the newest first."""

    controlnet_linked_list: Any = None
    extra_concat_condition: Any = None
    extra_preserved_memory_during_sampling: int = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.extra_model_patchers_during_sampling: list[ModelPatcher] = []
        super().__init__(*args, **kwargs)

    def clone(self) -> UnetPatcher:
        """Shares the control objects, for they are a list that begins with the last one."""
        twin = super().clone()
        for name in ("controlnet_linked_list", "extra_concat_condition", "extra_preserved_memory_during_sampling"):
            setattr(twin, name, getattr(self, name))
        twin.extra_model_patchers_during_sampling += self.extra_model_patchers_during_sampling
        return twin

    def add_patched_controlnet(self, cnet: Any) -> None:
        previous, self.controlnet_linked_list = self.controlnet_linked_list, cnet
        cnet.set_previous_controlnet(previous)

    def list_controlnets(self) -> list[Any]:
        found, one = [], self.controlnet_linked_list
        while one is not None:
            found.append(one)
            one = one.previous_controlnet
        return found

    def add_extra_model_patcher_during_sampling(self, model_patcher: ModelPatcher) -> None:
        self.extra_model_patchers_during_sampling.append(model_patcher)

    def add_extra_preserved_memory_during_sampling(self, memory_in_bytes: int) -> None:
        self.extra_preserved_memory_during_sampling += memory_in_bytes

    def memory_required(self, input_shape: Any) -> float:
        rows, _, height, width = input_shape
        return BYTES_PER_CELL * rows * height * width * self.model.computation_dtype.itemsize

    # options

    def _append(self, options: dict[str, Any], name: str, value: Any, once: bool) -> None:
        values = options.setdefault(name, [])
        if not once or value not in values:
            values.append(value)

    def append_model_option(self, k: str, v: Any, ensure_uniqueness: bool = False) -> None:
        self._append(self.model_options, k, v, ensure_uniqueness)

    def append_transformer_option(self, k: str, v: Any, ensure_uniqueness: bool = False) -> None:
        self._append(self.model_options.setdefault("transformer_options", {}), k, v, ensure_uniqueness)

    def set_transformer_option(self, k: str, v: Any) -> None:
        self.model_options.setdefault("transformer_options", {})[k] = v

    def set_model_patch(self, patch: Any, name: str) -> None:
        patches = self.model_options.setdefault("transformer_options", {}).setdefault("patches", {})
        self._append(patches, name, patch, once=False)

    def add_block_modifier(self, modifier: Any, ensure_uniqueness: bool = False) -> None:
        self.append_transformer_option("block_modifiers", modifier, ensure_uniqueness)

    def set_model_input_block_patch(self, patch: Any) -> None:
        self.set_model_patch(patch, "input_block_patch")

    def set_model_output_block_patch(self, patch: Any) -> None:
        self.set_model_patch(patch, "output_block_patch")

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Any) -> None:
        self.model_options["model_function_wrapper"] = unet_wrapper_function


@dataclass
class ForgeObjects:
    """What a job works with. A job replaces what is in its copy, never the things themselves."""

    unet: Any
    clip: Any
    vae: Any
    clipvision: Any = None

    def shallow_copy(self) -> ForgeObjects:
        return replace(self)

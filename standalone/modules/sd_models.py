"""The loaded checkpoint, and swapping it: same object, new object, or an already loaded one."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

import torch
from modules import devices, errors, lowvram, script_callbacks, sd_latent_diffusion, sd_unet, shared
from modules.sd_checkpoints import (
    CheckpointInfo,
    checkpoint_aliases,
    checkpoint_tiles,
    checkpoints_list,
    get_closet_checkpoint_match,
    list_models,
    model_hash,
    model_path,
    read_state_dict,
    select_checkpoint,
)
from modules.sd_hijack import model_hijack
from torch import Tensor

__all__ = [
    "CheckpointInfo",
    "SkipWritingToConfig",
    "apply_alpha_schedule_override",
    "apply_token_merging",
    "checkpoint_aliases",
    "checkpoint_tiles",
    "checkpoints_list",
    "get_closet_checkpoint_match",
    "list_models",
    "load_model",
    "model_data",
    "model_hash",
    "model_path",
    "read_state_dict",
    "reload_model_weights",
    "select_checkpoint",
    "unload_model_weights",
]


class SkipWritingToConfig:
    """`with SkipWritingToConfig():` models are loaded without becoming the chosen checkpoint (refiner, hires)."""

    skip = False

    def __enter__(self) -> SkipWritingToConfig:
        self.previous, SkipWritingToConfig.skip = SkipWritingToConfig.skip, True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        SkipWritingToConfig.skip = self.previous


class SdModelData:
    """The current model and all models kept in memory, newest first."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.was_loaded_at_least_once = False
        self.loaded_sd_models: list[Any] = []
        self.sd_model: Any = None

    def get_sd_model(self) -> Any:
        """The model, loaded on first use; None when loading failed (the reason is printed)."""
        if not self.was_loaded_at_least_once:
            with self.lock:
                if self.sd_model is None and not self.was_loaded_at_least_once:
                    self._load_first()
        return self.sd_model

    def _load_first(self) -> None:
        try:
            load_model()
        except Exception as e:  # noqa: BLE001 - the page must come up without a model
            self.sd_model = None
            errors.display(e, "loading stable diffusion model")
            print("Stable diffusion model failed to load", file=sys.stderr)

    def set_sd_model(self, v: Any, already_loaded: bool = False) -> None:
        others = [x for x in self.loaded_sd_models if x is not v]
        self.loaded_sd_models = others if v is None else [v, *others]
        self.sd_model = v


model_data = SdModelData()


def get_empty_cond(sd_model: Any) -> Tensor:
    return sd_model.get_learned_conditioning([""])


def send_model_to_cpu(m: Any) -> None:
    if m is not None and m.lowvram:
        lowvram.send_everything_to_cpu()
    elif m is not None:
        m.to(devices.cpu)
    devices.torch_gc()


def send_model_to_trash(m: Any) -> None:
    """Frees the weights, whoever still holds the model."""
    m.to(device="meta")
    devices.torch_gc()


def send_model_to_device(m: Any) -> None:
    lowvram.apply(m)
    if not m.lowvram:
        m.to(devices.device)


def _settings(info: CheckpointInfo) -> dict[str, Any]:
    return sd_latent_diffusion.settings_of(info.filename, info.metadata)


def _finish_weights(model: Any, info: CheckpointInfo) -> None:
    """Precision, schedule and names after weights came into a model."""
    shorthash = info.calculate_shorthash()
    if not SkipWritingToConfig.skip:
        shared.opts.data["sd_model_checkpoint"] = info.title
    model.take_precision()
    apply_alpha_schedule_override(model)
    model.sd_model_hash = shorthash
    model.sd_model_checkpoint = info.filename
    model.sd_checkpoint_info = info
    shared.opts.data["sd_checkpoint_hash"] = info.sha256


def load_model(checkpoint_info: CheckpointInfo | None = None, already_loaded_state_dict: Any = None) -> Any:
    """Build a new model object; the present one, if any, is thrown away."""
    info = checkpoint_info or select_checkpoint()
    if model_data.sd_model is not None:
        send_model_to_trash(model_data.sd_model)
        model_data.sd_model = None
    weights = already_loaded_state_dict or read_state_dict(info.filename)
    model = sd_latent_diffusion.build(weights, _settings(info), model_hijack)
    del weights
    _finish_weights(model, info)
    send_model_to_device(model)
    model_hijack.hijack(model)
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    script_callbacks.model_loaded_callback(model)
    with devices.autocast(), torch.no_grad():
        model.cond_stage_model_empty_prompt = get_empty_cond(model)
    return model


def reuse_model_from_already_loaded(sd_model: Any, info: CheckpointInfo) -> Any:
    """The loaded model of this checkpoint (no callback), else the object to load its weights into, else None."""
    if sd_model is not None and sd_model.sd_checkpoint_info.filename == info.filename:
        return sd_model
    if shared.opts.sd_checkpoints_keep_in_cpu:
        send_model_to_cpu(sd_model)
    limit = int(shared.opts.sd_checkpoints_limit)
    found = None
    for model in reversed(model_data.loaded_sd_models.copy()):
        if model.sd_checkpoint_info.filename == info.filename:
            found = model
        elif len(model_data.loaded_sd_models) > limit > 0:
            model_data.loaded_sd_models.remove(model)
            send_model_to_trash(model)
    if found is not None:
        send_model_to_device(found)
        model_data.set_sd_model(found, already_loaded=True)
        if not SkipWritingToConfig.skip:
            shared.opts.data["sd_model_checkpoint"] = info.title
            shared.opts.data["sd_checkpoint_hash"] = info.sha256
        return found
    if limit > 1 and len(model_data.loaded_sd_models) < limit:
        model_data.sd_model = None
        return load_model(info)
    if model_data.loaded_sd_models:
        model_data.sd_model = model_data.loaded_sd_models.pop()
        return model_data.sd_model
    return None


def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None, forced_reload: bool = False) -> Any:
    """Make `info` (or the chosen checkpoint) the current model; nothing happens when it already is."""
    info = info or select_checkpoint()
    sd_model = sd_model or model_data.sd_model
    if sd_model is not None and sd_model.sd_model_checkpoint == info.filename and not forced_reload:
        return sd_model
    sd_model = reuse_model_from_already_loaded(sd_model, info)
    if not forced_reload and sd_model is not None and sd_model.sd_checkpoint_info.filename == info.filename:
        return sd_model
    previous = None if sd_model is None else sd_model.sd_checkpoint_info
    if sd_model is not None:
        sd_unet.apply_unet("None")
        send_model_to_cpu(sd_model)
        model_hijack.undo_hijack(sd_model)
    weights = read_state_dict(info.filename)
    config = sd_latent_diffusion.config_of(weights, _settings(info))
    if sd_model is None or config != sd_model.used_config:
        if sd_model is not None:
            send_model_to_trash(sd_model)
            model_data.sd_model = None
        return load_model(info, already_loaded_state_dict=weights)
    _load_into(sd_model, info, previous, weights)
    model_data.set_sd_model(sd_model)
    sd_unet.apply_unet()
    return sd_model


def _load_into(sd_model: Any, info: CheckpointInfo, previous: Any, weights: dict[str, Tensor]) -> None:
    try:
        sd_latent_diffusion.reload(sd_model, weights)
        _finish_weights(sd_model, info)
    except Exception:
        errors.report("Failed to load checkpoint, restoring previous")
        sd_latent_diffusion.reload(sd_model, read_state_dict(previous.filename))
        _finish_weights(sd_model, previous)
        raise
    finally:
        model_hijack.hijack(sd_model)
        if not sd_model.lowvram:
            sd_model.to(devices.device)
        script_callbacks.model_loaded_callback(sd_model)


def apply_token_merging(sd_model: Any, token_merging_ratio: float) -> None:
    """Token merging is not offered: a ratio above zero is refused instead of ignored."""
    if token_merging_ratio > 0:
        raise ValueError("token merging is not supported by this host; set token_merging_ratio to 0")


def rescale_zero_terminal_snr_abar(alphas_cumprod: Tensor) -> Tensor:
    """Schedule whose last step is pure noise (Lin et al., 2023)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    result = ((root - last) * (first / (first - last))) ** 2
    result[-1] = 4.8973451890853435e-08
    return result


def apply_alpha_schedule_override(sd_model: Any, p: Any = None) -> None:
    """Schedule options of the settings."""
    alphas = sd_model.alphas_cumprod_original.to(shared.device)
    if shared.opts.use_downcasted_alpha_bar:
        alphas = alphas.half()
        if p is not None:
            p.extra_generation_params["Downcast alphas_cumprod"] = True
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR":
        alphas = rescale_zero_terminal_snr_abar(alphas)
        if p is not None:
            p.extra_generation_params["Noise Schedule"] = shared.opts.sd_noise_schedule
    sd_model.alphas_cumprod = alphas


def unload_model_weights(sd_model: Any = None, info: Any = None) -> Any:
    send_model_to_cpu(sd_model or shared.sd_model)
    return sd_model

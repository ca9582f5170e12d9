"""Lays a variant over the freshly imported modules of the embedded host. They go when the host goes."""

from __future__ import annotations

import sys
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from modules import job_fields

from standalone.forge.variants import VARIANTS, Variant


def install(name: str) -> Variant:
    """Call it after the settings are read and before jobs are defined. Raises KeyError for an unknown name."""
    variant = VARIANTS[name]
    _add_job_fields()
    from standalone.forge import jobs, sampling

    _replace_model(variant)
    jobs.install(variant)
    sampling.install(variant)
    for package, names in _packages(variant).items():
        _enter(package, names)
    return variant


def _add_job_fields() -> None:
    job_fields.COMMON.append(("distilled_cfg_scale", float, 3.5))
    job_fields.COMMON_STATE |= {"modified_noise": None, "latents_after_sampling": list}
    job_fields.TXT2IMG += [
        ("hr_additional_modules", list | None, None),
        ("hr_cfg", float, 1.0),
        ("hr_distilled_cfg", float, 3.5),
    ]


def _replace_model(variant: Variant) -> None:
    from modules import sd_latent_diffusion, sd_models
    from modules.sd_hijack import StableDiffusionModelHijack

    from standalone.forge import engine, unet

    sd_latent_diffusion.UNetModel = unet.unet_class(variant)
    build, hijack = sd_latent_diffusion.build, StableDiffusionModelHijack.hijack

    @wraps(build)
    def build_engine(*args: Any, **kwargs: Any) -> Any:
        return engine.engine_of(build(*args, **kwargs), variant)

    def reload(sd_model: Any = None, info: Any = None, forced_reload: bool = False) -> Any:
        info = info or sd_models.select_checkpoint()
        present = sd_models.model_data.sd_model
        if present is not None and present.sd_model_checkpoint == info.filename and not forced_reload:
            return present
        with torch.inference_mode():
            return sd_models.load_model(info)

    fake = engine.FakeInitialModel()
    sd_latent_diffusion.build = build_engine
    sd_models.reload_model_weights = reload
    sd_models.apply_alpha_schedule_override = lambda sd_model, p=None: None
    StableDiffusionModelHijack.hijack = lambda self, m: hijack(self, getattr(m, "_ldm", m))
    if not variant.ldm_model:
        sd_models.SdModelData.get_sd_model = lambda self: fake if self.sd_model is None else self.sd_model


def _packages(variant: Variant) -> dict[str, dict[str, Any]]:
    """What extensions import, by module."""
    from modules import paths
    from modules.sd_latent_diffusion import UNetModel

    from standalone.forge import memory, patcher, unet

    module, _, network = variant.unet.rpartition(".")
    load, free = memory.BY_VARIANT[variant.name]
    known = ("get_torch_device", "unet_offload_device", "get_free_memory", "soft_empty_cache")
    management = {name: getattr(memory, name) for name in known} | {"load_models_gpu": load, "free_memory": free}
    version = {"version": variant.version} | ({"release": variant.release} if variant.release else {})
    preprocessors: dict[str, Any] = {}
    shared = {
        "supported_preprocessors": preprocessors,
        "supported_control_models": [],
        "add_supported_preprocessor": lambda one: preprocessors.__setitem__(one.name, one),
        "controlnet_dir": f"{paths.models_path}/ControlNet",
        "preprocessor_dir": f"{paths.models_path}/ControlNetPreprocessor",
    }
    common = {"modules_forge.forge_version": version, "modules_forge.shared": shared, module: {network: UNetModel}}
    if variant.core == "backend":
        return common | {
            "backend.memory_management": management,
            "backend.patcher.base": {"ModelPatcher": patcher.ModelPatcher},
            "backend.patcher.unet": {"UnetPatcher": patcher.UnetPatcher},
        }
    common[module]["forward_timestep_embed"] = unet.forward_timestep_embed
    return common | {
        "ldm_patched.modules.model_management": management,
        "ldm_patched.modules.model_patcher": {"ModelPatcher": patcher.ModelPatcher},
        "modules_forge.unet_patcher": {"UnetPatcher": patcher.UnetPatcher},
    }


def _enter(name: str, names: dict[str, Any]) -> None:
    """A module with these names, within packages that are made where they are missing."""
    parent, _, last = name.rpartition(".")
    if parent and parent not in sys.modules:
        _enter(parent, {"__path__": []})
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package="__path__" in names)
    vars(module).update(names)
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)

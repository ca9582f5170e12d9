"""`shared.sd_model` of this family: an engine around the embedded host's model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules import devices
from modules.sd_latent_diffusion import LatentDiffusion
from torch import Tensor

from standalone.forge.model import BaseModel, KModel, predictor_of, schedule_of
from standalone.forge.patcher import ForgeObjects, ModelPatcher, UnetPatcher
from standalone.forge.variants import Variant

FLAGS = ("is_sd1", "is_sd2", "is_sdxl", "is_sd3")


class FakeInitialModel:
    """What stands for the model until the first job loads one."""

    cond_stage_model = None
    chunk_length = 75

    def get_prompt_lengths_on_ui(self, prompt: str) -> tuple[int, int]:
        return len(prompt.split()), self.chunk_length


@dataclass
class Part:
    """The text encoder or the autoencoder, with its patcher."""

    patcher: ModelPatcher
    first_stage_model: Any = None
    cond_stage_model: Any = None
    latent_channels: int = 4


def _patcher(model: Any, kind: Any = ModelPatcher) -> Any:
    return kind(model, load_device=devices.device, offload_device=devices.cpu)


def forge_objects(model: LatentDiffusion, variant: Variant) -> ForgeObjects:
    kind, schedule = (BaseModel, schedule_of) if variant.core == "ldm_patched" else (KModel, predictor_of)
    noise = schedule(model.alphas_cumprod.clone(), model.parameterization == "v")
    wrapper = kind(model.model.diffusion_model, noise, devices.dtype_unet)
    vae, text = model.first_stage_model, model.cond_stage_model
    return ForgeObjects(
        unet=_patcher(wrapper, UnetPatcher),
        clip=Part(_patcher(text), cond_stage_model=text),
        vae=Part(_patcher(vae), first_stage_model=vae, latent_channels=model.latent_channels),
    )


def _take_objects(owner: Any, model: LatentDiffusion, variant: Variant) -> None:
    """Three sets: a batch starts from the original, each sampling from the one with extra networks applied."""
    owner.forge_objects_original = forge_objects(model, variant)
    owner.forge_objects = owner.forge_objects_original.shallow_copy()
    owner.forge_objects_after_applying_lora = owner.forge_objects_original.shallow_copy()


class ForgeDiffusionEngine:
    """Forge's and Neo's. There is no `model`; the U-Net is `forge_objects.unet.model.diffusion_model`."""

    lowvram = tiling_enabled = use_distilled_cfg_scale = False
    first_stage_model = cond_stage_model = None
    current_lora_hash = "[]"

    def __init__(self, model: LatentDiffusion, variant: Variant) -> None:
        self._ldm = model
        for name in FLAGS:
            setattr(self, name, getattr(model, name))
        self.is_inpaint = model.conditioning_key == "hybrid"
        self.conditioning_key, self.cond_stage_key = model.conditioning_key, model.cond_stage_key
        self.latent_channels, self.used_config = model.latent_channels, model.used_config
        self.sd_checkpoint_info: Any = None
        self.sd_model_hash: str | None = None
        self.sd_model_checkpoint: str | None = None
        _take_objects(self, model, variant)

    def to(self, *args: Any, **kwargs: Any) -> ForgeDiffusionEngine:
        self._ldm.to(*args, **kwargs)
        return self

    def take_precision(self) -> None:
        self._ldm.take_precision()

    def ema_scope(self) -> Any:
        return self._ldm.ema_scope()

    def get_learned_conditioning(self, prompt: list[str]) -> Tensor:
        return self._ldm.get_learned_conditioning(prompt)

    def get_prompt_lengths_on_ui(self, prompt: str) -> tuple[int, int]:
        text = self._ldm.cond_stage_model
        _, count = text.process_texts([prompt])
        return count, text.get_target_prompt_token_count(count)

    def encode_first_stage(self, x: Tensor) -> Tensor:
        return scaled_latents(self._ldm, x)

    def get_first_stage_encoding(self, x: Tensor) -> Tensor:
        return x

    def decode_first_stage(self, x: Tensor) -> Tensor:
        return self._ldm.decode_first_stage(x)


def scaled_latents(model: LatentDiffusion, x: Tensor) -> Tensor:
    """Latents (B, 4, h, w), sampled and scaled, of pictures x (B, 3, H, W) in -1..1."""
    posterior = LatentDiffusion.encode_first_stage(model, x)
    return LatentDiffusion.get_first_stage_encoding(model, posterior)


class PatchedLatentDiffusion(LatentDiffusion):
    """reForge's and Classic's: an LDM model that has the objects too, whose encoder gives scaled latents."""

    forge_objects: ForgeObjects

    def encode_first_stage(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return scaled_latents(self, x)

    def get_first_stage_encoding(self, posterior: Any) -> Tensor:
        return posterior


def engine_of(model: LatentDiffusion, variant: Variant) -> Any:
    """The model as this variant's extensions see it."""
    if not variant.ldm_model:
        return ForgeDiffusionEngine(model, variant)
    model.__class__ = PatchedLatentDiffusion
    _take_objects(model, model, variant)
    return model

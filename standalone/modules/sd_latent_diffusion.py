"""The model object extensions see as `shared.sd_model`: an SD 1.x checkpoint of any width."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import devices, sd_autoencoder, sd_text_encoder
from modules.sd_autoencoder import DiagonalGaussianDistribution, part
from modules.sd_clip import TextConditioner
from torch import Tensor, nn

from lib_controlnet.nets.config import UNetConfig
from lib_controlnet.nets.unet import UNetModel

UNET_PREFIX = "model.diffusion_model."
CONDITIONING = {4: "crossattn", 8: "hybrid", 9: "hybrid"}


def linear_alphas_cumprod(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Products of alphas of Stable Diffusion's schedule, float32 (steps,)."""
    betas = np.linspace(start**0.5, end**0.5, steps, dtype=np.float64) ** 2
    return torch.tensor(np.cumprod(1.0 - betas), dtype=torch.float32)


class DiffusionWrapper(nn.Module):
    """Calls the U-Net as `conditioning_key` says; its pre-hooks see every call (medvram)."""

    def __init__(self, diffusion_model: nn.Module, conditioning_key: str) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model
        self.conditioning_key = conditioning_key

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: list[Tensor] | None = None,
        c_crossattn: list[Tensor] | None = None,
        c_adm: Tensor | None = None,
    ) -> Tensor:
        context = torch.cat(c_crossattn or [], 1)
        if self.conditioning_key == "hybrid":
            x = torch.cat([x, *(c_concat or [])], dim=1)
        return self.diffusion_model(x, t, context=context)


class LatentDiffusion(nn.Module):
    """U-Net, VAE and text encoder with the calls of LDM's class of this name."""

    alphas_cumprod: Tensor
    first_stage_model: Any
    cond_stage_model: Any
    model: Any

    def __init__(
        self, unet: UNetModel, first_stage: nn.Module, cond_stage: nn.Module, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        channels = unet.config.in_channels
        if channels not in CONDITIONING:
            raise ValueError(f"the checkpoint's U-Net takes {channels} channels; this host knows 4, 8 and 9")
        self.model = DiffusionWrapper(unet, CONDITIONING[channels])
        self.first_stage_model = first_stage
        self.cond_stage_model = cond_stage
        self.cond_stage_key = "edit" if channels == 8 else "txt"
        self.parameterization: str = settings["parameterization"]
        self.scale_factor: float = settings["scale_factor"]
        self.latent_channels = unet.config.out_channels
        self.num_timesteps = 1000
        self.register_buffer("alphas_cumprod", linear_alphas_cumprod(), persistent=False)
        self.alphas_cumprod_original = self.alphas_cumprod
        self.is_sd1, self.is_sd2, self.is_sdxl, self.is_ssd, self.is_sd3 = True, False, False, False, False
        self.is_sdxl_inpaint = False
        self.lowvram = False
        self.used_config: Any = None
        self.sd_checkpoint_info: Any = None
        self.sd_model_hash: str | None = None
        self.sd_model_checkpoint: str | None = None
        self.cond_stage_model_empty_prompt: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    @property
    def dtype(self) -> torch.dtype:
        return devices.dtype

    @property
    def conditioning_key(self) -> str:
        return self.model.conditioning_key

    def take_precision(self) -> None:
        """Each part in the number format that the host computes it in."""
        self.model.to(devices.dtype_unet)
        self.cond_stage_model.to(devices.dtype)
        self.first_stage_model.to(devices.dtype_vae)

    def apply_model(self, x_noisy: Tensor, t: Tensor, cond: Any, **kwargs: Any) -> Tensor:
        """Noise (or velocity) of x_noisy (B, C, h, w) at t (B,); cond = {"c_crossattn": [...], "c_concat": [...]}."""
        dtype = devices.dtype_unet
        if not isinstance(cond, dict):
            key = "c_concat" if self.model.conditioning_key == "concat" else "c_crossattn"
            cond = {key: cond if isinstance(cond, list) else [cond]}
        cast = {k: [x.to(dtype) for x in v] if isinstance(v, list) else v.to(dtype) for k, v in cond.items()}
        with devices.autocast():
            result = self.model(x_noisy.to(dtype), t.to(dtype), **cast)
        return result.float() if devices.unet_needs_upcast else result

    def get_learned_conditioning(self, c: list[str]) -> Tensor:
        return self.cond_stage_model(c)

    def encode_first_stage(self, x: Tensor) -> DiagonalGaussianDistribution:
        """Posterior of pictures x (B, 3, H, W) in -1..1."""
        return self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, posterior: DiagonalGaussianDistribution | Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w), sampled."""
        z = posterior if isinstance(posterior, Tensor) else posterior.sample()
        return self.scale_factor * z

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """Pictures (B, 3, 8h, 8w) about -1..1 of scaled latents."""
        return self.first_stage_model.decode(1.0 / self.scale_factor * z)

    @contextlib.contextmanager
    def ema_scope(self, context: Any = None) -> Iterator[None]:
        yield


def _sidecar(filename: str) -> dict[str, Any]:
    """`model.params` of the YAML beside a checkpoint, if there is one."""
    file = Path(filename).with_suffix(".yaml")
    if not file.is_file():
        return {}
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # its text quotes the file
        raise ValueError(f"{file.name} beside the checkpoint is no YAML") from error
    return (loaded.get("model") or {}).get("params") or {}


def settings_of(filename: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What weights do not tell: prediction type and latent scale; from the YAML, then the file's metadata."""
    params = _sidecar(filename)
    prediction = params.get("parameterization") or metadata.get("modelspec.prediction_type") or "eps"
    scale = params.get("scale_factor") or metadata.get("scale_factor") or 0.18215
    return {
        "parameterization": "v" if str(prediction) in ("v", "v_prediction") else "eps",
        "scale_factor": float(scale),
    }


def config_of(state_dict: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """Equal for checkpoints whose weights fit into the same modules."""
    return (
        UNetConfig.from_weights(state_dict, prefix=UNET_PREFIX),
        sd_autoencoder.config_key(state_dict),
        sd_text_encoder.config_key(state_dict),
        tuple(sorted(settings.items())),
    )


def build(state_dict: Mapping[str, Tensor], settings: Mapping[str, Any], hijack: Any) -> LatentDiffusion:
    """A model with the weights of the checkpoint, in their storage precision, on the CPU."""
    config = config_of(state_dict, settings)
    with torch.device("meta"):
        unet = UNetModel(config[0])
    unet.load_state_dict(part(state_dict, UNET_PREFIX), strict=True, assign=True)
    text = TextConditioner(sd_text_encoder.build(state_dict), hijack)
    model = LatentDiffusion(unet, sd_autoencoder.build(state_dict), text, settings)
    model.used_config = config
    take_schedule(model, state_dict)
    return model.eval().requires_grad_(False)


def reload(model: LatentDiffusion, state_dict: Mapping[str, Tensor]) -> None:
    """Weights of another checkpoint of the same structure into the same modules."""
    model.model.diffusion_model.load_state_dict(part(state_dict, UNET_PREFIX), strict=True)
    sd_autoencoder.reload(model.first_stage_model, state_dict)
    sd_text_encoder.reload(model.cond_stage_model.wrapped, state_dict)
    take_schedule(model, state_dict)


def take_schedule(model: LatentDiffusion, state_dict: Mapping[str, Tensor]) -> None:
    """The checkpoint's own noise schedule when it carries one."""
    own = state_dict.get("alphas_cumprod")
    alphas = own.float() if own is not None and own.shape == (1000,) else linear_alphas_cumprod()
    model.alphas_cumprod = alphas.to(model.alphas_cumprod.device)
    model.alphas_cumprod_original = model.alphas_cumprod

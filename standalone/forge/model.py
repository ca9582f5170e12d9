"""The U-Net with its noise levels: from a noisy picture to a clean one."""

from __future__ import annotations

from typing import Any

import torch
from modules.k_diffusion_mount import append_dims, external
from torch import Tensor

ALL, NONE = 999999999.9, 0.0
"""Sigmas that no step exceeds, and that none goes below."""


class Schedule(external.DiscreteSchedule):
    """Sigmas of the trained timesteps, and what the U-Net's input and output mean at them: noise, unless changed."""

    sigmas: Tensor
    sigma_data = 1.0

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__(((1 - alphas_cumprod) / alphas_cumprod) ** 0.5, quantize=True)

    def timestep(self, sigma: Tensor) -> Tensor:
        """The nearest trained timestep, int64."""
        return self.sigma_to_t(sigma)

    def sigma(self, timestep: Tensor) -> Tensor:
        return self.t_to_sigma(torch.clamp(timestep, min=0, max=len(self.sigmas) - 1))

    def percent_to_sigma(self, percent: float) -> float:
        """Where sampling is when this share of the trained timesteps lies behind it."""
        if percent <= 0:
            return ALL
        return NONE if percent >= 1 else self.sigma(torch.tensor((1 - percent) * 999.0)).item()

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return noise / append_dims(sigma**2 + 1, noise.ndim) ** 0.5

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return model_input - model_output * append_dims(sigma, model_output.ndim)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        return noise * (torch.sqrt(1 + sigma**2) if max_denoise else sigma) + latent_image


class V_PREDICTION(Schedule):  # noqa: N801 - extensions look for this name
    """Of a U-Net that predicts velocity."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        at = append_dims(sigma, model_output.ndim)
        return model_input / (at**2 + 1) - model_output * at / (at**2 + 1) ** 0.5


def schedule_of(alphas_cumprod: Tensor, velocity: bool) -> Schedule:
    """The schedule of reForge's and Classic's, whose class says what is predicted."""
    return V_PREDICTION(alphas_cumprod) if velocity else Schedule(alphas_cumprod)


def predictor_of(alphas_cumprod: Tensor, velocity: bool) -> Schedule:
    """The schedule of Forge's and Neo's, which says what is predicted in an attribute."""
    made: Any = schedule_of(alphas_cumprod, velocity)
    made.register_buffer("alphas_cumprod", alphas_cumprod)
    made.prediction_type = "v_prediction" if velocity else "epsilon"
    return made


class DenoisingModel(torch.nn.Module):
    """What a U-Net's patcher holds."""

    def __init__(self, diffusion_model: Any, schedule: Schedule, dtype: torch.dtype) -> None:
        super().__init__()
        self.diffusion_model, self.schedule, self.computation_dtype = diffusion_model, schedule, dtype

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **further: Any,
    ) -> Tensor:
        """The clean latents in x (R, C, h, w) at sigmas t (R,).

        Whatever else comes and has a dtype goes to the U-Net in its own, whole numbers as they are.
        """
        dtype = self.computation_dtype
        scaled = self.schedule.calculate_input(t, x)
        seen = scaled if c_concat is None else torch.cat([scaled, c_concat], dim=1)
        for name, value in further.items():
            if hasattr(value, "dtype") and value.dtype not in (torch.int, torch.long):
                further[name] = value.to(dtype)
        output = self.diffusion_model(
            seen.to(dtype),
            self.schedule.timestep(t).float(),
            context=c_crossattn.to(dtype),
            control=control,
            transformer_options={} if transformer_options is None else transformer_options,
            **further,
        )
        return self.schedule.calculate_denoised(t, output.float(), x)


class KModel(DenoisingModel):
    """Under Forge's and Neo's names."""

    config = None

    @property
    def predictor(self) -> Schedule:
        return self.schedule

    @property
    def storage_dtype(self) -> torch.dtype:
        return self.computation_dtype


class BaseModel(DenoisingModel):
    """Under reForge's and Classic's names."""

    manual_cast_dtype = None

    @property
    def model_sampling(self) -> Schedule:
        return self.schedule

    def get_dtype(self) -> torch.dtype:
        return self.computation_dtype

"""The checkpoint a control is trained for: U-Net, auto-encoder, text encoders, and what the U-Net predicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..core.errors import ModelFileError
from ..loading.build import fill
from ..loading.lazy import outlines
from ..loading.reader import WeightFile, read_weights
from ..loading.whole import VAE, unet_of
from ..nets.config import UNetConfig
from ..nets.unet import UNetModel
from .config import BaseOptions, TrainConfig
from .errors import TrainingError
from .kinds import Control, kind_named
from .noise import NoiseSchedule, Prediction
from .store import digest_of
from .text import TEXT_KEYS, TextEncoders, load_text_encoders

_SCALES = {"sdxl": 0.13025}
_SCALE_KEYS = ("scale_factor", "demo.scale_factor")


class Autoencoder:
    """diffusers' AutoencoderKL; pictures (B, 3, 8h, 8w) in -1..1, latents (B, 4, h, w) as the U-Net sees them."""

    def __init__(self, model: Any, scale: float) -> None:
        self.model = model
        self.scale = scale

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """The mean of the posterior, scaled: what is encoded once and for all need not be a random sample."""
        weight = next(self.model.parameters())
        return self.model.encode(pictures.to(weight)).latent_dist.mean * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        weight = next(self.model.parameters())
        return self.model.decode(latents.to(weight) / self.scale).sample.clamp(-1, 1)

    def decode_with_graph(self, latents: Tensor) -> Tensor:
        """As `decode`, unclamped, for what learns from the picture."""
        return self.model.decode(latents.to(next(self.model.parameters())) / self.scale).sample

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.model.config.latent_channels

    def to(self, device: torch.device | str) -> Autoencoder:
        """Moves the network."""
        self.model.to(device)
        return self


@dataclass(frozen=True, eq=False)
class Base:
    """The networks of a checkpoint in float32 on the processor; none asks for a gradient."""

    path: Path
    unet: UNetModel
    autoencoder: Autoencoder
    noise: NoiseSchedule
    weights: Mapping[str, Tensor]

    @cached_property
    def text(self) -> TextEncoders:
        """Read when it is first asked for: a resumed training finds all its prompts encoded."""
        return load_text_encoders(self.weights)

    @cached_property
    def autoencoder_digest(self) -> str:
        """Follows from all that decides what a picture's latent is."""
        own = self.autoencoder.model.state_dict()
        encoder = {key: value for key, value in own.items() if key.startswith(("encoder.", "quant_conv."))}
        return f"{digest_of(encoder)}:{self.autoencoder.scale}"

    @cached_property
    def text_digest(self) -> str:
        """Follows from the text encoders' weights."""
        return digest_of({key: self.weights[key] for key in self.weights if key.startswith(TEXT_KEYS)})

    @property
    def kind(self) -> str:
        """As ModelSpec names it."""
        return architecture(self.unet.config)


def architecture(config: UNetConfig) -> str:
    """ModelSpec's name of the base: XL takes `y`, SD 2.x has heads of 64 channels, SD 1.x the rest."""
    if config.adm_channels is not None:
        return "stable-diffusion-xl-v1-base"
    return "stable-diffusion-v2" if config.head_dim else "stable-diffusion-v1"


def load_base(options: BaseOptions) -> Base:
    """Read the checkpoint. Raises ModelFileError or TrainingError where something is missing in it."""
    file, weights, config = _read(options)
    unet = fill(lambda: UNetModel(config), weights, torch.float32, "cpu", name=file.path.name)
    noise = NoiseSchedule.scaled_linear(prediction=_prediction(options, file, unet))
    return Base(options.checkpoint, unet, _loaded_autoencoder(options, file, config), noise, file.weights)


def load_encoders(options: BaseOptions) -> Base:
    """The same for who only encodes: the U-Net has its sizes and no content, and nobody asks what it predicts."""
    file, _, config = _read(options)
    with torch.device("meta"):
        unet = UNetModel(config)
    texts = {key: value for key, value in file.weights.items() if key.startswith(TEXT_KEYS)}
    noise = NoiseSchedule.scaled_linear()
    return Base(options.checkpoint, unet, _loaded_autoencoder(options, file, config), noise, texts)


def _read(options: BaseOptions) -> tuple[WeightFile, Mapping[str, Tensor], UNetConfig]:
    """The checkpoint, the U-Net in it, and its sizes."""
    file = read_weights(options.checkpoint)
    weights = unet_of(file.weights, options.checkpoint, "base.checkpoint")
    config = UNetConfig.from_weights(outlines(weights))
    if config.in_channels != 4:
        raise TrainingError(
            "only checkpoints whose U-Net takes 4 channels can be trained on",
            field="base.checkpoint",
            found=f"{config.in_channels} channels (an inpainting or pix2pix model)",
            remedy="use the plain model of the same family; the ControlNet works with both",
        )
    return file, weights, config


def _loaded_autoencoder(options: BaseOptions, file: WeightFile, config: UNetConfig) -> Autoencoder:
    vae_file = read_weights(options.vae) if options.vae else file
    return Autoencoder(_autoencoder(vae_file), _scale(file, config))


def new_control(base: Base, config: TrainConfig) -> Control:
    """The control to be trained, of the kind asked for; what is drawn for it follows from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return kind_named(config.control.kind).new(base.unet, config)


def load_autoencoder(file: Path) -> Autoencoder:
    """That of a checkpoint, or of a VAE's own file, for what only goes through it. Raises ModelFileError."""
    return Autoencoder(_autoencoder(read_weights(file)), 1.0)


def _scale(file: WeightFile, config: UNetConfig) -> float:
    """Factor between the auto-encoder's latents and the U-Net's: stated by the file, else that of the family."""
    stated = next((file.metadata[key] for key in _SCALE_KEYS if key in file.metadata), None)
    return float(stated) if stated else _SCALES["sdxl"] if config.adm_channels is not None else 0.18215


def _autoencoder(file: WeightFile) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    own, sizes = autoencoder_sizes(file)
    model: Any = AutoencoderKL(**sizes)
    named = {VAE + key: value.float() for key, value in own.items()}
    model.load_state_dict(convert_ldm_vae_checkpoint(named, sizes), strict=True)
    return model.eval().requires_grad_(False)


def autoencoder_sizes(file: WeightFile) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights of the auto-encoder in `file`, arguments of diffusers' AutoencoderKL). Raises ModelFileError."""
    keys = [key for key in file.weights if not key.startswith(("model.", "cond"))]
    own = {key.removeprefix(VAE): file.weights[key] for key in keys}
    if "decoder.conv_in.weight" not in own:
        raise ModelFileError(f'"{file.path.name}" has no VAE', field="base.vae", found="no decoder.conv_in.weight",
                             remedy="name a file with one in base.vae")  # fmt: skip
    levels = 1 + max(int(match[1]) for key in own if (match := re.match(r"decoder\.up\.(\d+)\.", key)))
    blocks = sum(f"decoder.up.0.block.{index}.conv2.weight" in own for index in range(16))
    widths = tuple(own[f"decoder.up.{i}.block.{blocks - 1}.conv2.weight"].shape[0] for i in range(levels))
    sizes: dict[str, Any] = {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": blocks - 1,
        "latent_channels": own["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": 32,
    }
    return own, sizes


@torch.no_grad()
def _prediction(options: BaseOptions, file: WeightFile, unet: UNetModel) -> Prediction:
    """What the U-Net answers with: asked for, stated in the file, or, for SD 2.x, found by asking it."""
    if options.prediction != "auto":
        return cast("Prediction", options.prediction)
    if "v_pred" in file.weights or file.metadata.get("modelspec.prediction_type") in ("v", "v_prediction"):
        return "velocity"
    if unet.config.context_dim != 1024:
        return "epsilon"
    # A velocity model answers a constant latent at the last step with about its negative, an epsilon model with about
    # itself (AUTOMATIC1111, sd_models_config.py, is_using_v_parameterization_for_sd2).
    x = torch.full((1, 4, 8, 8), 0.5)
    answer = unet(x, torch.tensor([999]), torch.full((1, 2, 1024), 0.5))
    return "velocity" if (answer - x).mean().item() < -1 else "epsilon"

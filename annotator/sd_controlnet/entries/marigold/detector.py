"""diffusers' pipeline for Marigold, from files that are found, checked and read as every other preprocessor's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...images import Array, Pixels, grey_to_rgb, resize_and_pad
from ...networks import checked, fill, read_weights, ready, to_tensor
from ...renaming import Weights, as_installed
from ...spec import AnnotatorError, Runtime, WeightFile
from ...weights import find

STEPS = 20
SEED = 0
_EMPTY_PROMPT = (49406, 49407)
"""CLIP's tokens of the text's beginning and end."""
_NEWER_ATTENTION = (
    (r"(\.attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(\.attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(\.attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
)
"""From the names that diffusers had for its autoencoder's attention before 0.15."""


class Marigold:
    """Forge's settings: 20 steps at the picture's own size, near is white. It begins with noise: ours is always the
    same, so that a picture has one map."""

    def __init__(self, runtime: Runtime, parts: Mapping[str, tuple[WeightFile, ...]]) -> None:
        self._runtime = runtime
        self._parts = parts

    def __call__(
        self,
        image: Array,
        *,
        resolution: int,
        params: tuple[float, ...] = (),
        mask: Pixels | None = None,
        rng_seed: int = 0,
    ) -> Pixels:
        """The map, (h, w, 3)."""
        padded, cut = resize_and_pad(image, resolution)
        network: Any = self._runtime.network("marigold", self._load)
        far = network(to_tensor(padded, self._runtime) / 255.0, self._counted)
        return grey_to_rgb(cut(((1.0 - far) * 255.0).clip(0, 255).astype(np.uint8)))

    def _counted(self, steps: Any, **_described: Any) -> Iterator[Any]:
        """In the place of diffusers' bar in the console, which it draws about its steps."""
        for number, step in enumerate(steps):
            self._runtime.stage(number / len(steps))
            yield step

    def _load(self) -> _Loaded:
        for part in self._parts.values():  # all of them before gigabytes are read, and the library, which takes long
            for weight in part:
                find(weight, self._runtime)
        diffusers: Any = importlib.import_module("diffusers")
        schedule, _ = self._configuration("scheduler")
        made = diffusers.MarigoldDepthPipeline(
            unet=self._part("unet", diffusers.UNet2DConditionModel),
            vae=self._part("vae", diffusers.AutoencoderKL),
            scheduler=diffusers.DDIMScheduler.from_config(schedule),
            text_encoder=None,
            tokenizer=None,
            prediction_type="depth",
        )
        return ready(_Loaded(made, self._empty_prompt()), self._runtime)

    def _empty_prompt(self) -> Tensor:
        """(1, 2, C): all that is ever asked of the text's encoder, which is forgotten then."""
        from transformers import CLIPTextConfig, CLIPTextModel

        configuration, _ = self._configuration("text_encoder")
        encoder = CLIPTextModel(CLIPTextConfig(**configuration))
        path = find(self._parts["text_encoder"][1], self._runtime)
        weights = as_installed(read_weights(path), encoder, ((r"^text_model\.", ""),))
        own = encoder.state_dict()
        # 0, 1, 2, ...: in some versions of transformers a part of the weights
        kept = {name: value for name, value in weights.items() if name in own or not name.endswith("position_ids")}
        fill(encoder, {**{name: own[name] for name in own if name.endswith("position_ids")}, **kept}, path)
        with torch.no_grad():
            return encoder.float().eval()(torch.tensor([_EMPTY_PROMPT]))[0]

    def _part(self, part: str, kind: Any) -> Any:
        """A network of diffusers."""
        configuration, path = self._configuration(part)
        try:
            network = kind.from_config(configuration)
        except (TypeError, ValueError) as error:
            raise AnnotatorError(
                f"{path} does not describe Marigold's {part}", found=str(error), remedy="delete it and get it again"
            ) from error
        path = find(self._parts[part][1], self._runtime)
        weights: Weights = as_installed(read_weights(path), network, _NEWER_ATTENTION)
        return fill(network, weights, path)

    def _configuration(self, part: str) -> tuple[dict[str, Any], Path]:
        path = find(self._parts[part][0], self._runtime)
        try:
            return json.loads(path.read_text(encoding="utf-8")), path
        except ValueError as error:
            raise AnnotatorError(
                f"{part}/{path.name} cannot be read: it is damaged or truncated",
                found=str(error),
                remedy=f"delete {path} and get it again",
            ) from error


class _Loaded(nn.Module):
    """The pipeline as a network, whose parts the store moves. empty: what CLIP says of the empty prompt."""

    empty: Tensor

    def __init__(self, pipeline: Any, empty: Tensor) -> None:
        super().__init__()
        self._pipeline = pipeline
        self.unet: nn.Module = pipeline.unet
        self.vae: nn.Module = pipeline.vae
        self.register_buffer("empty", empty)

    def forward(self, pixels: Tensor, counted: Any) -> Array:
        """(1, 3, H, W) in 0..1 to depth (H, W) in 0..1, far is 1; `counted` goes over the steps."""
        pipeline = self._pipeline
        pipeline.progress_bar, pipeline.empty_text_embedding = counted, self.empty
        try:
            found = pipeline(
                pixels,
                num_inference_steps=STEPS,
                processing_resolution=0,
                generator=torch.Generator().manual_seed(SEED),
            )
        finally:  # neither a tensor of the device nor the caller's runtime is to outlive the call
            pipeline.progress_bar = pipeline.empty_text_embedding = None
            pipeline.scheduler.set_timesteps(STEPS)
        return checked(found.prediction[0, :, :, 0])

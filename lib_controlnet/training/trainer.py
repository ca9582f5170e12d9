"""The training loop of a control: draw, predict, compare, step. Device and scale are accelerate's business."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..nets.unet import UNetModel
from .ahead import Ahead
from .average import MovingAverage
from .chance import Draw, Order, draw, rows_of, step_generator
from .controlled import ControlledUNet
from .dataset import Batch, ControlDataset
from .errors import NotFinite, Stopped, TrainingError
from .kinds import Control
from .narrow import narrow_base
from .noise import NoiseSchedule
from .optimizer import make_optimizer
from .options import TrainOptions
from .reward import Reward


@dataclass(frozen=True)
class Progress:
    """After an optimizer step: `step` counts from 1; `loss` is the mean over the step's pictures."""

    step: int
    loss: float
    rate: float
    gradient_norm: float


class ControlTrainer:
    """Trains `control` so that the locked `unet`, steered by it, predicts the noise of the data set's pictures.

    All chance follows from the options' seed and the step (see chance.py), so the same options on the same machine
    give the same weights, in one go or resumed, in one process or, up to rounding, in several.
    """

    def __init__(
        self,
        unet: UNetModel,
        control: Control,
        data: ControlDataset,
        noise: NoiseSchedule,
        options: TrainOptions,
        accelerator: Accelerator | None = None,
        reward: Reward | None = None,
    ) -> None:
        self.accelerator = accelerator or Accelerator(mixed_precision=options.precision)
        self.unet, self.control, self.noise, self.options = unet, control, noise, options
        self.step, self._reward = 0, reward
        self._stopping: Callable[[], bool] | None = None
        self.whole = True
        self.turn_to(data)
        model = ControlledUNet(unet, control, train_decoder=not options.sd_locked)
        self._check_device()
        set_precision(model, options)
        if options.checkpointing:
            unet.use_checkpointing()
            control.use_checkpointing()
        self.trained = [*control.trained(), *model.decoder_parameters()]
        self.model: Any = self.accelerator.prepare_model(model)
        self.optimizer: Any = self.accelerator.prepare_optimizer(make_optimizer(model, options))
        self.average = MovingAverage(self.trained, options.average_decay) if options.average_decay else None

    def turn_to(self, data: ControlDataset, first: int = 0, window: int | None = None) -> None:
        """Train on `data`, whose order begins at step `first`; of a `window` of a stream, until each was seen once."""
        options = self.options
        self.data, self._first = data, first
        self.order = Order(data.groups, options.batch_size * self.accelerator.num_processes, options.seed, window)
        steps = -(-self.order.batches_per_epoch // options.accumulation)
        self.until = None if window is None else first + steps
        self._parts = Ahead(self._part)

    @property
    def used_up(self) -> bool:
        """The window's pictures were all seen."""
        return self.until is not None and self.step >= self.until

    def _check_device(self) -> None:
        accelerator, options = self.accelerator, self.options
        if options.precision == "fp16" and accelerator.device.type == "cpu":
            raise TrainingError("fp16 cannot be trained on a processor", field="train.precision", found="fp16",
                                remedy='use "bf16" or "no"')  # fmt: skip
        if options.base_weights == "fp8" and accelerator.device.type not in ("cpu", "cuda", "xpu"):
            raise TrainingError("this device knows no float8", field="train.base_weights",
                                found=accelerator.device.type, remedy='use "nf4" or "whole"')  # fmt: skip
        if options.fused_backward and accelerator.num_processes > 1:
            raise TrainingError("fused_backward is for one process", field="train.fused_backward",
                                found=f"{accelerator.num_processes} processes", remedy="set it to false")  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def run(self, watch: Callable[[Progress], None] | None = None) -> None:
        """Train to the last step; `watch` sees every step and may raise to stop."""
        while self.step < self.options.steps:
            progress = self.train_step()
            if watch is not None:
                watch(progress)

    def train_step(self, stopping: Callable[[], bool] | None = None) -> Progress:
        """One optimizer step; `whole` is False while it may have moved some of the weights and not yet all.

        Raises NotFinite where the loss or the gradient is no number, and Stopped where `stopping` says so between two
        passes; the weights are then as they were.
        """
        self._stopping = stopping if self.accelerator.num_processes == 1 else None
        factor = self.options.factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward()
        if not torch.isfinite(loss):
            raise _diverged(f"the loss of step {self.step + 1} is {loss.item()}")
        limit = self.options.clip_norm or float("inf")
        norm: Any = self.accelerator.clip_grad_norm_(self.trained, limit)
        if self.accelerator.scaler is None and not torch.isfinite(torch.as_tensor(norm)):
            raise _diverged(f"the gradient's norm in step {self.step + 1} is {float(norm)}")
        self.whole = False
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.step += 1
        self.whole = True
        return Progress(self.step, loss.item(), self.optimizer.param_groups[0]["lr"], float(norm))

    def _backward(self) -> Tensor:
        """Gradients of all passes of this step, averaged; returns the loss over all processes, a scalar."""
        passes = self.options.accumulation
        losses: list[Tensor] = []
        for part in range(passes):
            if part and self._stopping is not None and self._stopping():
                raise Stopped
            number = self.step * passes + part
            last = self.options.steps if self.until is None else min(self.until, self.options.steps)
            batch, chance = self._parts(number, more=number + 1 < last * passes)
            batch, chance = batch.to(self.device), chance.to(self.device)
            with self._syncing(part == passes - 1):
                loss = self.loss(batch, chance)
                if self.options.fused_backward and not torch.isfinite(loss):
                    raise _diverged(f"the loss of step {self.step + 1} is {loss.item()}")
                self.whole = not self.options.fused_backward
                self.accelerator.backward(loss / passes)
            losses.append(loss.detach() / chance.share)
        mean: Any = self.accelerator.reduce(torch.stack(losses).mean(), "mean")
        return mean

    def _syncing(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients in the last pass only."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)

    def _part(self, number: int) -> tuple[Batch, Draw]:
        """This process's rows of pass `number`, counted over all steps."""
        generator = step_generator(self.options.seed, *divmod(number, self.options.accumulation))
        indices = self.order.indices(number - self._first * self.options.accumulation)
        accelerator = self.accelerator
        rows, counts = rows_of(len(indices), accelerator.process_index, accelerator.num_processes)
        batch = self.data.batch(indices[rows], generator)
        shape = (len(indices), *batch.latents.shape[1:])
        options = self.options
        chance = draw(generator, shape, self.noise.steps, options.empty_prompts, cubic=options.timesteps == "cubic",
                      offset_noise=options.offset_noise)  # fmt: skip
        share = self.order.share(indices)
        weights = torch.tensor(counts) * (share * accelerator.num_processes / len(indices))
        return batch, chance.rows(rows, weights, share)

    def loss(self, batch: Batch, chance: Draw) -> Tensor:
        """Weighted mean squared error of the prediction, a scalar: of a small batch the share that it counts for."""
        return diffusion_loss(self.model, self.noise, self.options, batch, chance, self._reward)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on to the bit."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "trained": [parameter.detach() for parameter in self.trained],
            "optimizer": self.optimizer.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def check_finite(self) -> None:
        """Raises NotFinite where a trained weight, averaged or not, cannot be written as a finite number in half
        precision, as in the files that come out."""
        values = [*self.trained, *([] if self.average is None else self.average.values)]
        worst = max((float(value.detach().abs().max()) for value in values if value.numel()), default=0.0)
        if not worst <= torch.finfo(torch.float16).max:
            raise _diverged(f"after step {self.step} a weight is {worst}")

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises TrainingError where it belongs to networks of other sizes."""
        shapes = [tuple(parameter.shape) for parameter in self.trained]
        if shapes != [tuple(stored.shape) for stored in state["trained"]]:
            raise TrainingError(
                "the saved state belongs to a training of other networks",
                field="resume",
                remedy="use another output.folder, or the configuration that made the state",
            )
        for parameter, stored in zip(self.trained, state["trained"], strict=True):
            parameter.copy_(stored)
        rates = [group["full_rate"] for group in self.optimizer.param_groups]
        self.optimizer.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["full_rate"] = rate  # the options decide, also where they have changed
        if self.average is not None and state["average"] is not None:
            self.average.restore(state["average"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])


def diffusion_loss(
    model: Any, noise: NoiseSchedule, options: TrainOptions, batch: Batch, chance: Draw, reward: Reward | None = None
) -> Tensor:
    """See `ControlTrainer.loss`; `model` is called as ControlledUNet is."""
    noisy = noise.add_noise(batch.latents, chance.noise, chance.timesteps)
    context = torch.where(chance.dropped[:, None, None], batch.empty_context, batch.context)
    y = batch.y
    if y is not None and batch.empty_y is not None:
        y = torch.where(chance.dropped[:, None], batch.empty_y, y)
    answer = model(noisy, chance.timesteps, context, batch.hints, y)
    target = noise.target(batch.latents, chance.noise, chance.timesteps)
    error = (answer - target).square().mean((1, 2, 3))
    error = error * noise.min_snr_weights(chance.timesteps, options.min_snr_gamma)
    loss = (error * chance.weights).sum()
    if reward is not None:
        loss = loss + reward(noise, noisy, answer, chance.timesteps, batch.hints, chance.weights)
    return loss


def _diverged(what: str) -> NotFinite:
    return NotFinite(
        f"{what}; the training has diverged and saved nothing since its last state",
        field="train",
        remedy="go on with --resume from that state with a lower train.learning_rate, or start anew; in half precision "
        "use train.precision = bf16 instead of fp16",
    )


def set_precision(model: ControlledUNet, options: TrainOptions) -> None:
    """What is trained is kept in float32 unless the options say otherwise, what is locked in the precision of the
    arithmetic."""
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16}
    locked, own = dtypes.get(options.precision, torch.float32), dtypes.get(options.weights, torch.float32)
    trained, unet = {id(w) for w in model.control.trained()}, {id(w) for w in model.unet.parameters()}
    for weight in model.control.parameters():  # some kinds share weights with the U-Net, which must not be rounded
        if id(weight) not in unet:
            weight.data = weight.data.to(own if id(weight) in trained else locked)
    model.unet.float()
    for part in (model.unet.time_embed, model.unet.input_blocks, model.unet.middle_block):
        part.to(locked)
    if not list(model.decoder_parameters()):
        model.unet.to(locked)
    if options.base_weights != "whole":
        narrow_base(model.unet, model.control, options.base_weights)

"""Forge, Forge Neo, reForge and Forge Classic: their backend's U-Net, patchers and control objects.

Their U-Net takes control as an argument and tells of each call which rows are cond. They differ in little, which is
asked for where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import HostError
from ..core.step import RowTeller
from ..engine.argument import ArgumentHooks
from ..engine.injection import PassControl
from ..engine.session import ControlSession
from ..engine.sites import LdmSites
from ..families.base import Runtime
from ..nets.operations import layout_of
from .base import Hooks
from .forge_control import ControlObject
from .forge_memory import is_short, is_shortest, reserve, true_weights
from .forge_preprocessors import preprocessors
from .webui.host import WebUIHost

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


class ForgeHost(WebUIHost):
    """Control reaches the U-Net as the host's own does; the host is told of it by a control object on the patcher."""

    name = "Forge"
    masks_are_regions = True

    def __init__(self) -> None:
        super().__init__()
        self._sigmas: WeakKeyDictionary[nn.Module, NDArray[np.float64]] = WeakKeyDictionary()
        """Of each predictor: log sigma at 1000 points of the schedule, from its end to its start."""

    def preprocessors(self) -> Iterable[Any]:
        """The host's own, in the shape in which sd-webui-controlnet has them."""
        return preprocessors()

    def found_network(self, model: Any) -> object:
        """Whatever the host's `model` has in the U-Net's place."""
        return getattr(_wrapper(model), "diffusion_model", None)

    def unet_dtype(self) -> torch.dtype:
        """In which type the U-Net computes."""
        from modules import devices, shared

        wrapper = _wrapper(shared.sd_model)
        asked = getattr(wrapper, "get_dtype", None)
        found = (
            getattr(wrapper, "computation_dtype", None)
            or getattr(wrapper, "manual_cast_dtype", None)
            or (asked() if callable(asked) else None)
        )
        return found if isinstance(found, torch.dtype) else devices.dtype_unet

    def precision(self, model: Any) -> str:
        """In what the weights of the host's `model` are held, where that is not the checkpoint's own."""
        return str(getattr(_wrapper(model), "storage_dtype", ""))

    def has_loaded(self, model: Any) -> bool:
        """Whether the host's `model` is a checkpoint: Forge and Neo have another object before the first job."""
        return _wrapper(model) is not None

    def runtime(self, unet: nn.Module) -> Runtime:
        """Control models run where the host's U-Net runs, in the type in which it computes."""
        from modules import shared

        device, dtype = self.place()
        patcher = shared.sd_model.forge_objects.unet
        rounded = any(parameter.dtype in FLOAT8 for parameter in unet.parameters())
        return Runtime(
            device,
            dtype,
            base_weights=lambda: true_weights(patcher, unet),
            base_rounded=rounded,
            keeps_fp8=rounded,
            short=is_short(),
            low_vram=is_shortest(),
            reserve=lambda size: reserve(unet, size, device),
            layout=layout_of(unet),
        )

    def noise_schedule(self) -> tuple[Tensor, bool]:
        """Alphas' cumulative product (1000,), and whether the U-Net predicts v."""
        from modules import shared

        predictor = _predictor(shared.sd_model)
        alphas = getattr(predictor, "alphas_cumprod", None)
        if not isinstance(alphas, Tensor):
            alphas = 1.0 / (predictor.sigmas.float() ** 2 + 1.0)
        kind = getattr(predictor, "prediction_type", None)
        if kind is None:  # ldm_patched mixes the kind into the class
            kind = "v" if any(part.__name__ == "V_PREDICTION" for part in type(predictor).__mro__) else ""
        return alphas, str(kind).startswith("v")

    def join(self, p: Any, session: ControlSession) -> Callable[[], None]:
        """Puts a control object on a clone of the patcher, by which the host knows what memory the pass takes."""
        from modules import shared

        objects = shared.sd_model.forge_objects
        before, patcher = objects.unet, objects.unet.clone()
        patcher.add_patched_controlnet(ControlObject(session))
        objects.unet = patcher

        def undo() -> None:
            patcher.controlnet_linked_list = before.controlnet_linked_list  # the host keeps what it has loaded
            if objects.unet is patcher:
                objects.unet = before

        return undo

    def hooks(self, unet: nn.Module, control: PassControl) -> Hooks:
        """Adds the residuals to the U-Net's argument."""
        return ArgumentHooks(unet, control)

    def sites(self, unet: nn.Module) -> LdmSites:
        """The places in its layers: reForge and Classic call those in a block one by one, and no block."""
        return LdmSites(unet, blocks_are_called=False, plain_arguments=_no_options)

    def rows(self, params: Any) -> RowTeller:
        """Each U-Net call says itself which of its rows are cond."""
        return MarkedRows(int(params.x.shape[0]))

    def progress(self, params: Any, timed: bool) -> float:
        """How far sampling is, as the host's own ControlNet measures it: by the noise level, not by the steps done.

        It is the part of the schedule's 1000 timesteps that lies behind. Waits for the device where it is `timed`.
        """
        from modules import shared

        predictor = _predictor(shared.sd_model)
        if not timed or not hasattr(predictor, "percent_to_sigma"):
            return super().progress(params, timed)
        if predictor not in self._sigmas:
            percents = np.linspace(1.0, 0.0, 1000).clip(1e-9, 1.0 - 1e-9)
            self._sigmas[predictor] = np.log([float(predictor.percent_to_sigma(float(part))) for part in percents])
        sigma = float(params.sigma.flatten()[0])
        at = np.interp(np.log(max(sigma, 1e-12)), self._sigmas[predictor], np.linspace(1.0, 0.0, 1000))
        return float(at)


class MarkedRows:
    """Rows of U-Net calls that carry `cond_or_uncond`: one mark for each chunk of a picture batch, 0 for cond.

    A tiler may call with these rows for several tiles, a tile's rows side by side, or several times.
    """

    def __init__(self, batch: int) -> None:
        """batch: pictures of the denoiser step."""
        self._batch = max(batch, 1)
        self._marks: object = None
        """Of the call under way; the host makes a list of its own for each."""
        self._taken = 0
        self.rows = 0
        """Rows of the denoiser's call under way."""

    @property
    def again(self) -> bool:
        """The U-Net has got more rows than that call has."""
        return 0 < self.rows < self._taken

    def group(self, rows: int) -> None:
        """The calls tell themselves."""

    def choose(self, places: Sequence[int]) -> None:
        """They tell themselves here too; `take` refuses those with a part of the pictures."""

    def take(self, rows: int, options: Mapping[str, object]) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        """(is_cond, image) of each of the next `rows` rows; all are cond where the call tells nothing.

        Raises HostError for a call with some of the pictures alone (windows of a film): nothing tells which they are.
        """
        marks = options.get("cond_or_uncond")
        if not isinstance(marks, (list, tuple)) or not marks:
            return (True,) * rows, tuple(row % self._batch for row in range(rows))
        if marks is not self._marks:
            self._marks, self._taken, self.rows = marks, 0, len(marks) * self._batch
        if rows % self.rows:
            raise HostError(
                "the U-Net was called with some pictures of the batch, and which they are is not known",
                found=f"{rows} rows for {len(marks)} times {self._batch} pictures",
                remedy="let windows of a film be as long as the film, or disable the units",
            )
        self._taken += rows
        places = [row % self.rows for row in range(rows)]
        return tuple(marks[at // self._batch] == 0 for at in places), tuple(at % self._batch for at in places)


def _wrapper(model: Any) -> Any:
    """What stands between the host's patcher and its U-Net."""
    return getattr(getattr(getattr(model, "forge_objects", None), "unet", None), "model", None)


def _predictor(model: Any) -> Any:
    """What knows the noise schedule: one of Forge's and Neo's backend, or of ldm_patched (reForge, Classic)."""
    wrapper = _wrapper(model)
    return getattr(wrapper, "predictor", None) or getattr(wrapper, "model_sampling", None)


def _no_options() -> dict[str, Any]:
    """What a U-Net call of ours says of itself: its forward would write into a default that all calls share."""
    return {"transformer_options": {}}

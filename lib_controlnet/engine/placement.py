"""Where the models of one session are: in the computer's memory, and on the device while a unit acts with them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..core.errors import DeviceMemoryError
from ..families.base import ControlModel, Runtime
from .device_memory import free_bytes, give_back, in_words, is_out_of_memory, is_short, total_bytes
from .services import Services

log = logging.getLogger("ControlNet")

GIB = 1 << 30
_ASKED = re.compile(r"tried to allocate [\d.]+ ?[KMGT]?i?B", re.IGNORECASE)
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Short:
    """Memory was short. Not the exception: it would hold the failed call's tensors on the device while it is kept."""

    reason: str


class Placement:
    """Brings models to the device and lets go of them there; what they are at home stays, so leaving is free.

    A model comes when a unit in its range acts with it, and goes when no unit in its range has it any more. `sparing`:
    at most one is there at a time. Whoever else takes a model away (another job that shares it, the host) does no harm:
    it comes again when it is needed.
    """

    def __init__(self, services: Services, runtime: Runtime, let_go: Callable[[], None] = lambda: None) -> None:
        """`let_go` drops what else the session keeps on the device, where the memory is too small for it."""
        self._services = services
        self._runtime = runtime
        self._let_go = let_go
        self._models: list[ControlModel] = []
        self._staying: Sequence[ControlModel] = ()
        """Those that the U-Net call under way cannot do without."""
        self.sparing = False

    @property
    def size(self) -> int:
        """Bytes on the device when they are there: all of them, or where they take turns the largest."""
        sizes = [model.residence.size for model in self._models]
        return max(sizes, default=0) if self.sparing else sum(sizes)

    def adopt(self, models: Sequence[ControlModel], low_vram: bool) -> None:
        """These are the session's models. `low_vram`: a unit of it, or the host, asks for the least memory."""
        self._models = [model for model in dict.fromkeys(models) if not model.residence.empty]
        self.sparing = low_vram

    def stay(self, models: Sequence[ControlModel]) -> None:
        """Brings `models`, which compute while the U-Net's layers do, to the device until the next call's control."""
        self._staying = models
        for model in models:
            self.compute(model, lambda: None, "the U-Net's layers")

    def settle(self, wanted: Collection[ControlModel]) -> None:
        """A U-Net call begins: the session's models that are not `wanted` leave."""
        self._staying = ()
        self._keep(wanted)

    def _keep(self, wanted: Collection[ControlModel]) -> None:
        for model in self._models:
            if model not in wanted and model.residence.away:
                self._leave(model)

    def in_turn(self, models: Sequence[ControlModel], going_on: Collection[ControlModel]) -> Iterator[int]:
        """The places of `models`, which may come several times, in the order in which they are to compute.

        Those that are there are first, so that few must move, and those whose range ends with this call before the ones
        that are `going_on`: they leave as soon as they have computed where others must come.
        """
        waiting = list(range(len(models)))
        if self._runtime.device.type != "cpu":
            waiting.sort(key=lambda at: (self._absent(models[at]), models[at] in going_on, models.index(models[at])))
        while waiting:
            at = waiting.pop(0)
            yield at
            rest = [models[other] for other in waiting]
            if models[at] not in going_on and models[at] not in rest and any(map(self._absent, rest)):
                self._leave(models[at])

    def compute(self, model: ControlModel, ask: Callable[[], Result], size: str) -> Result:
        """What `ask` gives while `model` is on the device. `size`, of the picture, is said where memory is short.

        Out of memory frees what is idle and asks once more. Raises DeviceMemoryError where that is not enough.
        """
        if model.residence.empty:
            return ask()
        with self._services.models.turn:
            result = self._tried(model, ask)
            if isinstance(result, _Short):
                self._free_for(model)
                result = self._tried(model, ask)
            if isinstance(result, _Short):
                raise self._too_small(model, size, result.reason)
            return result

    def _tried(self, model: ControlModel, ask: Callable[[], Result]) -> Result | _Short:
        try:
            return self._ask(model, ask)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return _Short(str(error))

    def rest(self, width: int, height: int) -> None:
        """A sampling has ended, and the host is about to decode pictures of that size: makes room where it is short."""
        if self.sparing or self._runtime.short or is_short(self._runtime.device, width, height):
            self.leave()

    def leave(self) -> None:
        """No model of the session is on the device any more."""
        self.settle(())

    def close(self) -> None:
        """The job has ended: what its user allows may stay for the next one."""
        kept = 0 if self.sparing or self._runtime.short else self._services.setting("controlnet_device_cache_gib", 0)
        if kept:
            self._services.models.release(int(kept * GIB))
        else:
            self.leave()
        self._models, self._staying = [], ()

    def _absent(self, model: ControlModel) -> bool:
        return not model.residence.empty and model.residence.place != self._runtime.device

    def _leave(self, model: ControlModel) -> None:
        with self._services.models.turn:
            model.residence.leave()

    def _ask(self, model: ControlModel, ask: Callable[[], Result]) -> Result:
        if self._absent(model):
            if self.sparing:
                self._keep((model, *self._staying))
            setting = self._services.setting
            by_block = self.sparing and bool(setting("controlnet_stream_blocks", False))
            self.make_room(0 if by_block else model.residence.size)
            pinned = bool(setting("controlnet_pinned_memory", True))
            model.residence.come(self._runtime.device, pinned=pinned, by_block=by_block)
        return ask()

    def make_room(self, size: int) -> None:
        """Before a model comes or residuals stay: some drivers do not fail where memory is short, but get very slow."""
        device = self._runtime.device
        if self._runtime.reserve is not None:
            self._runtime.reserve(size)
        free = free_bytes(device)
        if free is not None and free < size:
            self._services.models.release(keep=self._models)
            self._services.preprocess.put_away()
            give_back(device)

    def _free_for(self, model: ControlModel) -> None:
        """Everything of ours but `model` leaves the device, and from now on the session's models take turns."""
        device, others = self._runtime.device, len(self._models) > 1
        self.sparing = True
        self._let_go()
        self._services.models.release(keep=(model, *self._staying))
        self._services.preprocess.unload()
        give_back(device)
        turns = "; the control models of this job take turns there, as with Low VRAM" if others else ""
        log.warning("The memory of %s was too small: what was idle is freed%s.", device, turns)

    def _too_small(self, model: ControlModel, size: str, reason: str) -> DeviceMemoryError:
        device, asked = self._runtime.device, _ASKED.search(reason)
        free, total = free_bytes(device), total_bytes(device)
        needed = f", which {asked.group(0)[0].lower()}{asked.group(0)[1:]} more" if asked else ""
        there = f"; {in_words(free)} of {in_words(total)} are free" if free is not None and total is not None else ""
        return DeviceMemoryError(
            f"the memory of the device {device} is too small for the unit's control",
            field="model",
            found=f'"{model.path.name}" of {in_words(model.residence.size)} with {size}{needed}{there}',
            remedy="switch on Low VRAM (and in the settings that it brings models block after block), make a smaller "
            "picture or batch, or close what else uses the device",
        )

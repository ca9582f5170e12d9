"""The places of an LDM-layout U-Net in which controls act, by hooks on its modules; no forward is replaced.

Every attention of the hosts, however optimised, calls its `to_q` and `to_out[0]`, so that is where queries are read and
what was attended to is changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..core.errors import HostError
from ..core.sites import AttentionPatch, AttentionPlace, FeaturePatch, SiteCall, Watch
from ..core.step import Step
from .parts import Part, PartCall

_TRANSFORMERS = ".transformer_blocks."
_BLOCK = re.compile(r"(input|output)_blocks\.\d+|middle_block")


class LdmSites:
    """All hooks of the controls of a pass on the layers of one U-Net; `remove()` undoes them, twice is fine."""

    def __init__(
        self,
        unet: nn.Module,
        blocks_are_called: bool = True,
        plain_arguments: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """blocks_are_called: False where the host calls the layers in a block one by one, so that hooks on the block
        are told of nothing. plain_arguments: what a U-Net call of ours is given besides.
        """
        self.unet = unet
        self._blocks_are_called = blocks_are_called
        self._plain_arguments = plain_arguments
        self._handles: list[RemovableHandle] = []
        self._waiting: list[Callable[[], RemovableHandle]] = []
        self._parts: list[Part] = []
        self._sizes: dict[str, tuple[int, int]] = {}
        """Of what is in each transformer now."""
        self._rows: tuple[int, ...] | None = None
        """Of the call, which alone are in an attention that computes once more for them."""

    def of(self, part: Part) -> PartSites:
        """The places for one control."""
        if part not in self._parts:
            self._parts.append(part)
        return PartSites(self, part)

    def plain(self, step: Step) -> None:
        """Runs the U-Net on a step. Its forward: a call would be taken for a step, by us and by other extensions."""
        rest = {} if step.y is None else {"y": step.y}
        self.unet.forward(step.x, timesteps=step.timesteps, context=step.context, **rest, **self._plain_arguments())

    def remove(self) -> None:
        """Takes every hook off."""
        for part in self._parts:
            part.places.clear()
            part.dear.clear()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._waiting.clear()
        self._parts.clear()
        self._sizes.clear()

    def module(self, name: str) -> nn.Module:
        """The module of an LDM name. Raises HostError where there is none."""
        try:
            return self.unet.get_submodule(name)
        except AttributeError as error:
            raise HostError(
                "the U-Net has not the layer in which the unit's control acts",
                field="model",
                found=f"no {name} in {type(self.unet).__name__}",
                remedy="choose a control model made for this checkpoint",
            ) from error

    def entrance(self, name: str) -> nn.Module:
        """Whatever of the module of that name is called first. Raises HostError where there is none."""
        return self._called(name, 0)

    def exit(self, name: str) -> nn.Module:
        """Whatever of the module of that name is called last. Raises HostError where there is none."""
        return self._called(name, -1)

    def _called(self, name: str, place: int) -> nn.Module:
        module = self.module(name)
        if self._blocks_are_called or not _BLOCK.fullmatch(name) or not isinstance(module, nn.Sequential):
            return module
        return module[place]

    def watch_blocks(self, told: Callable[[str, Tensor], None]) -> None:
        """`told` hears what each input block and the middle one give, and their names, before residuals are added."""
        names = [f"input_blocks.{index}" for index in range(len(cast("Any", self.unet).input_blocks))]
        for name in (*names, "middle_block"):
            self.keep(self.exit(name).register_forward_hook(_teller(name, told)))

    def keep(self, handle: RemovableHandle) -> None:
        """Undone with the others."""
        self._handles.append(handle)

    def at_last(self, hook: Callable[[], RemovableHandle]) -> None:
        """Made by `settle`: it has to see what all the others have changed."""
        self._waiting.append(hook)

    def settle(self) -> None:
        """All controls have asked for their places."""
        for hook in self._waiting:
            self.keep(hook())
        self._waiting.clear()

    def passing(self, part: Part, place: str) -> PartCall | None:
        """The call that comes by a place in which the control has a say."""
        call = None if part.watching else part.call
        if call is None:
            return None
        call.came_by.add(place)
        return call if self._rows is None else call.among(self._rows)

    @contextmanager
    def once_more(self, rows: Sequence[int]) -> Generator[None, None, None]:
        """An attention computes again, for some rows of the call: places in it are passed by these alone."""
        before, self._rows = self._rows, tuple(rows)
        try:
            yield
        finally:
            self._rows = before

    def measured(self, name: str) -> Callable[[], tuple[int, int]]:
        """Where a module of that name lies in a transformer: (h, w) of what passes the transformer, each time."""
        container = name.partition(_TRANSFORMERS)[0] if _TRANSFORMERS in name else ""
        if container and container not in self._sizes:
            self._sizes[container] = (0, 0)

            def measure(_module: nn.Module, args: tuple[Any, ...]) -> None:
                if args and args[0].dim() == 4:
                    self._sizes[container] = (int(args[0].shape[2]), int(args[0].shape[3]))

            self.keep(self.module(container).register_forward_pre_hook(measure))
        return lambda: self._sizes.get(container, (0, 0))


class PartSites:
    """Places of one U-Net for one control (see `core.sites.UNetSites`)."""

    def __init__(self, sites: LdmSites, part: Part) -> None:
        self._sites = sites
        self._part = part

    def attentions(self, which: str) -> Sequence[AttentionPlace]:
        named = cast("Iterable[tuple[str, Any]]", self._sites.unet.named_modules())
        found = [(name, module) for name, module in named if name.endswith(f".{which}")]
        return [
            AttentionPlace(
                name.rpartition(".")[0], which, m.to_q.in_features, m.to_q.out_features, m.to_k.in_features, m.heads
            )
            for name, m in found
            if hasattr(m, "to_q") and hasattr(m, "to_k")
        ]

    def has(self, name: str) -> bool:
        try:
            self._sites.unet.get_submodule(name)
        except AttributeError:
            return False
        return True

    def before(self, name: str, patch: FeaturePatch, layer: int = 0) -> None:
        part, sites, size, place = self._part, self._sites, self._sites.measured(name), f"before {name}"
        part.places[place] = layer

        def hook(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            call = sites.passing(part, place)
            if call is None:
                return None
            return (_patched(call, layer, patch, args[0], size(), place), *args[1:])

        self._sites.keep(self._sites.entrance(name).register_forward_pre_hook(hook))

    def after(self, name: str, patch: FeaturePatch, layer: int = 0, watch: Watch | None = None) -> None:
        part, sites, size, place = self._part, self._sites, self._sites.measured(name), f"after {name}"
        part.places[place] = layer

        def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor | None:
            if part.watching and watch is not None:
                watch(output)
            call = sites.passing(part, place)
            return None if call is None else _patched(call, layer, patch, output, size(), place)

        self._sites.keep(self._sites.exit(name).register_forward_hook(hook))

    def attention(self, place: AttentionPlace, patch: AttentionPatch, layer: int = 0) -> None:
        self._part.places[place.name] = layer
        module = cast(Any, self._sites.module(place.name))
        acting = _Attention(self._sites, self._part, place.name, patch, layer)
        if type(patch).further is not AttentionPatch.further:
            self._part.dear.add(place.name)
            self._sites.keep(module.register_forward_pre_hook(acting.lengthen, with_kwargs=True))
            self._sites.keep(module.register_forward_hook(acting.settle, with_kwargs=True))
        if patch.merged is not None:
            self._sites.at_last(lambda: module.to_q.register_forward_hook(acting.keep_queries))
            self._sites.keep(module.to_out[0].register_forward_pre_hook(acting.merge))

    def added(self, name: str, patch: FeaturePatch, layer: int = 0, placeless: bool = False) -> None:
        part, sites, place = self._part, self._sites, f"added {name}"
        size = (lambda: None) if placeless else sites.measured(name)
        part.places[place] = layer

        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            call = sites.passing(part, place)
            if call is None:
                return None
            given = call.of(cast("Tensor", args[0]))
            added: FeaturePatch = lambda site, own: own + patch(site, given).to(own)  # noqa: E731
            return _patched(call, layer, added, output, size(), place)

        self._sites.keep(self._sites.module(name).register_forward_hook(hook))


def _teller(name: str, told: Callable[[str, Tensor], None]) -> Callable[..., None]:
    def tell(_module: nn.Module, _args: object, output: Tensor) -> None:
        told(name, output)

    return tell


def _site_call(call: PartCall, layer: int, size: tuple[int, int]) -> SiteCall | None:
    weight = call.weights[layer] if call.weights else 1.0
    return SiteCall(call.step, weight, size) if weight else None


def _patched(
    call: PartCall, layer: int, patch: FeaturePatch, given: Tensor, size: tuple[int, int] | None, place: str
) -> Tensor:
    """Features or tokens (B, ...) changed by the unit for its rows, within its region; `size` None: not positions."""
    here = (int(given.shape[2]), int(given.shape[3])) if given.dim() == 4 else size
    site = _site_call(call, layer, here or (0, 0))
    return given if site is None else call.changed(given, lambda part: patch(site, part), here, place)


class _Attention:
    """The hooks of one control on one attention."""

    def __init__(self, sites: LdmSites, part: Part, name: str, patch: AttentionPatch, layer: int) -> None:
        self._sites = sites
        self._part = part
        self._name = name
        self._patch = patch
        self._layer = layer
        self._size = sites.measured(name)
        self._queries: Tensor | None = None
        self._longer = False
        """There was more to attend to in the call under way."""

    def _site(self) -> tuple[PartCall, SiteCall] | None:
        call = self._sites.passing(self._part, self._name)
        site = None if call is None else _site_call(call, self._layer, self._size())
        return None if call is None or site is None else (call, site)

    def lengthen(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the attention: where the unit has its say everywhere, there is more to attend to."""
        tokens = cast("Tensor", args[0])
        if self._part.watching:
            self._patch.watched(tokens)
        found = self._site()
        whole = found is not None and found[0].whole
        further = self._patch.further(found[1], tokens) if found is not None and whole else None
        self._longer = further is not None
        return None if further is None else _with_further(args, kwargs, further)

    def settle(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        """After the attention: where the unit has its say in a part only, it attends once more for that part."""
        found = self._site()
        if found is None:
            return None
        (call, site), tokens = found, cast("Tensor", args[0])
        rest = {name: value for name, value in kwargs.items() if name != "context"}

        def plain(rows: Sequence[int]) -> Tensor:
            with self._sites.once_more([call.rows[row] for row in rows]):
                return module.forward(call.step.kept.of(call.of(tokens), rows), **rest)

        if call.whole:
            if not self._longer:
                return None
            seen = self._patch.seen(site, output, plain)
            if self._name in call.heard:
                call.hear(self._name, plain(range(len(call.rows))), seen)
            return seen

        def attended(_given: Tensor) -> Tensor:
            own = call.of(tokens)
            further = self._patch.further(site, own)
            if further is None:
                return _given
            longer, given = _with_further((own, *args[1:]), rest, further)
            with self._sites.once_more(call.rows):
                seen = module.forward(*longer, **given)
            return self._patch.seen(site, seen, plain)

        return call.changed(output, attended, site.size, self._name)

    def keep_queries(self, _module: nn.Module, _args: object, output: Tensor) -> None:
        """After `to_q`."""
        self._queries = None if self._part.call is None or self._part.watching else output

    def merge(self, _module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Before `to_out[0]`."""
        queries, self._queries = self._queries, None
        found = None if queries is None else self._site()
        merged = self._patch.merged
        if found is None or queries is None or merged is None:
            return None
        call, site = found
        own = call.of(queries)
        return (call.changed(args[0], lambda attended: merged(site, own, attended), site.size, self._name), *args[1:])


def _with_further(args: tuple[Any, ...], kwargs: dict[str, Any], further: Tensor) -> tuple[Any, Any]:
    """An attention's call with more to attend to; another control's may be there already."""
    context = kwargs.get("context")
    seen = args[0] if context is None else context
    return args[:1], {**kwargs, "context": torch.cat([seen.to(further.dtype), further], dim=1)}

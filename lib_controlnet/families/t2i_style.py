"""T2I-Adapter for styles (arXiv 2302.08453): a picture's style as tokens behind those of the prompt, for SD 1.x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.checkpoint import of_rows
from ..core.errors import PreprocessorError
from ..core.hints import Hint
from ..core.placed import Placed
from ..core.precision import own_types
from ..core.step import Step, own_end
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..nets.coadapter import StyleAdapter, StyleConfig
from ..nets.operations import Operations
from ..nets.residence import Residence
from .base import BaseModel, BoundControl, PlainModel, Runtime, Sheet, UnitSettings, Weights, check_base
from .coadapters import CoAdapter, Fusion, coadapter_of, met

_SEEN = "last_hidden_state"


class T2IStyleFamily:
    """Detects by the tokens that ask for the style."""

    id = "t2i_style"
    shares: Mapping[str, float] = {}
    before: Sequence[str] = ()
    condition = KeyCondition(all_of=("style_embedding", "proj"))

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedStyle:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        config = StyleConfig.from_weights(outlines(weights))
        exact = Operations(torch.float32)  # it computes once a pass, wherever it is
        net = fill(lambda: StyleAdapter(config, exact), weights, dtype=runtime.dtype, device="cpu", name=path.name)
        return LoadedStyle(path, net, coadapter_of(path, metadata))

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        config = StyleConfig.from_weights(outlines(weights))
        return Sheet(0, _made_for(config), lambda base: base.config.context_dim == config.text)


FAMILY = T2IStyleFamily()


class LoadedStyle(PlainModel):
    """One file's network. co: what makes it one of several CoAdapters."""

    def __init__(self, path: Path, net: StyleAdapter, co: CoAdapter | None) -> None:
        self.path = path
        self.net = net
        self.co = co
        self.residence = Residence(net, streams=False)

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where the prompt of `base` has tokens of another width."""
        text = self.net.config.text
        own = base.config.context_dim
        disagreement = "" if own == text else f"text width {text}, the checkpoint's {own}"
        check_base(self.path, base, _made_for(self.net.config), disagreement)

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundStyle:
        """The style of the unit's picture, or of one for each image of the batch."""
        seen = [tensors.get(_SEEN) for tensors in settings.tensors]
        width = self.net.config.width
        if hints or not seen or any(each is None or each.shape[-1] != width for each in seen):
            found = "a control map" if hints else ", ".join(sorted({*settings.tensors[0]} if seen else {"nothing"}))
            raise PreprocessorError(
                f'"{self.path.name}" takes what CLIP ViT-L sees in a picture',
                unit=settings.unit,
                field="module",
                found=found,
                remedy="choose the preprocessor t2ia_style_clipvision",
            )
        return BoundStyle(self, [each for each in seen if each is not None], settings.weight)


class BoundStyle(BoundControl):
    """The style as tokens; computed once a pass. Those of several pictures in one unit lie one behind the other."""

    obeys_mode = spatial = regional = stepwise = False

    def __init__(self, model: LoadedStyle, seen: Sequence[Tensor], weight: float) -> None:
        self._model = model
        self._seen = seen
        self._weight = weight
        self._tokens: Tensor | None = None
        self._heard: dict[tuple[int, ...], Placed] = {}
        self.fusion: Fusion | None = None

    @property
    def co(self) -> CoAdapter | None:
        """What makes it one of several CoAdapters."""
        return self._model.co

    def meet(self, others: Sequence[BoundControl]) -> None:
        """Finds the other CoAdapters."""
        met(self, others)

    def condition(self, step: Step) -> Step:
        """The prompt's rows hear the style; the others their own last tokens once more, so that lengths agree."""
        tokens = self._at(step).like(step.context)
        plain = own_end(step.context, tokens.shape[1])
        is_cond = step.kept.flags(step.is_cond, plain.device)[:, None, None]
        added = torch.where(is_cond, of_rows(tokens, step), plain)
        return replace(step, context=torch.cat([step.context, added], dim=1))

    def summary(self, step: Step) -> Tensor:
        """Tokens (n, L, C) as far as the weight lets them act."""
        del step
        tokens = self._tokens
        if tokens is None:
            place = self._model.residence.place
            with own_types((place,)), torch.no_grad():
                each = [self._model.net(seen.to(place, torch.float32)).flatten(0, 1) for seen in self._seen]
            tokens = self._tokens = torch.stack(each) * self._weight
        return tokens

    def _at(self, step: Step) -> Placed:
        """The tokens as far as the CoAdapters agreed on them, which depends on the size of what these add."""
        size = tuple(step.x.shape[2:]) if self.fusion is not None else ()
        if size not in self._heard:
            tokens = self.summary(step)
            if self.fusion is not None:
                factor = self.fusion.factors(self, step)
                assert isinstance(factor, Tensor)
                tokens = tokens * factor.to(tokens)
            self._heard = {size: Placed(tokens)}
        return self._heard[size]


def _made_for(config: StyleConfig) -> str:
    return "SD 1.x" if config.text == 768 else f"a checkpoint with a text width of {config.text}"

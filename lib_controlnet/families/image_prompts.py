"""An IP-Adapter's picture in the U-Net's attentions to the prompt, and FaceID's changes to its attentions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..core.embeddings import FACE, HIDDEN, IMAGE, RAW_FACE, ROWS, UNCOND, ZERO_HIDDEN
from ..core.errors import BaseModelError, PreprocessorError, UnitError
from ..core.image_prompt import Combine, EmbedsScaling, ImagePrompt, Slots, Uncond, factors, swapped
from ..core.sites import AttentionPatch, AttentionPlace, SiteCall, UNetSites
from ..core.step import Step
from ..nets.image_tokens import FacePlusTokens, attended_by
from ..nets.ip_adapter import AdapterLayer, IPAdapter, LayerSizes, LowRank, Projection, ProjectionSizes
from ..nets.residence import Residence
from .base import BoundControl, UnitSettings
from .travel import travelled

_FULL_WIDTH = 1280
"""Channels for which the "C penalty" is none."""
_MIDDLE = "middle_block."
_INPUT = "input_blocks."
_FACE_WIDTH = 512
_OF_TEXT = ("to_k_lora", "to_v_lora")

Embeddings = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Told:
    """What the rows of one picture of the batch hear: embeddings by name for cond rows, and for the others."""

    cond: Embeddings
    uncond: Embeddings


class Layers(Protocol):
    """For which attentions a file has keys and values."""

    @property
    def pairs(self) -> Sequence[tuple[int, int]]: ...
    @property
    def layers(self) -> Sequence[LayerSizes]: ...


class Network(Protocol):
    """What gives keys and values of tokens."""

    @property
    def config(self) -> Layers: ...
    def layer(self, number: int) -> AdapterLayer | None: ...


class BoundImagePrompt(BoundControl):
    """Tokens once a pass, keys and values of every attention too; a step costs an attention to a few tokens more."""

    in_prompt = True

    obeys_mode = False
    spatial = False

    def __init__(
        self, net: Network, residence: Residence, outputs: int, told: Sequence[Told], settings: UnitSettings
    ) -> None:
        """told: one for each picture of the batch or key frame of a film, or one for all."""
        self._layers = net
        self._residence = residence
        self._outputs = outputs
        self._prompt: ImagePrompt = settings.image_prompt
        self._settings = settings
        self._told = told
        film = settings.film
        self._film = film if film is not None and film.keys and len(told) == len(film.keys) else None
        """With key frames; embeddings handed in are heard in every frame."""
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values (2 * pictures, T, C) by the file's number: for cond rows, then for the others."""
        self._tokens: Tensor | None = None

    def tokens(self) -> Tensor:
        """(2 * pictures, T, width) float32: for the cond rows of each picture of the batch, then for the others."""
        if self._tokens is None:
            self._tokens = self.tokens_anew()
        return self._tokens

    def tokens_anew(self) -> Tensor:
        """`tokens`, made on the stream of the caller, who keeps them."""
        even = self._evened([self._heard(part) for told in self._told for part in (told.cond, told.uncond)])
        cond, uncond = even[::2], even[1::2]
        if self._film is not None:
            cond, uncond = travelled(cond, self._film), travelled(uncond, self._film)
        return torch.cat([*cond, *uncond])

    def rows(self, step: Step) -> tuple[int, ...]:
        """Which of `tokens` belongs to each row."""
        pictures = len(self._told) if self._film is None else self._film.frames
        pairs = zip(step.images, step.is_cond, strict=True)
        return tuple(image % pictures + (0 if cond else pictures) for image, cond in pairs)

    def attach(self, sites: UNetSites) -> None:
        """Every attention to the prompt that is to hear the picture."""
        places, numbers, slots = self._places(sites)
        counted = _counted(places, slots)
        loud = factors(self._prompt, counted, self._settings.weight)
        sides = swapped(self._prompt, counted)
        for place, slot in zip(places, slots, strict=True):
            if loud[slot]:
                sites.attention(
                    place, self._hearing(numbers[place.block], place.heads, loud[slot], slot in sides), slot
                )

    def prepare(self, step: Step, plain: Callable[[Step], None]) -> None:
        """Once a pass, while the network is on the device."""
        del step, plain
        for layer in () if self._pairs else self._layers.config.layers:
            parts = self._layers.layer(layer.number)
            if layer.pair is not None and parts is not None:
                tokens = self.tokens().to(parts.to_k_ip.weight.dtype)
                self._pairs[layer.number] = (parts.to_k_ip(tokens), parts.to_v_ip(tokens))

    def pair(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values (2 * pictures, T, C) of the attention of that number."""
        return self._pairs[number]

    @property
    def scaling(self) -> EmbedsScaling:
        """What the weight multiplies."""
        return self._prompt.scaling

    def _places(self, sites: UNetSites) -> tuple[Sequence[AttentionPlace], Mapping[str, int], Sequence[int]]:
        """The attentions to the prompt, their numbers in the file by block, and whose layer weight each has."""
        places = list(sites.attentions("attn2"))
        return places, numbered(places, self._layers.config.pairs), _slots(places, self._outputs)

    def _hearing(self, number: int, heads: int, factor: float, swap: bool) -> Hearing:
        return Hearing(self, number, heads, factor, swap)

    def _heard(self, embeddings: Embeddings) -> Tensor:
        """(1, T, width): the tokens of all pictures side by side."""
        raise NotImplementedError

    def _evened(self, heard: Sequence[Tensor]) -> Sequence[Tensor]:
        """(1, T, width) each, as many tokens in all, which say the same."""
        length = math.lcm(*(part.shape[1] for part in heard))
        # Tokens that come again and again have the same share together: attention gives the same.
        return [part.repeat(1, length // part.shape[1], 1) for part in heard]

    def _given(self, embeddings: Embeddings) -> Embeddings:
        """The embeddings where the network is, those of several pictures as one where the unit wants it."""
        place, how = self._residence.place, self._prompt.combine
        return {name: _combined(value.to(place, torch.float32), how) for name, value in embeddings.items()}


class BoundIPAdapter(BoundImagePrompt):
    """An IP-Adapter's pictures, and FaceID's changes to the U-Net's attentions."""

    def __init__(
        self, net: IPAdapter, residence: Residence, outputs: int, shortcut: float | None, settings: UnitSettings
    ) -> None:
        sizes = net.config.projection
        told = [tell(_wanted(sizes, tensors), tensors, settings) for tensors in settings.tensors]
        super().__init__(net, residence, outputs, told, settings)
        self._net = net
        self._shortcut = shortcut
        self.knows_faces = sizes.kind is Projection.resampler and sizes.reads == _FACE_WIDTH
        """Its tokens are those of InstantID, or of portraits like it."""
        self.in_layers = net.config.has_added and self._prompt.lora != 0.0

    def attach(self, sites: UNetSites) -> None:
        """Every attention to the prompt that is to hear the picture, and those that FaceID changes."""
        super().attach(sites)
        places, numbers, slots = self._places(sites)
        for place, slot in zip(places, slots, strict=True) if self.in_layers else ():
            self._add(sites, place.block, numbers[place.block], slot)

    def _add(self, sites: UNetSites, block: str, number: int, slot: int) -> None:
        for which, own in (("attn1", number - 1), ("attn2", number)):
            layer = self._net.layer(own)
            for name, change in () if layer is None else layer.added.items():
                module = {"to_out_lora": "to_out.0"}.get(name, name.removesuffix("_lora"))
                reads_text = which == "attn2" and name in _OF_TEXT
                sites.added(f"{block}.{which}.{module}", self._adding(change), slot, placeless=reads_text)

    def _adding(self, change: LowRank) -> Callable[[SiteCall, Tensor], Tensor]:
        strength = self._prompt.lora

        def added(_call: SiteCall, given: Tensor) -> Tensor:
            made = change(given.to(change.down.weight))  # where it is: the processor's for "--use-cpu controlnet"
            return made if strength == 1.0 else made * strength

        return added

    def _heard(self, embeddings: Embeddings) -> Tensor:
        given = self._given(embeddings)
        made: nn.Module = self._net.image_proj
        if isinstance(made, FacePlusTokens):
            tokens = made(given[FACE], given[HIDDEN], self._shortcut)
        else:
            (embedding,) = given.values()
            if self._net.config.projection.kind is Projection.resampler and embedding.dim() == 2:
                embedding = embedding[:, None]
            tokens = made(embedding)
        return tokens.flatten(0, 1)[None]


class Hearing(AttentionPatch):
    """One attention to the prompt, which hears the picture besides."""

    def __init__(self, bound: BoundImagePrompt, number: int, heads: int, factor: float, swap: bool) -> None:
        self._bound = bound
        self._number = number
        self.heads = heads
        self._factor = factor
        self._swap = swap
        self._rows: dict[tuple[tuple[int, ...], torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self.merged = self._merged

    def _merged(self, call: SiteCall, queries: Tensor, attended: Tensor) -> Tensor:
        keys, values = self._of_rows(call.step, queries)
        return self.mixed(queries, attended, *self._weighed(keys, values, call.weight * self._factor))

    def mixed(self, queries: Tensor, attended: Tensor, keys: Tensor, values: Tensor, weight: float) -> Tensor:
        """What was attended to (B, N, C), and beside it the picture, by keys and values (B, T, C)."""
        return attended + attended_by(queries, keys, values, self.heads).to(attended) * weight

    def _weighed(self, keys: Tensor, values: Tensor, weight: float) -> tuple[Tensor, Tensor, float]:
        """Keys and values as the weight changes them, and the weight of what comes of them."""
        scaling = self._bound.scaling
        if scaling is EmbedsScaling.v_only:
            return keys, values, weight
        if scaling is not EmbedsScaling.k_v:
            weight *= keys.shape[-1] / _FULL_WIDTH
        keys = keys * weight
        if scaling is EmbedsScaling.k_mean_v_penalty:
            mean = values.mean(dim=1, keepdim=True)
            return keys, (values - mean) + mean * weight, 1.0
        return keys, values * weight, 1.0

    def _of_rows(self, step: Step, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, T, C) for the rows of `step`, where and as the queries are."""
        rows = self._bound.rows(step)
        key = (rows, queries.device, queries.dtype)
        if key not in self._rows:
            self._rows[key] = tuple(  # pyright: ignore[reportArgumentType]
                step.kept.of(self._sides(part).to(queries), rows) for part in self._bound.pair(self._number)
            )
        return self._rows[key]

    def _sides(self, part: Tensor) -> Tensor:
        if not self._swap:
            return part
        cond = part[: len(part) // 2]
        return torch.cat([torch.zeros_like(cond), cond])


def numbered(places: Sequence[AttentionPlace], pairs: Sequence[tuple[int, int]]) -> Mapping[str, int]:
    """The file's number of each transformer block's attention to the prompt: the middle's come last there.

    `places` in the order in which they are computed. Raises BaseModelError where the U-Net has others.
    """
    first = [place for place in places if not place.block.startswith(_MIDDLE)]
    ordered = [*first, *(place for place in places if place.block.startswith(_MIDDLE))]
    if [(place.context, place.inner) for place in ordered] != list(pairs):
        raise BaseModelError(
            "the U-Net has not the attentions for which the IP-Adapter was made",
            field="model",
            found=f"{len(places)} attentions to the prompt; the file is for {len(pairs)}",
            remedy="choose an IP-Adapter made for this checkpoint",
        )
    return {place.block: 2 * index + 1 for index, place in enumerate(ordered)}


def _slots(places: Sequence[AttentionPlace], outputs: int) -> list[int]:
    """Whose layer weight each place has: of its transformer, or its own where layers are counted one by one."""
    containers = [place.block.partition(".transformer_blocks.")[0] for place in places]
    order = list(dict.fromkeys(containers))
    return [order.index(name) for name in containers] if len(order) == outputs else list(range(len(places)))


def _counted(places: Sequence[AttentionPlace], slots: Sequence[int]) -> Slots:
    inputs = {slot for place, slot in zip(places, slots, strict=True) if place.block.startswith(_INPUT)}
    middles = {slot for place, slot in zip(places, slots, strict=True) if place.block.startswith(_MIDDLE)}
    return Slots(len(inputs), len(middles), len(set(slots)) - len(inputs) - len(middles))


def _combined(embeddings: Tensor, how: Combine) -> Tensor:
    """Embeddings of several pictures (n, ...) as one (1, ...), or all of them."""
    if how is Combine.concat or len(embeddings) == 1:
        return embeddings
    if how is Combine.average:
        return embeddings.mean(dim=0, keepdim=True)
    if how is Combine.norm_average:
        return (embeddings / embeddings.square().sum(dim=0, keepdim=True).sqrt()).mean(dim=0, keepdim=True)
    if how is Combine.add:
        return embeddings.sum(dim=0, keepdim=True)
    return embeddings[:1] - embeddings[1:].mean(dim=0, keepdim=True)


def _wanted(sizes: ProjectionSizes, tensors: Embeddings) -> dict[str, int]:
    """The embeddings that a projection reads, and their widths."""
    if sizes.kind is Projection.linear:
        return {IMAGE: sizes.reads}
    if sizes.kind is Projection.face_plus:
        return {FACE: sizes.reads, HIDDEN: sizes.clip}
    if sizes.kind is Projection.face:
        return {FACE: sizes.reads}
    if sizes.reads == _FACE_WIDTH:
        return {RAW_FACE if RAW_FACE in tensors else FACE: sizes.reads}
    return {HIDDEN: sizes.reads}


def tell(wanted: Mapping[str, int], tensors: Embeddings, settings: UnitSettings, zeros: int = 1) -> Told:
    """What one picture of the batch is told: embeddings of the `wanted` widths by name.

    zeros: how many pictures of nothing the other rows hear, 0 for as many as there are. Raises PreprocessorError,
    UnitError.
    """
    cond = {name: _checked(tensors, name, width, settings) for name, width in wanted.items()}
    kind = settings.image_prompt.uncond
    if kind is Uncond.picture or all(UNCOND + name in tensors for name in wanted):
        if any(UNCOND + name not in tensors for name in wanted):
            raise UnitError(
                "the rows of the negative prompt are to get a picture of their own, and there is none",
                unit=settings.unit,
                field="ip_uncond_image",
                remedy='give one, or set uncond to "zero"',
            )
        return Told(cond, {name: _checked(tensors, UNCOND + name, width, settings) for name, width in wanted.items()})
    zero = {
        name: _checked(tensors, ZERO_HIDDEN, width, settings)
        if name == HIDDEN
        else torch.zeros_like(cond[name][: zeros or None], dtype=torch.float32)
        for name, width in wanted.items()
    }
    if kind is Uncond.zero:
        return Told(cond, zero)
    return Told(cond, {name: _noised(zero[name], cond[name], settings) for name in wanted})


def _noised(zero: Tensor, like: Tensor, settings: UnitSettings) -> Tensor:
    generator = torch.Generator().manual_seed(settings.checkpoint().seed)
    noise = torch.randn(zero.shape, generator=generator)
    return zero.float().cpu() + settings.image_prompt.noise * float(like.float().std()) * noise


def _checked(tensors: Embeddings, name: str, width: int, settings: UnitSettings) -> Tensor:
    found = tensors.get(name)
    dims = 2 if name.removeprefix(UNCOND) in ROWS else 3
    if found is not None and found.dim() == dims and found.shape[-1] == width and len(found):
        return found
    have = "; ".join(f"{key} {tuple(value.shape)}" for key, value in tensors.items()) or "none"
    shape = f"(pictures, {'tokens, ' if dims == 3 else ''}{width})"
    raise PreprocessorError(
        "the embedding is not the one that the IP-Adapter reads",
        unit=settings.unit,
        field="ipadapter_input",
        found=f"{have}; it reads {name} {shape}",
        remedy="make it with the preprocessor that ip-adapter-auto chooses for this model",
    )

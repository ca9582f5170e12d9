"""PuLID (arXiv 2404.16022) v1 and v1.1: a face's identity in SDXL's attentions to the prompt, as its authors publish it
and as it was converted for sd-webui-controlnet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..core.embeddings import IDENTITY, PULID, SEEN
from ..core.errors import PreprocessorError, UnitError
from ..core.hints import Hint
from ..core.modes import PulidMode
from ..loading.build import fill
from ..loading.detect import KeyCondition
from ..loading.lazy import outlines
from ..nets.image_tokens import attended_by
from ..nets.operations import Operations
from ..nets.pulid import IDENTITY_TOKENS, Pulid, PulidConfig
from ..nets.residence import Residence
from .base import BaseModel, PlainModel, Runtime, Sheet, UnitSettings, Weights
from .image_prompts import BoundImagePrompt, Embeddings, Hearing, tell
from .ip_adapter import check_attentions, disagreement, made_for, outputs_of

_NOTHING: Mapping[PulidMode, int] = {PulidMode.fidelity: 8, PulidMode.style: 16, PulidMode.neutral: 0}
"""Tokens of zeros beside the face's, to which a query may attend in place of it."""


class PulidFamily:
    """Detects by the projection, which is no IP-Adapter's."""

    id = "pulid"
    shares: Mapping[str, float] = {}
    before: Sequence[str] = ()
    condition = KeyCondition(
        all_of=("ip_adapter.*",),
        any_of=("image_proj.mapping_0.*", "image_proj.id_embedding_mapping.*"),
    )

    def load(self, path: Path, weights: Weights, metadata: Mapping[str, str], runtime: Runtime) -> LoadedPulid:
        """Builds the network and fills it. Raises ModelFileError where names or shapes do not fit."""
        del metadata
        config = PulidConfig.from_weights(outlines(weights))
        exact = Operations(torch.float32)
        net = fill(
            lambda: Pulid(config, Operations(), exact), weights, dtype=runtime.dtype, device="cpu", name=path.name
        )
        return LoadedPulid(path, net)

    def inspect(self, path: Path, weights: Weights) -> Sheet:
        """What the shapes tell before the file is loaded."""
        del path
        pairs = PulidConfig.from_weights(outlines(weights)).pairs
        return Sheet(
            outputs_of(pairs),
            made_for(pairs),
            lambda base: not disagreement(pairs, base.config),
            embeddings=(PULID,),
        )


FAMILY = PulidFamily()


class LoadedPulid(PlainModel):
    """One file's network."""

    embeddings: Sequence[str] = (PULID,)

    def __init__(self, path: Path, net: Pulid) -> None:
        self.path = path
        self.net = net
        self.residence = Residence(net, streams=False)
        self.outputs = outputs_of(net.config.pairs)
        self.ramp = (1.0,) * self.outputs
        """The control mode says nothing to a face that acts as a prompt."""

    def check(self, base: BaseModel) -> None:
        """Raises BaseModelError where `base` has not the attentions for which this file has keys and values."""
        check_attentions(self.path, self.net.config.pairs, base, "a PuLID")

    def bind(self, hints: Sequence[Hint], settings: UnitSettings) -> BoundPulid:
        """The face's embeddings, one table or one for each image of the batch, as what the U-Net is to hear.

        Raises PreprocessorError where there are none, or others than PuLID reads.
        """
        if hints or not settings.tensors or not any(settings.tensors):
            raise PreprocessorError(
                f'"{self.path.name}" takes the embedding of a face, and the preprocessor makes a map',
                unit=settings.unit,
                field="module",
                remedy="choose ip-adapter_pulid",
            )
        return BoundPulid(self.net, self.residence, self.outputs, settings)


class BoundPulid(BoundImagePrompt):
    """A face beside the prompt, less what the prompt says of it already."""

    def __init__(self, net: Pulid, residence: Residence, outputs: int, settings: UnitSettings) -> None:
        config = net.config
        wanted = {IDENTITY: config.identity.reads} | {
            name: sizes.reads for name, sizes in zip(SEEN, config.seen, strict=True)
        }
        # As the authors: v1 has tokens for each picture, of nothing too; v1.1 always as many.
        zeros = 1 if config.queries else 0
        told = [tell(wanted, tensors, settings, zeros) for tensors in settings.tensors]
        super().__init__(net, residence, outputs, told, settings)
        self._net = net
        self._mode = settings.pulid_mode

    def _heard(self, embeddings: Embeddings) -> Tensor:
        given = self._given(embeddings)
        tokens = self._net.image_proj(given[IDENTITY], [given[name] for name in SEEN])
        return torch.nn.functional.pad(tokens, (0, 0, 0, _NOTHING[self._mode]))

    def _evened(self, heard: Sequence[Tensor]) -> Sequence[Tensor]:
        lengths = sorted({part.shape[1] for part in heard})
        if len(lengths) > 1:
            raise UnitError(
                "PuLID takes as many faces for each picture, and for the negative prompt",
                unit=self._settings.unit,
                field="ipadapter_input",
                found=f"embeddings that give {lengths[0]} and {lengths[-1]} tokens",
                remedy="give each the same number of pictures",
            )
        return heard

    def _hearing(self, number: int, heads: int, factor: float, swap: bool) -> Hearing:
        return _Hearing(self, number, heads, factor, swap, self._mode)


class _Hearing(Hearing):
    def __init__(self, bound: BoundPulid, number: int, heads: int, factor: float, swap: bool, mode: PulidMode) -> None:
        super().__init__(bound, number, heads, factor, swap)
        self._mode = mode

    def mixed(self, queries: Tensor, attended: Tensor, keys: Tensor, values: Tensor, weight: float) -> Tensor:
        """What was attended to (B, N, C), and beside it the face.

        The sums go over all positions of the picture, so that a piece of it alone would be another one.
        """
        told, face = attended.float(), attended_by(queries, keys, values, self.heads).float()
        if self._mode is PulidMode.neutral:
            return (told + weight * face).to(attended)
        # Where nothing was attended to, as without a prompt, nothing is taken away.
        length = (told * told).sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        shared = (told * face).sum(dim=1, keepdim=True) / length * told
        if self._mode is PulidMode.style:
            return (told + weight * (face - shared)).to(attended)
        heed = _heed(queries.float(), keys.float(), self.heads)
        return (told + weight * (face + (heed - 1.0) * shared)).to(attended)


def _heed(queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """How much each query (B, N, C) heeds who it is, not how the face looks: (B, N, 1), 0 to 1.

    As the authors, by products that are not divided by the root of their length.
    """
    q, k = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (queries, keys))
    shares = (q @ k.transpose(-2, -1)).softmax(dim=-1).mean(dim=1)
    return shares[..., :IDENTITY_TOKENS].sum(dim=-1, keepdim=True)

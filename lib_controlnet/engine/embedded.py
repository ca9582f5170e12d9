"""Embeddings as a unit's control models read them: of several pictures, handed in, and with one for uncond rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.embedding_input import stacked
from ..core.embeddings import UNCOND, words
from ..core.errors import PreprocessorError
from ..core.preprocessors import PreprocessorSpec
from ..core.units import ControlNetUnit
from ..families.base import ControlModel
from .preprocess import Found, PreprocessResult
from .preprocess_settings import Asked, used_settings


def check_kind(unit: ControlNetUnit, spec: PreprocessorSpec, model: ControlModel) -> None:
    """Raises PreprocessorError where the model does not read what the preprocessor gives."""
    if not model.embeddings:
        if unit.embeddings or unit.uncond_image is not None:
            raise PreprocessorError(
                f'"{model.path.name}" reads no embeddings of pictures',
                field="ipadapter_input" if unit.embeddings else "ip_uncond_image",
                remedy="leave them out, or choose a model that does",
            )
        return
    unknown = not spec.returns_image and not spec.embedding  # another extension's
    if unit.embeddings or unknown or spec.embedding in model.embeddings:
        return
    raise PreprocessorError(
        f'"{model.path.name}" does not read what the preprocessor "{spec.label}" gives',
        field="module",
        found=f"{words(spec.embedding) if spec.embedding else 'a map'}; "
        f"the model reads {' or '.join(words(kind) for kind in model.embeddings)}",
        remedy='choose "ip-adapter-auto", or another preprocessor for this model',
    )


def given(unit: ControlNetUnit, spec: PreprocessorSpec) -> PreprocessResult:
    """The embeddings that the caller has handed in. The settings are the defaults: the infotext is to be read again."""
    size, params, _ = used_settings(spec, Asked())
    return PreprocessResult(Found(None, None, stacked(unit.embeddings)), spec, size, params)


def together(results: Sequence[PreprocessResult]) -> PreprocessResult:
    """The embeddings of several pictures as those of one unit."""
    tables = [result.found.tensors or {} for result in results]
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    return replace(results[0], found=Found(None, None, stacked(tables)), notes=notes)


def beside(result: PreprocessResult, own: Sequence[PreprocessResult]) -> PreprocessResult:
    """The embeddings with those of the picture that uncond rows hear, if there is one."""
    if not own:
        return result
    tensors, of_uncond = dict(result.found.tensors or {}), own[0].found.tensors or {}
    tensors.update({UNCOND + name: value for name, value in of_uncond.items()})
    return replace(result, found=replace(result.found, tensors=tensors))

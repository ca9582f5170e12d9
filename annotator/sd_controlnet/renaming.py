"""Weights under the names of their first publication, for the classes of a library that calls them otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from .networks import fill, read_weights, ready
from .spec import AnnotatorError, Runtime, WeightFile
from .weights import find

Weights = dict[str, Tensor]
Table = Sequence[tuple[str, str]]
"""Regular expressions and what takes their place; applied to a name one after the other."""
Module = TypeVar("Module", bound=nn.Module)

DPT_NAMES: Table = (
    *(
        (rf"^pretrained\.act_postprocess{n + 1}\.0\.project\.", f"neck.reassemble_stage.readout_projects.{n}.")
        for n in range(4)
    ),
    *(
        (rf"^pretrained\.act_postprocess{n + 1}\.3\.", f"neck.reassemble_stage.layers.{n}.projection.")
        for n in range(4)
    ),
    *((rf"^pretrained\.act_postprocess{n + 1}\.4\.", f"neck.reassemble_stage.layers.{n}.resize.") for n in range(4)),
    *((rf"^scratch\.layer{n + 1}_rn\.", f"neck.convs.{n}.") for n in range(4)),
    *((rf"^scratch\.refinenet{n + 1}\.", f"neck.fusion_stage.layers.{3 - n}.") for n in range(4)),
    (r"\.out_conv\.", ".projection."),
    (r"\.resConfUnit(\d)\.conv(\d)\.", r".residual_layer\1.convolution\2."),
)
"""From the names of the decoder of Ranftl et al., which MiDaS, ZoeDepth and Depth Anything share, to transformers'."""


def renamed(weights: Mapping[str, Tensor], table: Table) -> Weights:
    """`weights` with every substitution of `table` made in every name."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in table]
    found: Weights = {}
    for name, tensor in weights.items():
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        found[name] = tensor
    return found


def split(weights: Mapping[str, Tensor], joined: str, parts: tuple[str, ...]) -> Weights:
    """`weights` whose tensors of the layers called `joined` are cut into the equal `parts` they were stacked from."""
    found: Weights = {}
    for name, tensor in weights.items():
        steps = name.split(".")
        if len(steps) < 2 or steps[-2] != joined:
            found[name] = tensor
            continue
        for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
            found[".".join([*steps[:-2], part, steps[-1]])] = piece.clone()
    return found


def as_installed(weights: Weights, module: nn.Module, newer: Table) -> Weights:
    """`weights` under the names that `module` has: those of the first versions of its library, or the `newer` ones."""
    own = module.state_dict().keys()
    return max((weights, renamed(weights, newer)), key=lambda candidate: len(candidate.keys() & own))


def count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where `pattern` has its group."""
    found = (re.search(pattern, name) for name in weights)
    return len({match[1] for match in found if match})


def load_sized(runtime: Runtime, weight: WeightFile, build: Callable[[Weights], tuple[Module, Weights]]) -> Module:
    """The network of one weight file whose sizes follow from the file, `ready`.

    `build` makes the module from the weights and renames them for it. Raises `AnnotatorError` for a file that is
    damaged or of another network.
    """
    path = find(weight, runtime)
    return ready(_built(path, build), runtime)


def _built(path: Path, build: Callable[[Weights], tuple[Module, Weights]]) -> Module:
    weights = read_weights(path)
    try:
        network, fitting = build(weights)
    except KeyError as error:
        raise AnnotatorError(
            f"the weights in {path.name} are not those of this preprocessor",
            found=f"no {error.args[0]} among its {len(weights)} tensors",
            remedy=f"delete {path} and get the right file",
        ) from error
    return fill(network, fitting, path)

"""The command that makes a Control-LoRA of a ControlNet.

    python launch.py extract-lora CONTROLNET --base CHECKPOINT [--rank 128 | --size 0.2] [--out FILE] [--json]

With `--size` each matrix gets the rank that it needs within a file of that part of the ControlNet's size, which is much
better than one rank for all; `--dtype fp8` makes room for twice the factors. The rest comes from the checkpoint
when it is loaded; with another checkpoint of the kind it steers that one. What this costs is measured on the residuals
and said.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from lib_controlnet.core.errors import ControlNetError, ModelFileError
from lib_controlnet.families.controlnet import DIFFERENCE_KEY
from lib_controlnet.families.registry import discover, find_family
from lib_controlnet.loading.build import fill
from lib_controlnet.loading.canonical import canonical
from lib_controlnet.loading.difference import add_base
from lib_controlnet.loading.extract import low_rank, ranks_within
from lib_controlnet.loading.lazy import outlines
from lib_controlnet.loading.low_rank import STABILITY, merge_base
from lib_controlnet.loading.reader import read_weights
from lib_controlnet.loading.whole import unet_of
from lib_controlnet.nets.config import ControlNetConfig
from lib_controlnet.nets.controlnet import ControlNet
from lib_controlnet.training.export import write_weights

from ..annotate.options import UsageError, make_folder

_CALLS, _LATENT = (50.0, 350.0, 650.0, 950.0), 32
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp8": torch.float8_e4m3fn}
_WHOLE = {"fp8": torch.float16}
"""Types of what is not in factors, where those of the factors would not do."""
_NAMES = 75
"""Bytes in a file's header for a tensor, beside its name."""
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Made:
    """What was written. error: norm of the residuals' difference to the ControlNet's, beside that of the residuals."""

    path: Path
    size: int
    of_size: int
    error: float


def main(argv: Sequence[str]) -> int:
    """Exit code 0 after the file is written, 1 after an error that is told."""
    options = _parser().parse_args(argv)
    try:
        wanted = options.rank if options.size is None else options.size
        if options.out is not None:  # said before minutes of work
            if options.out.is_dir():
                raise UsageError(f'--out "{options.out}" is a folder: name a file in it')
            make_folder(options.out.parent)
        made = extract(options.controlnet, options.base, wanted, options.out, options.dtype, quiet=options.json)
    except (ControlNetError, UsageError, OSError) as error:
        print(
            json.dumps({"error": str(error)}) if options.json else f"launch.py extract-lora: {error}", file=sys.stderr
        )
        return 1
    report = {
        "file": str(made.path),
        "bytes": made.size,
        "part_of_controlnet": round(made.size / made.of_size, 4),
        "residual_error": round(made.error, 5),
    }
    print(json.dumps(report) if options.json else _text(made))
    return 0


def extract(
    controlnet: Path,
    base: Path,
    wanted: int | float,
    out: Path | None = None,
    dtype: str = "fp16",
    *,
    quiet: bool = True,
) -> Made:
    """Writes the Control-LoRA of a ControlNet file beside it, or to `out`. Raises ControlNetError.

    wanted: the rank of every matrix, an int; or the part of the ControlNet's size that the file is to have, a float.
    """
    unet = unet_of(read_weights(base).weights, base, "base")
    control = control_weights(controlnet, unet)
    with tqdm(total=100, unit="%", disable=quiet, leave=False) as bar:
        ranks = wanted
        if isinstance(ranks, float):
            room = _room(control, unet, controlnet.stat().st_size * ranks, dtype)
            ranks = ranks_within(control, unet, room, lambda part: _move(bar, part / 2))
        factors = low_rank(control, unet, ranks, lambda part: _move(bar, part))
    name = f"size{wanted:g}" if isinstance(wanted, float) else f"rank{wanted}"
    path = out or controlnet.with_name(f"{controlnet.stem}_lora_{name}.safetensors")
    told = {"base": base.name, "controlnet": controlnet.name, "rank": str(wanted)}
    types = {
        key: _TYPES[dtype] if key.endswith(STABILITY.factors) else _WHOLE.get(dtype, _TYPES[dtype]) for key in factors
    }
    write_weights({key: value.to(types[key]) for key, value in factors.items()}, path, told, None)
    error = residual_error(control, merge_base(canonical(read_weights(path).weights), unet))
    return Made(path, path.stat().st_size, controlnet.stat().st_size, error)


def _room(control: Weights, base: Weights, size: float, dtype: str) -> int:
    """How many numbers the factors may have in a file of `size` bytes. Raises ModelFileError where it is too small."""
    whole = [key for key in control if key not in base or control[key].dim() < 2]
    kept = sum(outlines(control)[key].numel() for key in whole) * _WHOLE.get(dtype, _TYPES[dtype]).itemsize
    named = sum((len(key) + _NAMES) * (1 if key in whole else 2) for key in control)
    left = size - kept - named
    if left <= 0:
        raise ModelFileError(
            "the file cannot be as small as that",
            field="size",
            found=f"{size / 1e6:.2f} MB, of which {kept / 1e6:.2f} MB are the hint encoder and other parts of its own",
            remedy="give a larger part",
        )
    return int(left / _TYPES[dtype].itemsize)


def _move(bar: tqdm[NoReturn], part: float) -> None:
    bar.update(int(part * 100) - bar.n)


def control_weights(path: Path, base: Weights) -> Weights:
    """The ControlNet in canonical names. Raises ModelFileError where the file is of another kind."""
    weights = canonical(read_weights(path).weights)
    family = find_family(weights, discover())
    if family is None or family.id != "controlnet":
        raise ModelFileError(
            f'"{path.name}" is no ControlNet',
            field="controlnet",
            found="another kind of file" if family is None else f"a file of the kind {family.id}",
            remedy="name a ControlNet of SD 1.x, SD 2.x or SDXL",
        )
    return add_base(weights, base) if DIFFERENCE_KEY in weights else weights


@torch.no_grad()
def residual_error(control: Weights, other: Weights) -> float:
    """How far the residuals of two ControlNets lie apart, relative to the first's, over shapes, noise and timesteps."""
    config = ControlNetConfig.from_weights(outlines(control))
    one, two = (_network(config, weights) for weights in (control, other))
    generator = torch.Generator().manual_seed(0)
    away = whole = 0.0
    for timestep in _CALLS:
        given = _inputs(config, timestep, generator)
        for mine, theirs in zip(_residuals(one, given), _residuals(two, given), strict=True):
            away += float((mine - theirs).square().sum())
            whole += float(mine.square().sum())
    return (away / whole) ** 0.5 if whole else 0.0


def _network(config: ControlNetConfig, weights: Weights) -> ControlNet:
    return fill(lambda: ControlNet(config), weights, torch.float32, "cpu", name="the ControlNet")


@dataclass(frozen=True)
class _Given:
    x: Tensor
    hint: Tensor
    timesteps: Tensor
    context: Tensor
    y: Tensor | None


def _inputs(config: ControlNetConfig, timestep: float, generator: torch.Generator) -> _Given:
    """Noise for a latent, a text and, of the maps that there are, blots with sharp edges."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    blots = functional.interpolate(drawn(1, config.hint_channels, 12, 12), (_LATENT * 8, _LATENT * 8), mode="bicubic")
    width = config.unet.adm_channels
    return _Given(
        drawn(1, config.unet.in_channels, _LATENT, _LATENT),
        (blots > 0.0).float(),
        torch.tensor([timestep]),
        drawn(1, 77, config.unet.context_dim),
        None if width is None else drawn(1, width),
    )


def _residuals(net: ControlNet, given: _Given) -> Sequence[Tensor]:
    return net(given.x, net.encode_hint(given.hint), given.timesteps, given.context, given.y)


def _text(made: Made) -> str:
    return (
        f"{made.path}\n{made.size / 1e6:.1f} MB, {made.size / made.of_size:.0%} of the ControlNet; "
        f"its residuals are {made.error:.1%} off."
    )


def _rank(text: str) -> int:
    rank = int(text)
    if rank < 1:
        raise argparse.ArgumentTypeError("a rank is 1 or more")
    return rank


def _part(text: str) -> float:
    part = float(text)
    if not 0 < part < 1:
        raise argparse.ArgumentTypeError("a part lies between 0 and 1")
    return part


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py extract-lora", description="Make a Control-LoRA of a ControlNet.")
    parser.add_argument("controlnet", type=Path, help="the ControlNet's file")
    parser.add_argument("--base", type=Path, required=True, help="the checkpoint that it was trained on")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rank", type=_rank, default=128, help="directions kept of each matrix (128)")
    size.add_argument(
        "--size", type=_part, metavar="PART", help="0..1: of the ControlNet's size; ranks by what they save"
    )
    parser.add_argument("--out", type=Path, help="the file to write (beside the ControlNet)")
    parser.add_argument(
        "--dtype", choices=sorted(_TYPES), default="fp16", help="type of the weights (fp16); fp8: of factors"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

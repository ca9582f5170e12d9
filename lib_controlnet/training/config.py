"""A training as a TOML file: which base, which kind of control, which data, how it is optimised, shown and saved.

Paths in a file are relative to the file. Unknown keys are errors, so that a misspelt option cannot be lost.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .bounds import check_bounds, within
from .errors import TrainingError
from .options import TrainOptions

Table = TypeVar("Table")
CAPTION_FILES = ("pictures", "kohya")
"""Formats in which each picture has its caption in a file of the same name."""
LINTS = (
    "rate", "empty captions", "long captions", "few", "no looks", "duplicates", "held out", "one map", "duplicate maps",
    "small maps", "constant", "same", "faint", "swapped", "shuffled",
)  # fmt: skip
"""What a data set can be found to be (lints.py), as `data.accept` names it."""
COMPARED = ("lines", "depth", "normals", "segments", "regions", "pictures", "colours")
"""Kinds of maps of which a comparison needs nothing but the maps (measure/metrics.py)."""
_HINT_LEVELS = 4
_FORBIDDEN = set('<>:"/\\|?*')


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """`checkpoint`: an SD 1.x, 2.x or SDXL file with its VAE and text encoders. `start`: a control of the same kind and
    base to go on from; without it the base's encoder is copied, or a new network made. `prediction` "auto" looks into
    the file. `vae`: another file's VAE. `hint_widths`: channels of a new hint encoder; `hint_init` "he" keeps the
    signal's level through it."""

    checkpoint: Path
    start: Path | None = None
    vae: Path | None = None
    prediction: Literal["auto", "epsilon", "velocity"] = "auto"
    hint_widths: tuple[int, ...] = within(1, 4096, (16, 32, 96, 256))
    hint_init: Literal["torch", "he"] = "torch"

    def __post_init__(self) -> None:
        check_bounds(self, "base")
        if len(self.hint_widths) != _HINT_LEVELS:
            raise TrainingError("hint_widths must be four numbers", field="base.hint_widths", found=self.hint_widths,
                                remedy="the paper's are [16, 32, 96, 256]")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ControlOptions:
    """What is trained. `kind`: of control, see kinds/. `rank`: of a Control-LoRA's and a CtrLoRA's changes, and the
    width of an LLLite's modules, whose condition has `condition_channels`. `layers`: before which an LLLite acts, the
    "attention" of encoder and middle as in kohya's, or "all" of their projections and convolutions. `light`: a
    T2I-Adapter squeezes its channels; `gray`: it reads of the map how light it is, as those of lines do. `ratio`: of a
    ControlNet-XS's width to the U-Net's."""

    kind: Literal["controlnet", "control_lora", "lllite", "t2i_adapter", "controlnet_xs", "ctrlora"] = "controlnet"
    rank: int = within(1, 4096, 64)
    condition_channels: int = within(2, 4096, 32)
    layers: Literal["attention", "all"] = "attention"
    light: bool = False
    gray: bool = False
    ratio: float = within(0.001, 1, 0.1)

    def __post_init__(self) -> None:
        check_bounds(self, "control")
        if self.condition_channels % 2:
            raise TrainingError("condition_channels must be even", field="control.condition_channels",
                                found=self.condition_channels, remedy="kohya's is 32")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """`format`: see readers.py. `resolution`: of the short side, in pixels. `aspect`: "crop" cuts squares from the
    middle; "buckets" keeps the picture's shape to 64 pixels at about the area of the square. `held_out`: pictures
    that are not trained on and are sampled instead. `preprocessor` makes the maps of plain pictures; in other formats
    it says what made them. `control_folder`: kohya's `conditioning_data_dir`, `metadata` its JSON file with captions.
    `picture_column`, `hint_column`, `caption_column`: of a table whose columns have unusual names. `count`: only so
    many pictures, 0: all. `text_cache`: GiB of the disk for encoded prompts; those beyond are encoded at each visit.
    `accept`: findings of the check (see LINTS) that are meant to be so. `stream`: so many pairs are looked at, encoded
    and trained on before the next are opened, 0: all at once; `pass_over`: the share of them that may be unusable then.
    `captions`, where they are files beside the pictures: "files" must all be there; what lacks is written by the host's
    "interrogator"; "none" reads none and trains without prompts.
    """

    folder: Path = Path()
    format: str = "fill50k"
    resolution: int = within(64, 8192, 512)
    aspect: Literal["crop", "buckets"] = "crop"
    held_out: int = within(0, 10**4, 8)
    preprocessor: str = "none"
    preprocessor_params: tuple[float, ...] = within(-1e9, 1e9, ())
    control_folder: Path | None = None
    metadata: Path | None = None
    picture_column: str = ""
    hint_column: str = ""
    caption_column: str = ""
    captions: Literal["files", "interrogator", "none"] = "files"
    caption_extension: str = ".txt"
    allow_empty_captions: bool = False
    control: str = ""
    accept: tuple[str, ...] = ()
    count: int = within(0, 10**9, 0)
    text_cache: float = within(0, 1e6, 20.0)
    stream: int = within(0, 10**9, 0)
    pass_over: float = within(0, 1, 0.02)

    def __post_init__(self) -> None:
        check_bounds(self, "data")
        if self.resolution % 8:
            raise TrainingError("the resolution must be a multiple of 8, from 64 on", field="data.resolution",
                                found=self.resolution, remedy="use the base's own: 512, 768 or 1024")  # fmt: skip
        suffix = self.caption_extension.strip()
        if not suffix.strip(".") or set(suffix) & _FORBIDDEN:
            raise TrainingError("the captions' files need a suffix", field="data.caption_extension",
                                found=f'"{self.caption_extension}"', remedy='use ".txt" or ".caption"')  # fmt: skip
        for name in self.accept:
            if name not in LINTS:
                raise TrainingError("there is no such finding", field="data.accept", found=f'"{name}"',
                                    remedy=f"there are: {', '.join(LINTS)}")  # fmt: skip
        if self.stream and self.captions == "interrogator":
            raise TrainingError("captions are written before a training, and a stream is not looked through before it",
                                field="data.captions", found='"interrogator" with data.stream',
                                remedy='write them with stream = 0, then set captions = "files"')  # fmt: skip
        # kohya's users write it with and without the dot
        object.__setattr__(self, "caption_extension", suffix if suffix.startswith(".") else f".{suffix}")
        if self.captions != "files" and self.format not in CAPTION_FILES:
            raise TrainingError("only files beside pictures can be left out or written", field="data.captions",
                                found=f'"{self.captions}" with format "{self.format}"',
                                remedy=f"use it with data.format {' or '.join(CAPTION_FILES)}")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Pictures drawn from held-out conditions every `every` steps (0: never): DDIM, the paper's 20 steps and CFG 9.

    `preprocessor` is run on them and the result compared with the condition if it made that, else with its map of the
    true picture; "" takes that of the data, or canny where there is none. `measure`: "auto" follows from what the
    preprocessor's maps show; "lines" is the F1 of lines within 2 pixels, "pixels" 1 minus the mean difference.
    """

    every: int = within(0, 10**8, 300)
    steps: int = within(1, 1000, 20)
    cfg: float = within(0, 1000, 9.0)
    seed: int = within(0, 2**63 - 1, 0)
    preprocessor: str = ""
    measure: Literal["auto", "lines", "pixels", "depth", "normals", "segments", "regions", "pictures", "colours"] = (
        "auto"
    )

    def __post_init__(self) -> None:
        check_bounds(self, "samples")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """`folder` gets everything; the model is `name`.safetensors there. `save_every`: steps between states from which
    a killed training goes on, of which the newest `keep` stay. `formats`: "v1.1" is one file under cldm's names,
    "diffusers" a folder. `control_type`, `license`, `title` go into the file's metadata. `tensorboard` and `wandb`
    write logs for these programs; "offline" keeps them on this computer."""

    folder: Path
    name: str
    title: str = ""
    control_type: str = ""
    license: str = ""
    save_every: int = within(1, 10**8, 500)
    keep: int = within(1, 10**4, 2)
    formats: tuple[Literal["v1.1", "diffusers"], ...] = ("v1.1",)
    tensorboard: bool = False
    wandb: Literal["off", "offline", "online"] = "off"

    def __post_init__(self) -> None:
        check_bounds(self, "output")
        if not self.name.strip(". ") or set(self.name) & _FORBIDDEN or not self.name.isprintable():
            raise TrainingError("the model needs a name that can be a file's", field="output.name", found=self.name,
                                remedy="letters, digits, spaces, dots and hyphens are right everywhere")  # fmt: skip
        if not self.formats:
            raise TrainingError("a training needs a format to be written in", field="output.formats", found="none",
                                remedy='use ["v1.1"], ["diffusers"] or both')  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training."""

    base: BaseOptions
    data: DataOptions
    train: TrainOptions
    output: OutputOptions
    samples: SampleOptions = field(default_factory=SampleOptions)
    control: ControlOptions = field(default_factory=ControlOptions)

    def __post_init__(self) -> None:
        if self.train.only_mid_control and self.control.kind != "controlnet":
            raise TrainingError("only a ControlNet has a middle output of its own", field="train.only_mid_control",
                                found=f'kind "{self.control.kind}"', remedy="set it to false")  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """All settings with plain values, for metadata and for telling whether a state belongs to this training."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))


def read_config(path: Path, **changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration in `path`; `changes` are keys of sections that take the place of the file's.

    Raises TrainingError for a file that cannot be read, an unknown key, or a value of the wrong type.
    """
    library = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        tables = library.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise TrainingError(f'"{path}" cannot be read', field="configuration", found=str(error)) from error
    for section, values in changes.items():
        tables[section] = {**tables.get(section, {}), **values}
    return config_from(tables, path.resolve().parent)


def config_from(tables: Mapping[str, Any], folder: Path) -> TrainConfig:
    """The configuration in `tables`; relative paths start at `folder`."""
    kinds = get_type_hints(TrainConfig)
    _no_others(tables, kinds, "")
    sections: dict[str, Any] = {}
    for name, kind in kinds.items():
        if not isinstance(tables.get(name, {}), Mapping):
            raise TrainingError(f"[{name}] must be a section", field=name, found=tables[name])
        sections[name] = _section(kind, tables.get(name, {}), name, folder)
    return TrainConfig(**sections)


def _section(kind: type[Table], values: Mapping[str, Any], section: str, folder: Path) -> Table:
    hints = get_type_hints(kind)
    _no_others(values, hints, section)
    fields: Any = dataclasses.fields(kind)  # type: ignore[arg-type]
    for missing in (f.name for f in fields if f.name not in values and _required(f)):
        raise TrainingError(f"{missing} is missing", field=section, remedy=f"add it below [{section}]")
    return kind(**{key: _value(hints[key], value, f"{section}.{key}", folder) for key, value in values.items()})


def _required(f: Any) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _no_others(values: Mapping[str, Any], known: Mapping[str, Any], section: str) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise TrainingError(f'there is no option "{key}"', field=section or None, remedy=remedy)


def _value(kind: Any, value: Any, name: str, folder: Path) -> Any:
    """`value` as the option's type; TOML has arrays and strings for tuples and paths."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    if isinstance(value, str | Path) and "\0" in str(value):
        raise TrainingError(f"{name} cannot hold a zero byte", field=name, remedy="correct the configuration")
    if kind is Path and isinstance(value, str | Path):
        return folder / value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(kind) is Literal:
        fits, wanted = value in get_args(kind), " or ".join(f'"{option}"' for option in get_args(kind))
    elif get_origin(kind) is Mapping:
        if isinstance(value, Mapping):
            return {str(key): _value(get_args(kind)[1], one, f'{name}."{key}"', folder) for key, one in value.items()}
        fits, wanted = False, "a table"
    elif get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_value(get_args(kind)[0], item, name, folder) for item in value)
        fits, wanted = False, "a list"
    else:
        fits, wanted = type(value) is kind, kind.__name__
    if not fits:
        raise TrainingError(f"{name} must be {wanted}", field=name, found=value, remedy="correct the configuration")
    return value

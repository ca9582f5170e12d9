"""What one run of the command does to every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotator.sd_controlnet.spec import PreprocessorSpec, Slider

RESOLUTION = "resolution"
REPOSITORY = Path(__file__).resolve().parents[2]
OWN_WEIGHTS = REPOSITORY / "models" / "ControlNetPreprocessor"
OTHER_WEIGHTS = (
    REPOSITORY / "standalone" / "user" / "models" / "ControlNetPreprocessor",
    *((REPOSITORY.parents[1] / "models" / "ControlNetPreprocessor",) if REPOSITORY.parent.name == "extensions" else ()),
    REPOSITORY.parent / "sd-webui-controlnet" / "annotator" / "downloads",
)
"""Where a WebUI keeps them: the embedded one, the one that the repository is an extension of, and the peer there."""


class UsageError(Exception):
    """The command line does not say what can be done; the text is for the user."""


@dataclass(frozen=True)
class Options:
    """One preprocessor with its settings. Frozen and made of plain values: every worker process gets a copy.

    thresholds: values of the preprocessor's sliders in their order, -1 for the default. weights: folders searched
    before the repository's own; downloads go into the first of all. trusted: the sha256 of files with
    code that may run.
    """

    preprocessor: str
    resolution: int = -1
    thresholds: tuple[float, ...] = ()
    seed: int = 0
    masks: Path | None = None
    weights: tuple[Path, ...] = ()
    download: bool = False
    trusted: tuple[str, ...] = ()
    device: str = "cpu"
    overwrite: bool = False

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where weights are looked for."""
        return (*self.weights, OWN_WEIGHTS, *OTHER_WEIGHTS)

    @property
    def settings(self) -> dict[str, Any]:
        """What a map depends on beside its picture."""
        return {
            "preprocessor": self.preprocessor,
            RESOLUTION: self.resolution,
            "thresholds": list(self.thresholds),
            "seed": self.seed,
            "masks": str(self.masks or ""),
        }


def parameter_names(spec: PreprocessorSpec) -> list[str]:
    """The names `--param` takes: "resolution", then each slider's label in lower case with _ for spaces."""
    return [*([RESOLUTION] if spec.resolution else []), *(parameter_name(slider) for slider in spec.sliders)]


def parameter_name(slider: Slider) -> str:
    """ "Low Threshold" -> "low_threshold"."""
    words = "".join(letter if letter.isalnum() else " " for letter in slider.label.lower()).split()
    return "_".join(words)


def make_folder(folder: Path, option: str = "--out") -> None:
    """Raises UsageError where what an option names is no folder and cannot become one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = next((one for one in (folder, *folder.parents) if one.exists() and not one.is_dir()), None)
        found = f"{error.strerror}" if in_the_way is None else f'"{in_the_way}" is a file'
        raise UsageError(f'{option} "{folder}" cannot be a folder: {found}; choose another one') from error


def read_parameters(spec: PreprocessorSpec, given: Sequence[str]) -> dict[str, Any]:
    """`["low_threshold=50"]` as arguments of `Options`; `threshold_a` and `threshold_b` are the first two sliders.

    Raises UsageError for a name the preprocessor does not have, a value that is no number, and one outside the range
    (-1 asks for the default): a whole folder of maps would be of another setting than the one typed.
    """
    names = [parameter_name(slider) for slider in spec.sliders]
    places = {**dict(zip(("threshold_a", "threshold_b"), range(len(names)), strict=False))}
    places.update({name: place for place, name in enumerate(names)})
    resolution, thresholds = -1.0, [-1.0] * len(names)
    for item in given:
        name, _, text = item.partition("=")
        try:
            value = float(text)
        except ValueError as error:
            raise UsageError(f'--param {item}: give NAME=NUMBER, found "{text}" for the number') from error
        if name == RESOLUTION and spec.resolution:
            resolution = _within(item, value, spec.resolution)
        elif name in places:
            thresholds[places[name]] = _within(item, value, spec.sliders[places[name]])
        else:
            known = ", ".join(parameter_names(spec)) or "none"
            raise UsageError(f'--param {item}: {spec.id} has no "{name}"; it has: {known}')
    return {"resolution": int(resolution), "thresholds": tuple(thresholds)}


def _within(item: str, value: float, slider: Slider) -> float:
    if value == -1 or slider.minimum <= value <= slider.maximum:
        return value
    raise UsageError(f"--param {item}: out of range, give a number from {slider.minimum:g} to {slider.maximum:g}")

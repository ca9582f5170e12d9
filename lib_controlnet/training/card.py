"""The model card: what a control model is, what it was trained on and how, and how well it follows maps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .adherence import Point
from .config import TrainConfig
from .state import write_whole

CARD, IMAGES = "README.md", "images"
_TITLES = {
    "controlnet": "ControlNet",
    "control_lora": "Control-LoRA",
    "lllite": "ControlLLLite",
    "t2i_adapter": "T2I-Adapter",
    "controlnet_xs": "ControlNet-XS",
    "ctrlora": "CtrLoRA",
}
_READS = {
    "controlnet": "`ControlNetModel.from_pretrained` and every WebUI",
    "t2i_adapter": "`T2IAdapter.from_pretrained` and every WebUI",
    "controlnet_xs": "`ControlNetXSAdapter.from_pretrained`",
}
_COLUMNS = 3


@dataclass(frozen=True)
class Facts:
    """What a card tells besides the configuration. `grid`: of the last look, with columns map, picture, sample; its
    rows were drawn for `prompts`. `pairs`, `held_out`: as many as there were, whatever the configuration wished."""

    architecture: str
    pairs: int
    step: int
    files: Mapping[str, Path]
    curve: Sequence[Point] = ()
    floor: float | None = None
    ceiling: float | None = None
    grid: Path | None = None
    prompts: Sequence[str] = field(default=())
    held_out: int = 0


def write_card(config: TrainConfig, facts: Facts) -> Path:
    """README.md in the output folder, with the samples as pictures beside it. Raises TrainingError where the disk
    refuses."""
    folder = config.output.folder
    shown = _cut(facts, folder / IMAGES)
    path = folder / CARD
    text = card(config, facts, shown)
    write_whole(path, lambda partial: partial.write_text(text, "utf-8"))
    return path


def _cut(facts: Facts, folder: Path) -> list[str]:
    """Each sample of the grid as a picture of its own; their names."""
    if facts.grid is None or not facts.grid.is_file() or not facts.prompts:
        return []
    names: list[str] = []
    with Image.open(facts.grid) as grid:
        width, height = grid.width // _COLUMNS, grid.height // len(facts.prompts)
        for row in range(len(facts.prompts)):
            for column, name in ((0, f"map-{row}.png"), (2, f"sample-{row}.png")):
                box = (column * width, row * height, (column + 1) * width, (row + 1) * height)
                part = grid.crop(box)
                write_whole(folder / name, lambda partial, part=part: part.save(partial, "PNG"))
            names.append(f"sample-{row}.png")
    return names


def card(config: TrainConfig, facts: Facts, shown: Sequence[str]) -> str:
    """The text. `shown`: names of samples below `images/`, one a prompt."""
    output, kind = config.output, config.control.kind
    title, kind_title = output.title or output.name, _TITLES.get(kind, kind)
    lines = ["---", *_license(output.license), f"tags: [{', '.join(_tags(kind, facts))}]"]
    if "diffusers" in facts.files:
        lines.append("library_name: diffusers")
    if shown:
        lines.append("widget:")
    for prompt, name in zip(facts.prompts, shown, strict=False):
        lines += [f"- text: {json.dumps(prompt)}", f"  output:\n    url: {IMAGES}/{name}"]
    lines += ["---", "", f"# {title}", "", f"A {kind_title} for {facts.architecture}"
              f"{f', steered by {output.control_type} maps' if output.control_type else ''}."]  # fmt: skip
    lines += ["", *_files(kind, facts), "", "## Figures", "", *_figures(facts)]
    if shown:
        lines += ["", "| map | sample | prompt |", "|---|---|---|"]
        lines += [f"| ![]({IMAGES}/map-{row}.png) | ![]({IMAGES}/{name}) | {_cell(facts.prompts[row])} |"
                  for row, name in enumerate(shown)]  # fmt: skip
    lines += ["", "## Data", "", *_data(config, facts), "", "## Recipe", "", *_recipe(config, facts)]
    lines += ["", "## License", "", output.license or "None was given.", ""]
    return "\n".join(lines)


def _license(text: str) -> list[str]:
    """Of the card's head: the hub knows short names, others are "other"."""
    if not text:
        return []
    if re.fullmatch(r"[A-Za-z0-9.+-]+", text):
        return [f"license: {text.lower()}"]
    return ["license: other", f"license_name: {json.dumps(text)}"]


def _tags(kind: str, facts: Facts) -> list[str]:
    found = ["stable-diffusion", *(["stable-diffusion-xl"] if "xl" in facts.architecture else [])]
    return [*found, "controlnet", *([kind.replace("_", "-")] if kind != "controlnet" else [])]


def _files(kind: str, facts: Facts) -> list[str]:
    made: list[str] = []
    if "model" in facts.files:
        made.append(f"`{facts.files['model'].name}`: {_TITLES.get(kind, kind)} as its users' tools read it")
    if "ctrlora_base" in facts.files:
        made.append(f"`{facts.files['ctrlora_base'].name}`: the base that it changes, to lie beside it")
    if "diffusers" in facts.files:
        made.append(f"a diffusers folder: {_READS.get(kind, 'diffusers')}")
    return [f"- {one}" for one in made]


def _figures(facts: Facts) -> list[str]:
    if not facts.curve:
        return ["No samples were measured."]
    last = facts.curve[-1]
    rows = [("samples with their own map", last.matched), ("with another picture's", last.mismatched),
            ("what the map brings", last.control), ("without control", facts.floor),
            ("the true pictures after the auto-encoder", facts.ceiling)]  # fmt: skip
    table = [f"| {name} | {value:.3f} |" for name, value in rows if value is not None]
    return [f"Adherence (0 to 1) of held-out pictures at step {last.step}:", "", "| | |", "|---|---|", *table]


def _data(config: TrainConfig, facts: Facts) -> list[str]:
    data = config.data
    maps = f"maps by the preprocessor `{data.preprocessor}`" if data.preprocessor != "none" else "maps of the data set"
    return [f"{facts.pairs} pairs (`{data.format}`), {maps}, {data.resolution} pixels, aspect {data.aspect}; "
            f"{facts.held_out} held out."]  # fmt: skip


def _recipe(config: TrainConfig, facts: Facts) -> list[str]:
    base = config.base
    begun = "" if base.start is None else f", going on from `{base.start.name}`"
    settings: dict[str, Any] = {**config.as_json()["control"], **config.as_json()["train"]}
    rows = [f"| `{key}` | `{json.dumps(value)}` |" for key, value in settings.items()]
    return [f"Base `{base.checkpoint.name}`{begun}; {facts.step} steps.", "", "| option | |", "|---|---|", *rows]


def _cell(text: str) -> str:
    return re.sub(r"[|\n]", " ", text)

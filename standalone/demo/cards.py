"""Pictures for docs/families.md: each kind of control on the demo checkpoint, beside the same seed without it.

python -m standalone.demo.cards [--out docs/families]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from standalone.app import App, boot
from standalone.extract.cli import main as extract

from .run import DRAWING, MODELS, pictures_of, read, save, side_by_side
from .shapes import SIZE, Image

_SEED: Final = 5
_SIDE, _GAP = 2 * SIZE, 6
_FACTOR_SIZE: Final = "0.2"
"""Of the ControlNet that a Control-LoRA is made of."""


@dataclass(frozen=True)
class Card:
    """What a strip shows: the unit's picture, what is made without it, what is made with it.

    unit: its fields; None where the option `style_align` is shown. job: of the generation, beside the usual.
    """

    name: str
    unit: dict[str, Any] | None
    prompt: str = "a blue heart on a yellow background"
    job: dict[str, Any] = field(default_factory=dict[str, Any])


CARDS: Final = (
    Card("controlnet", {"module": "canny", "model": "demo_canny"}),
    Card("control_lora", {"module": "canny", "model": "demo_canny_lora"}),
    Card("t2i_adapter", {"module": "canny", "model": "demo_t2iadapter_canny"}),
    Card("lllite", {"module": "canny", "model": "demo_lllite_canny"}),
    Card("reference_adain", {"module": "reference_adain", "model": "None"}, "a heart"),
    Card("style_align", None, "a star", {"batch_size": 4}),
)
"""Those whose model is not there are left out."""


def main(argv: Sequence[str]) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=MODELS.parents[1] / "docs" / "families")
    parser.add_argument("--only", help="one of the strips")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    drawing = read(DRAWING)
    with _host() as (app, models):
        for card in CARDS:
            model = "" if card.unit is None else str(card.unit["model"])
            if options.only in (None, card.name) and model in (*models, "", "None"):
                strip = _strip(app, card, drawing)
                path = options.out / f"{card.name}.jpg"
                save(path, strip)
                print(path)
    return 0


@contextmanager
def _host() -> Iterator[tuple[App, set[str]]]:
    """A WebUI with the demo's control models, and a Control-LoRA that is made of one of them; and their names."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "demo_canny_lora.safetensors"
        control, base = MODELS / "controlnet" / "demo_canny.safetensors", MODELS / "demo.safetensors"
        made = ["--base", str(base), "--size", _FACTOR_SIZE, "--dtype", "fp8", "--out", str(path)]
        if extract([str(control), *made]):
            raise SystemExit(f"no Control-LoRA could be made of {control}")
        app = boot(controlnet_dir=folder, data_dir=Path(folder) / "data", api=False, ui=False)
        try:
            yield app, {file.stem for file in (*MODELS.rglob("*.safetensors"), path)}
        finally:
            app.close()


def _strip(app: App, card: Card, drawing: Image) -> Image:
    settings: dict[str, Any] = {
        "prompt": card.prompt,
        "seed": _SEED,
        "steps": 20,
        "cfg_scale": 4.0,
        "width": SIZE,
        "height": SIZE,
        "sampler_name": "DDIM",
        **card.job,
    }
    count = int(card.job.get("batch_size", 1))
    plain = pictures_of(app.txt2img(**settings))[-count:]
    if card.unit is None:
        made = pictures_of(app.txt2img({"ControlNet": [{"style_align": True}]}, **settings))[-count:]
        rows = [side_by_side(row, _SIDE, _GAP) for row in (plain, made)]
        return np.vstack([rows[0], np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8), rows[1]])
    unit = {"enabled": True, "image": drawing, **card.unit}
    found = pictures_of(app.txt2img({"ControlNet": [unit]}, **settings))
    return side_by_side([drawing, plain[0], found[0]], _SIDE, _GAP)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Figures and a contact sheet of the demo model on held-out pairs:

python -m standalone.demo.evaluate --type canny --out DIR    (one of canny, scribble, seg)

Edge F1: the output's canny lines against the canny lines of the true picture, within 2 pixels and without tolerance,
by the extension's meter (lib_controlnet/measure). Colours: inside and outside of the true mask. "ceiling" is the true
picture through the auto-encoder alone. "rank correlation" is Spearman's of F1 within 2 pixels with the weight, over the
cases with CFG 4 and the whole range: in the mean of the pairs, and of all pictures together.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lib_controlnet.measure.metrics import METRICS
from lib_controlnet.nets.unet import UNetModel
from lib_controlnet.training.config import config_from
from lib_controlnet.training.kinds import Control, kind_named
from lib_controlnet.training.noise import NoiseSchedule
from lib_controlnet.training.sampling import Condition, Guide, sample

from . import checkpoint
from .controls import TYPES, control_map
from .data import HELD_OUT_SEED, hint_tensor
from .metrics import edges, picture_colours
from .networks import posterior
from .prompts import tokenize
from .sampler import decode
from .shapes import SIZE, Image, Picture, pictures
from .train_vae import to_tensor

LATENT = (SIZE // 8, SIZE // 8)
# name: (weight, start, end, CFG)
CASES = {
    "weight 0": (0.0, 0.0, 1.0, 4.0),
    "weight 0.25": (0.25, 0.0, 1.0, 4.0),
    "weight 0.5": (0.5, 0.0, 1.0, 4.0),
    "weight 0.75": (0.75, 0.0, 1.0, 4.0),
    "weight 1": (1.0, 0.0, 1.0, 4.0),
    "range 0-0.3": (1.0, 0.0, 0.3, 4.0),
    "weight 0, CFG 9": (0.0, 0.0, 1.0, 9.0),
    "weight 1, CFG 9": (1.0, 0.0, 1.0, 9.0),
}


@dataclass(frozen=True)
class Figures:
    """Means over the pairs; `both_right`: object and background both nearest to the prompted of the 12 colours."""

    edge_f1: float
    edge_f1_exact: float
    object_right: float
    background_right: float
    both_right: float
    object_distance: float
    background_distance: float


def line_scores(images: list[Image], truth: list[Picture]) -> list[Mapping[str, float | None]]:
    """The meter's values of each picture's canny lines against those of the true one."""
    return [METRICS["lines"].compare(_drawn(image), _drawn(picture.image)).values
            for image, picture in zip(images, truth, strict=True)]  # fmt: skip


def _drawn(image: Image) -> Image:
    return np.where(edges(image), np.uint8(255), np.uint8(0))


def figures(images: list[Image], truth: list[Picture]) -> Figures:
    scores = [picture_colours(image, picture) for image, picture in zip(images, truth, strict=True)]
    lines = line_scores(images, truth)

    def mean(values: list[float]) -> float:
        return round(float(np.mean(values)), 4)

    return Figures(
        mean([line["f1_tolerant"] or 0.0 for line in lines]),
        mean([line["f1"] or 0.0 for line in lines]),
        mean([score.object_right for score in scores]),
        mean([score.background_right for score in scores]),
        mean([score.right for score in scores]),
        mean([score.object_distance for score in scores]),
        mean([score.background_distance for score in scores]),
    )


def rank_correlation(rows: Mapping[float, list[float]]) -> dict[str, float]:
    """Spearman's of F1 with the weight: `rows` has each pair's F1 by weight."""
    weights, table = list(rows), np.array(list(rows.values()))
    pairs: list[Any] = [spearmanr(weights, column)[0] for column in table.T]
    pooled: Any = spearmanr(np.repeat(weights, table.shape[1]), table.ravel())[0]
    return {"mean of the pairs": round(float(np.mean(pairs)), 3), "all pictures": round(float(pooled), 3)}


def load_control(unet: UNetModel, base: Path, path: Path, kind: str) -> Control:
    """The trained file of a control of `kind`, for the U-Net of the checkpoint `base`."""
    tables = {"base": {"checkpoint": base, "start": path}, "control": {"kind": kind}, "train": {"steps": 1},
              "output": {"folder": path.parent, "name": path.stem}}  # fmt: skip
    control = kind_named(kind).new(unet, config_from(tables, Path()))
    return control.eval().requires_grad_(False)


class Bench:
    """The model, the held-out pairs and their maps."""

    def __init__(self, base: Path, control: Path, kind: str, count: int, trained_as: str = "controlnet") -> None:
        self.model = checkpoint.load(base)
        self.control = load_control(self.model.unet, base, control, trained_as)
        self.truth = pictures(count, HELD_OUT_SEED)
        rng = random.Random(HELD_OUT_SEED)
        self.maps = [control_map(kind, picture, rng) for picture in self.truth]

    @torch.no_grad()
    def context(self, prompts: list[str]) -> Tensor:
        return self.model.text(tokenize(prompts)).last_hidden_state

    def ceiling(self) -> list[Image]:
        with torch.no_grad():
            encoded = posterior(self.model.vae, to_tensor([picture.image for picture in self.truth])).mean
        return decode(self.model.vae, encoded, 1.0)

    def images(self, weight: float, start: float, end: float, cfg: float) -> list[Image]:
        """Seeds 0, 1 ... in the order of the pairs, eight at a time to keep memory small."""
        made: list[Image] = []
        for first in range(0, len(self.truth), 8):
            part = slice(first, first + 8)
            condition = Condition(self.context([p.prompt for p in self.truth[part]]), self.context([""]))
            guide = Guide(self.control, hint_tensor(self.maps[part]), weight, start, end)
            noise = NoiseSchedule.scaled_linear()
            latents = sample(self.model.unet, condition, noise, LATENT, seed=first, cfg=cfg, guide=guide)
            made += decode(self.model.vae, latents, self.model.scale)
        return made


def sheet(rows: list[list[Image]], path: Path) -> None:
    """Rows of pictures, RGB, as one PNG."""
    joined = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    cv2.imwrite(str(path), joined[..., ::-1])


def evaluate(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    control = options.control or checkpoint.FOLDER / "controlnet" / f"demo_{options.type}.safetensors"
    bench = Bench(options.base, control, options.type, options.count, options.kind)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = 12
    rows = [[picture.image for picture in bench.truth[:shown]], bench.maps[:shown]]
    by_weight: dict[float, list[float]] = {}
    results: dict[str, object] = {"pairs": options.count, "ceiling": vars(figures(bench.ceiling(), bench.truth))}
    print("ceiling", results["ceiling"], flush=True)
    for name, (weight, start, end, cfg) in CASES.items():
        if options.cases and name not in options.cases:
            continue
        began = time.process_time()
        made = bench.images(weight, start, end, cfg)
        found = vars(figures(made, bench.truth))
        results[name] = {**found, "seconds_per_picture": round((time.process_time() - began) / options.count, 3)}
        if (start, end, cfg) == (0.0, 1.0, 4.0):
            by_weight[weight] = [line["f1_tolerant"] or 0.0 for line in line_scores(made, bench.truth)]
        print(name, results[name], flush=True)
        rows.append(made[:shown])
        sheet(rows, options.out / f"{options.type}.png")
    if len(by_weight) > 2:
        results["rank correlation"] = rank_correlation(by_weight)
        print("rank correlation", results["rank correlation"])
    (options.out / f"{options.type}.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--type", choices=TYPES, required=True)
    parser.add_argument("--base", type=Path, default=checkpoint.CHECKPOINT)
    parser.add_argument("--control", type=Path)
    parser.add_argument("--kind", default="controlnet", help="of the control, as control.kind of its training")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--cases", nargs="*", choices=tuple(CASES))
    parser.add_argument("--threads", type=int, default=1)
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()

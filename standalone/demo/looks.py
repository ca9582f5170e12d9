"""What a training's looks tell, as pictures for the docs:

python -m standalone.demo.looks train_output/demo_canny --out docs/training

`curves.png`: adherence with the own map, with another picture's, and the loss. `grid.jpg`: condition, true picture, and
samples of some of the looks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib_controlnet.training import records

_SHOWN, _ROWS, _MEAN_OF = (0, 100, 200, 300, 600, 2600), 6, 20


def curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Of the lines of a log."""
    import matplotlib.pyplot as plt

    looks = [line for line in lines if line["event"] == "look"]
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    figure, axes = plt.subplots(1, 2, figsize=(10.3, 3.4), layout="constrained")
    steps, own, other = ([look[key] for look in looks] for key in ("step", "adherence", "mismatched"))
    axes[0].plot(steps, own, ".-", label="with its own map")
    axes[0].plot(steps, other, ".-", color="tab:grey", label="with another picture's map")
    axes[0].plot(steps, np.subtract(own, other), ".-", color="tab:green", label="the difference: what the map brings")
    axes[0].axhline(looks[-1]["ceiling"], ls=":", color="black", label="true pictures after the auto-encoder")
    axes[0].set(title="adherence of held-out pictures", xlabel="step", ylim=(-0.02, 1))
    axes[0].legend(fontsize=7, loc="center right")
    means = [float(np.mean(losses[at : at + _MEAN_OF])) for at in range(0, len(losses), _MEAN_OF)]
    axes[1].plot([_MEAN_OF * (number + 0.5) for number in range(len(means))], means)
    axes[1].set(title=f"loss, mean of {_MEAN_OF} steps", xlabel="step", yscale="log")
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def grid(folder: Path, path: Path) -> None:
    """Of the looks' grids: a row a pair of map, true picture and sample."""
    found = [folder / f"step-{step:06d}.png" for step in _SHOWN]
    opened = [np.asarray(Image.open(one).convert("RGB")) for one in found if one.is_file()]
    side = opened[0].shape[1] // 3
    rows = _ROWS * side
    columns = [opened[0][:rows, : 2 * side], *(one[:rows, 2 * side :] for one in opened)]
    Image.fromarray(np.concatenate(columns, axis=1)).save(path, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the training")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    curves(list(records.read_log(options.folder)), options.out / "curves.png")
    grid(options.folder / "samples", options.out / "grid.jpg")


if __name__ == "__main__":
    main()

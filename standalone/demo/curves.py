"""The training curves as a picture: python -m standalone.demo.curves (reads and writes models/demo/)."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt

from .checkpoint import FOLDER


def main() -> None:
    curves = json.loads((FOLDER / "curves.json").read_text(encoding="utf-8"))
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    offset = 0
    for name, points in curves["autoencoder"].items():
        axes[0].plot([offset + step for step, *_ in points], [quality for *_, quality in points], label=name)
        offset += points[-1][0]
    axes[0].set(title="auto-encoder", xlabel="step", ylabel="PSNR on 16 held-out pictures, dB")
    for panel, part in ((axes[1], "unet"), (axes[2], "control")):
        for name, points in curves[part].items():
            panel.plot([step for step, *_ in points], [loss for _, _, loss, *_ in points], label=name)
        panel.set(title={"unet": "U-Net", "control": "ControlNets"}[part], xlabel="step", ylabel="loss", yscale="log")
    for panel in axes:
        panel.legend()
        panel.grid(alpha=0.3)
    figure.savefig(FOLDER / "curves.png", dpi=80)


if __name__ == "__main__":
    main()

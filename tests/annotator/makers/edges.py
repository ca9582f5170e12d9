"""Networks of edges and lines."""

from __future__ import annotations

from pathlib import Path

import torch

from annotator.libraries import controlnet_aux


def hed(file: Path) -> None:
    torch.manual_seed(0)
    torch.save(controlnet_aux("hed").ControlNetHED_Apache2().state_dict(), file)


MAKERS = {"ControlNetHED.pth": hed}

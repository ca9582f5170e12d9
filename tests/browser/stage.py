"""What the WebUI of the browser tests has beside the demo model; for one that is started by hand:

python -m tests.browser.stage MODELS WEIGHTS
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from annotator.sd_controlnet.registry import discover
from tests.annotator.makers import random_runtime
from tests.engine.tiny import SD1_SHAPED, SDXL_SHAPED, tiny_controlnet
from tests.families.ip_files import write

SLOW = "softedge_anyline"
"""A preprocessor that can be stopped; its weights are random numbers."""


def stage(models: Path, weights: Path) -> None:
    """A control model that does not fit the demo, an IP-Adapter and a preprocessor's weights, all of random numbers."""
    models.mkdir(parents=True, exist_ok=True)
    save_file(tiny_controlnet(SDXL_SHAPED).state_dict(), models / "canny_of_another_kind.safetensors")
    write(models / "ip_adapter_of_random_numbers.safetensors", "base", SD1_SHAPED)
    random_runtime(discover(None).get(SLOW).spec, weights)


if __name__ == "__main__":
    stage(Path(sys.argv[1]), Path(sys.argv[2]))

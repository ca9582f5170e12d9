"""What everything shares: options, command line, job state, the loaded model.

`modules.shared_init.initialize()` fills the empty names; until then they are None, as in the real host.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modules import options, paths, shared_cmd_options, util

if TYPE_CHECKING:
    import torch
    from modules.shared_state import State
    from modules.upscaler import UpscalerData

cmd_opts = shared_cmd_options.cmd_opts
parser = shared_cmd_options.parser
config_filename: str = cmd_opts.ui_settings_file
models_path = paths.models_path
script_path = paths.script_path
data_path = paths.data_path
hide_dirs = {"visible": not cmd_opts.hide_ui_dir_config}
batch_cond_uncond = True
parallel_processing_allowed = True
xformers_available = False
loaded_hypernetworks: list[Any] = []
hypernetworks: dict[str, str] = {}
face_restorers: list[Any] = []
tab_names: list[str] = []

demo: Any = None
device: torch.device | None = None
state: State = None  # type: ignore[assignment]
opts: options.Options = None  # type: ignore[assignment]
prompt_styles: Any = None
total_tqdm: Any = None
settings_components: dict[str, Any] = {}
sd_upscalers: list[UpscalerData] = []
sd_model: Any
progress_print_out = sys.stdout

latent_upscale_default_mode = "Latent"
latent_upscale_modes: dict[str, dict[str, Any]] = {
    "Latent": {"mode": "bilinear", "antialias": False},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic", "antialias": False},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest", "antialias": False},
    "Latent (nearest-exact)": {"mode": "nearest-exact", "antialias": False},
}

OptionInfo = options.OptionInfo
OptionHTML = options.OptionHTML
options_section = options.options_section
natural_sort_key = util.natural_sort_key
listfiles = util.listfiles
walk_files = util.walk_files


def refresh_checkpoints() -> None:
    from modules import sd_models

    sd_models.list_models()


class _Shared(ModuleType):
    """Makes `shared.sd_model` a property: reading it loads the model on first use."""

    @property
    def sd_model(self) -> Any:
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = _Shared

"""The entry that the host executes: mounts our folders under private names, registers, delegates.

The host runs this file anew at every "Reload UI", outside sys.modules; everything else lives in `lib_controlnet`.
"""

import importlib
import sys
import types
from pathlib import Path

from modules import scripts

ROOT = Path(scripts.basedir())


def _mount(name, folder):
    """Makes `folder` importable as the package `name`; our plain folder names belong to other extensions as well."""
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package


_mount("sd_controlnet", ROOT / "lib_controlnet")
_mount("sd_controlnet_annotator", ROOT / "annotator" / "sd_controlnet")
extension = importlib.import_module("sd_controlnet.hosts.webui.extension").boot(ROOT, "sd_controlnet_annotator")


class ControlNetScript(scripts.Script):
    """One always-on script a tab; its work is done by `lib_controlnet`."""

    sd_controlnet = True
    """Ours, whatever its title."""

    @property
    def latest_network(self):
        return extension.latest_network()

    def clear_control_model_cache(self):
        extension.unload_models()

    def title(self):
        return extension.title()

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return extension.panel(self, is_img2img)

    def setup(self, p, *args):
        extension.show_units(p, self)

    def before_process(self, p, *args):
        extension.runner.before_process(p, lambda: extension.units(p, args), lambda: extension.options(args))
        extension.show_units(p, self)

    def process(self, p, *args):
        extension.runner.process(p, lambda: extension.units(p, args))

    def before_process_batch(self, p, *args, batch_number, **kwargs):
        extension.runner.begin_batch(p, batch_number)

    def postprocess_image(self, p, pp, *args):
        extension.runner.picture_made(p, pp.image)

    def postprocess_image_after_composite(self, p, pp, *args):
        extension.runner.picture_finished(p, pp.image)

    def process_before_every_sampling(self, p, *args, **kwargs):
        extension.runner.begin_sampling(p, kwargs["x"], kwargs.get("noise"))

    def postprocess_batch(self, p, *args, images, **kwargs):
        extension.runner.decoded(p, images)

    def postprocess(self, p, processed, *args):
        extension.runner.finish(p, processed)


importlib.import_module("sd_controlnet.hosts.webui.callbacks").register(extension)
extension.register_names(ControlNetScript)

"""Pixel upscalers without networks: None, Lanczos, Nearest."""

from __future__ import annotations

from typing import Any

from modules import shared
from PIL import Image

LANCZOS = Image.Resampling.LANCZOS
NEAREST = Image.Resampling.NEAREST


class Upscaler:
    """Upscales by calling `do_upscale` until the picture is large enough, then fits it."""

    name: str = ""
    model_name: str | None = None

    def __init__(self) -> None:
        self.scale = 1.0
        self.scalers = [UpscalerData(self.name, None, self)]

    def do_upscale(self, img: Image.Image, selected_model: Any = None) -> Image.Image:
        return img

    def upscale(self, img: Image.Image, scale: float, selected_model: Any = None) -> Image.Image:
        """`img` enlarged by `scale`, to sizes that are multiples of 8."""
        self.scale = scale
        wanted = (int((img.width * scale) // 8 * 8), int((img.height * scale) // 8 * 8))
        for turn in range(3):
            enough = img.width >= wanted[0] and img.height >= wanted[1] and (turn > 0 or scale != 1)
            if enough or shared.state.interrupted:
                break
            before = img.size
            img = self.do_upscale(img, selected_model)
            if img.size == before:
                break
        return img if img.size == wanted else img.resize(wanted, resample=LANCZOS)


class UpscalerData:
    """An entry of the list of upscalers; `path` is where its weights are, for those that have any."""

    def __init__(self, name: str, path: str | None, upscaler: Upscaler, scale: int = 4) -> None:
        self.name, self.scaler, self.scale = name, upscaler, scale
        self.data_path = self.local_data_path = path


class UpscalerNone(Upscaler):
    name = "None"


class _Resizing(Upscaler):
    resample = LANCZOS

    def do_upscale(self, img: Image.Image, selected_model: Any = None) -> Image.Image:
        return img.resize((int(img.width * self.scale), int(img.height * self.scale)), resample=self.resample)


class UpscalerLanczos(_Resizing):
    name = "Lanczos"


class UpscalerNearest(_Resizing):
    name = "Nearest"
    resample = NEAREST


def builtin_upscalers() -> list[UpscalerData]:
    return [x for kind in (UpscalerNone, UpscalerLanczos, UpscalerNearest) for x in kind().scalers]

"""Picture files with the generation parameters in them."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

from modules import script_callbacks, shared
from modules.shared_cmd_options import cmd_opts
from PIL import ExifTags, Image, PngImagePlugin

USER_COMMENT = 0x9286
FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
INVALID = re.compile(r'[#<>:"/\\|?*\n\r\t]')
IGNORED_INFO_KEYS = {
    "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif", "loop", "background", "timestamp", "duration",
    "progressive", "progression", "icc_profile", "chromaticity", "photoshop",
}  # fmt: skip


def encode_user_comment(text: str) -> Image.Exif:
    """EXIF data with `text` as Unicode user comment."""
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {USER_COMMENT: b"UNICODE\0" + text.encode("utf-16-be")}
    return exif


def decode_user_comment(value: Any) -> str:
    data = value if isinstance(value, bytes) else str(value).encode("latin-1", "ignore")
    if data.startswith(b"UNICODE\0"):
        return data[8:].decode("utf-16-be", "ignore")
    return data.removeprefix(b"ASCII\0\0\0").decode("utf-8", "ignore")


def save_image_with_geninfo(
    image: Image.Image,
    geninfo: str | None,
    filename: str,
    extension: str | None = None,
    existing_pnginfo: dict[str, str] | None = None,
    pnginfo_section_name: str = "parameters",
) -> None:
    """Write the file; the parameters go into a PNG text chunk or the EXIF user comment."""
    kind = FORMATS[(extension or Path(filename).suffix).lower().lstrip(".")]
    info = dict(existing_pnginfo or {})
    write_info = shared.opts.enable_pnginfo and geninfo is not None
    if kind == "PNG":
        if write_info:
            info[pnginfo_section_name] = geninfo or ""
        chunks = PngImagePlugin.PngInfo()
        for key, value in info.items() if shared.opts.enable_pnginfo else ():
            chunks.add_text(key, str(value))
        image.save(filename, format=kind, pnginfo=chunks)
        return
    if image.mode in ("RGBA", "P"):
        image = image.convert("RGB")
    exif = encode_user_comment(geninfo or "") if write_info else None
    image.save(filename, format=kind, quality=shared.opts.jpeg_quality, **({"exif": exif} if exif else {}))


def _next_number(folder: Path, basename: str) -> int:
    prefix = f"{basename}-" if basename else ""
    numbers = [x.name[len(prefix) :].split("-")[0].split(".")[0] for x in folder.iterdir() if x.name.startswith(prefix)]
    return max((int(x) for x in numbers if x.isdigit()), default=-1) + 1


def _decoration(seed: int | None, prompt: str | None, short: bool) -> str:
    if short or seed is None:
        return ""
    if shared.opts.save_to_dirs:
        return f"-{seed}"
    words = INVALID.sub("_", prompt or "").strip(" .")[: cmd_opts.filenames_max_length]
    return f"-{seed}-{words}" if words else f"-{seed}"


def save_image(
    image: Image.Image,
    path: str,
    basename: str | None,
    seed: int | None = None,
    prompt: str | None = None,
    extension: str = "png",
    info: str | None = None,
    short_filename: bool = False,
    no_prompt: bool = False,
    grid: bool = False,
    pnginfo_section_name: str = "parameters",
    p: Any = None,
    existing_info: dict[str, str] | None = None,
    forced_filename: str | None = None,
    suffix: str = "",
    save_to_dirs: bool | None = None,
) -> tuple[str, str | None]:
    """Save under the next free number; returns the file and, with `opts.save_txt`, the text file beside it."""
    if save_to_dirs is None:
        save_to_dirs = shared.opts.grid_save_to_dirs if grid else shared.opts.save_to_dirs and not no_prompt
    folder = Path(path) / datetime.datetime.now().strftime("%Y-%m-%d") if save_to_dirs else Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if forced_filename is None:
        basename = basename or ""
        number = _next_number(folder, basename)
        start = f"{basename}-{number:04}" if basename else f"{number:05}"
        forced_filename = start + _decoration(seed, prompt, short_filename) + suffix
    pnginfo = dict(existing_info or {})
    if info is not None:
        pnginfo[pnginfo_section_name] = info
    params = script_callbacks.ImageSaveParams(image, p, str(folder / f"{forced_filename}.{extension}"), pnginfo)
    script_callbacks.before_image_saved_callback(params)
    text = params.pnginfo.get(pnginfo_section_name)
    file = Path(params.filename)
    half_done = file.with_name(file.name + ".tmp")  # nobody finds a file that is still being written
    save_image_with_geninfo(params.image, text, str(half_done), file.suffix, params.pnginfo, pnginfo_section_name)
    half_done.replace(file)
    params.image.already_saved_as = str(file)
    text_file = file.with_suffix(".txt") if shared.opts.save_txt and text is not None else None
    if text_file is not None:
        text_file.write_text(f"{text}\n", encoding="utf-8")
    script_callbacks.image_saved_callback(params)
    return str(file), str(text_file) if text_file else None


def read_info_from_image(image: Image.Image) -> tuple[str | None, dict[str, Any]]:
    """(generation parameters, other text fields) of a picture."""
    items = dict(image.info or {})
    geninfo = items.pop("parameters", None)
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(USER_COMMENT)
    if comment:
        geninfo = decode_user_comment(comment)
    elif "comment" in items:
        value = items["comment"]
        geninfo = value.decode("utf-8", "ignore") if isinstance(value, bytes) else value
    return geninfo, {k: v for k, v in items.items() if k not in IGNORED_INFO_KEYS}

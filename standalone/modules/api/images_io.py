"""Pictures in requests and answers."""

from __future__ import annotations

import base64
import io
from typing import Any

from fastapi.exceptions import HTTPException
from modules import images, shared
from modules.api.fetch import NotFetched, fetch, public_addresses
from PIL import Image, PngImagePlugin


def verify_url(url: str) -> bool:
    """Whether all addresses of the URL's host are public ones; anything unclear counts as no."""
    try:
        return bool(public_addresses(url))
    except NotFetched:
        return False


def _download(url: str) -> bytes:
    if not shared.opts.api_enable_requests:
        raise HTTPException(status_code=500, detail="Requests not allowed")
    try:
        return fetch(url, shared.opts.api_useragent, local=not shared.opts.api_forbid_local_requests)
    except NotFetched as error:
        raise HTTPException(status_code=500, detail=str(error)) from error


def decode_base64_to_image(encoding: str) -> Image.Image:
    """A picture from base64, a data URI, or (as far as the settings allow) a URL. File paths are not accepted."""
    if encoding.startswith(("http://", "https://")):
        data = _download(encoding)
        try:
            return images.read(io.BytesIO(data))
        except Exception as e:
            raise HTTPException(status_code=500, detail="Invalid image url") from e
    try:  # the real host answers 500 here, as for errors of its own
        if encoding.startswith("data:image/"):
            encoding = encoding.split(";")[1].split(",")[1]
        return images.read(io.BytesIO(base64.b64decode(encoding)))
    except Exception as e:
        raise HTTPException(status_code=422, detail="Invalid encoded image") from e


def _png_texts(info: dict[Any, Any]) -> PngImagePlugin.PngInfo:
    """The texts that a picture carries, as PNG chunks."""
    metadata = PngImagePlugin.PngInfo()
    for key, value in info.items():
        if isinstance(key, str) and isinstance(value, str):
            metadata.add_text(key, value)
    return metadata


def encode_pil_to_base64(image: Any) -> bytes:
    """Base64 of the picture in the format of the settings, with its infotext."""
    if isinstance(image, str):
        return image.encode()
    kind = shared.opts.samples_format.lower()
    with io.BytesIO() as buffer:
        if kind == "png":
            image.save(buffer, format="PNG", pnginfo=_png_texts(image.info))
        elif kind in ("jpg", "jpeg", "webp"):
            picture = image.convert("RGB") if image.mode in ("RGBA", "P") else image
            exif = images.encode_user_comment(image.info.get("parameters") or "")
            form = "WEBP" if kind == "webp" else "JPEG"
            picture.save(buffer, format=form, exif=exif, quality=int(shared.opts.jpeg_quality))
        else:
            raise HTTPException(status_code=500, detail="Invalid image format")
        return base64.b64encode(buffer.getvalue())

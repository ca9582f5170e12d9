"""What an answer to a request must be."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from . import grammar

REPR = re.compile(r"at 0x[0-9a-f]{6,}|BytesIO|<class|array\(\[")
NOTES = "Notes on ControlNet"
DONE, REFUSED = 200, (400, 404, 405, 422)


@dataclass
class Answer:
    """`status` 0: there was none. `text`: the body as it came."""

    status: int
    text: str
    seconds: float = 0.0

    def json(self) -> Any:
        return json.loads(self.text)


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",", 1)[-1]))).convert("RGB"))


class Oracle:
    """`send` asks the server. Pictures without control are made once for each of the grammar's jobs, then compared."""

    def __init__(self, send: Callable[[grammar.Request], Answer], limit: float) -> None:
        self._send = send
        self._limit = limit
        self._plain: dict[int, list[np.ndarray]] = {}

    def plain(self, host: Mapping[str, Any]) -> list[np.ndarray]:
        """The job's pictures without control."""
        key = id(host)
        if key not in self._plain:
            self._plain[key] = self._made(host)
        return self._plain[key]

    def _made(self, host: Mapping[str, Any]) -> list[np.ndarray]:
        path, body = grammar.host_body(host)
        answer = self._send(grammar.Request("POST", path, body))
        assert answer.status == DONE, answer.text[:500]
        return [pixels(text) for text in answer.json()["images"]]

    def unchanged(self) -> str:
        """Whether a job without control still gives the same bits: what is wrong, or ""."""
        for host in grammar.HOSTS:
            first = self.plain(host)
            again = self._made(host)
            if len(first) != len(again) or not all(map(np.array_equal, first, again)):
                return f"the uncontrolled picture of {dict(host)} has changed"
        return ""

    def judge(self, request: grammar.Request, answer: Answer) -> str:
        """What is wrong with `answer`, or ""."""
        if answer.status == 0:
            return f"no answer: {answer.text[:200]}"
        if answer.status >= 500:
            return f"status {answer.status}: {answer.text[:600]}"
        if answer.seconds > self._limit:
            return f"it took {answer.seconds:.1f} s"
        try:
            body = answer.json()
        except ValueError:
            return f"no JSON: {answer.text[:200]}"
        if answer.status != DONE:
            return self._refusal(request, answer, body)
        if request.host is None or not request.units:
            return ""
        return self._picture(request, request.host, body)

    @staticmethod
    def _refusal(request: grammar.Request, answer: Answer, body: Any) -> str:
        detail = body.get("detail") if isinstance(body, dict) else None
        if request.valid:
            return f"a valid request was refused: {answer.text[:600]}"
        if answer.status not in REFUSED or not detail:
            return f"status {answer.status} without a reason: {answer.text[:300]}"
        if REPR.search(str(detail)) or "similar names: none" in str(detail):
            return f"an object's repr in the reason: {str(detail)[:300]}"
        if request.path.startswith("/controlnet") and len(str(detail)) > 2500:
            return f"a reason of {len(str(detail))} letters"
        return ""

    def _picture(self, request: grammar.Request, host: Mapping[str, Any], body: Mapping[str, Any]) -> str:
        """A unit that was asked for has acted, or it is said why not; and the infotext holds it."""
        asked = [index for index, unit in enumerate(request.units) if is_asked(unit)]
        if not asked:
            return ""
        text = json.loads(body["info"])["infotexts"][0]
        missing = [index for index in asked if f"ControlNet {index}: " not in text]
        if missing:
            return f"units {missing} are not in the infotext: {text[-400:]}"
        wrong = [index for index in asked if not _as_asked(request.units[index], index, text)]
        if wrong:
            return f"units {wrong} are otherwise in the infotext: {text[-600:]}"
        plain = self.plain(host)
        made = [pixels(image) for image in body["images"][: len(plain)]]
        if all(map(np.array_equal, plain, made)) and NOTES not in text:
            return f"silent: the picture is the uncontrolled one and no note says why: {text[-400:]}"
        return ""


def is_asked(unit: Any) -> bool:
    """Whether a unit surely asks for control; odd spellings are not judged."""
    return isinstance(unit, dict) and (unit.get("enabled") is True or unit.get("enabled") in (1, "true"))


def _as_asked(unit: Mapping[str, Any], index: int, text: str) -> bool:
    """The infotext names the unit's own model, module and weight."""
    start = text.index(f"ControlNet {index}: ")
    said = text[start : text.find('"', start + 20) if '"' in text[start + 20 :] else None]
    for name, word in (("module", "Module"), ("model", "Model")):
        value = unit.get(name)
        if isinstance(value, str) and value in (*grammar.MODULES, *grammar.MODELS) and value not in said:
            return False
        if word not in said:
            return False
    weight = unit.get("weight")
    if type(weight) in (int, float):
        return f"Weight: {float(weight)}" in said
    return True

"""The least weight of a unit at which its pictures follow their map as far as is wanted:

    python launch.py find-weight JOB.json --target 0.8 [--unit 0] [--shorten] [--url http://127.0.0.1:7860] [--json]

JOB.json is the body of a /sdapi/v1/txt2img request (img2img where it has `init_images`) with ControlNet units. It is
sent once to a WebUI with this extension and `--api`, with the question in it: the WebUI makes at most 8 pictures with
one seed, measures each, and one with the answer. See docs/measure.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lib_controlnet.core.study import Question
from lib_controlnet.measure.search import CLOSE

Post = Callable[[str, dict[str, Any]], Any]
"""Sends a body to a route, and gives the answer. Raises FindError."""


class FindError(Exception):
    """The search cannot be made; the text is for the user."""


def main(argv: Sequence[str]) -> int:
    """0: reached; 1: the target is out of reach; 2: it could not be tried."""
    given = _parser().parse_args(argv)
    try:
        found = search(_poster(given.url), _read(given.job), given)
    except FindError as error:
        print(json.dumps({"error": str(error)}) if given.json else f"launch.py find-weight: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found) if given.json else _text(found))
    return 0 if found["reached"] else 1


def search(post: Post, job: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """What the WebUI found out, as `info.controlnet_study` has it. Raises FindError."""
    body = copy.deepcopy(job)
    question = {"what": Question.weight.value, "unit": given.unit, "target": given.target, "highest": given.highest,
                "steps": given.steps, "shorten": given.shorten}  # fmt: skip
    _units(body, given.unit).append({"study": question})
    body |= {"send_images": False, "save_images": False, "batch_size": 1, "n_iter": 1}
    answer = post("/sdapi/v1/img2img" if body.get("init_images") else "/sdapi/v1/txt2img", body)
    found = json.loads(answer["info"]).get("controlnet_study", {})
    if found.get("stopped"):
        raise FindError("it was stopped in the WebUI before the weight was found")
    if "weight" not in found:
        raise FindError("the answer has no weight: the WebUI has no ControlNet of ours, or an older one")
    return found


def _text(found: dict[str, Any]) -> str:
    similar = dict(found["similarity"])
    lines = [
        f"weight {weight:<7g} adherence {adherence:.3f}"
        + (f"  similarity to the prompt {similar[weight]:.3f}" if weight in similar else "")
        for weight, adherence in found["curve"]
    ]
    reached = "reaches the target" if found["adherence"] >= found["target"] else f"within {CLOSE:g} of the target"
    end = reached if found["reached"] else "no weight reaches the target; this one comes nearest"
    lines.append(f"weight {found['weight']:g}: adherence {found['adherence']:.3f} ({end})")
    if found["guidance_end"] is not None:
        lines.append(f"ending control step {found['guidance_end']:g} is enough")
    return "\n".join(lines)


def _units(body: dict[str, Any], number: int) -> list[Any]:
    """The script's arguments in a request, with a unit of that number among them. Raises FindError."""
    scripts = body.get("alwayson_scripts") or {}
    name = next((key for key in scripts if key.lower() == "controlnet"), None)
    units = [] if name is None else scripts[name].get("args", [])
    if not 0 <= number < len(units) or not isinstance(units[number], dict):
        raise FindError(
            f'the job has no unit {number} in alwayson_scripts["ControlNet"]["args"] (there are {len(units)})'
        )
    return units


def _read(path: Path) -> dict[str, Any]:
    try:
        job = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FindError(f'"{path}" is no request in JSON: {error}') from error
    if not isinstance(job, dict):
        raise FindError(f'"{path}" is no request: it holds a {type(job).__name__}')
    return job


def _poster(url: str) -> Post:
    def post(route: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            url.rstrip("/") + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise FindError(f"the WebUI refuses the job: {error.read().decode(errors='replace')[:2000]}") from error
        except (OSError, ValueError) as error:
            raise FindError(f"no answer from {url}: {error}; start the WebUI with --api") from error

    return post


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py find-weight", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", type=Path)
    parser.add_argument("--target", type=float, required=True, help="the adherence that is wanted, 0..1")
    parser.add_argument("--unit", type=int, default=0)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--highest", type=float, default=1.0, help="the largest weight that is tried")
    parser.add_argument("--steps", type=int, default=0, help="of these pictures, in place of the job's own")
    parser.add_argument("--shorten", action="store_true", help="look for the least range too")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser

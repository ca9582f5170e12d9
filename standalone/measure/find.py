"""The least weight of a unit at which its pictures follow their map as far as is wanted:

    python launch.py find-weight JOB.json --target 0.8 [--unit 0] [--url http://127.0.0.1:7860] [--json]

JOB.json is the body of a /sdapi/v1/txt2img request (img2img where it has `init_images`) with ControlNet units. It is
sent at most 8 times with one seed to a WebUI with this extension and `--api`, and measured there: see docs/measure.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lib_controlnet.measure.search import MOST_JOBS, Point, Search, find_weight

Post = Callable[[str, dict[str, Any]], Any]
"""Sends a body to a route, and gives the answer. Raises FindError."""


class FindError(Exception):
    """The search cannot be made; the text is for the user."""


def main(argv: Sequence[str]) -> int:
    """0: reached; 1: the target is out of reach; 2: it could not be tried."""
    given = _parser().parse_args(argv)
    try:
        job = _read(given.job)
        found = search(_poster(given.url), job, given, print if not given.json else lambda _line: None)
    except FindError as error:
        print(json.dumps({"error": str(error)}) if given.json else f"launch.py find-weight: {error}", file=sys.stderr)
        return 2
    report = {
        "weight": found.weight,
        "adherence": found.adherence,
        "target": given.target,
        "reached": found.reached,
        "floor": found.floor,
        "jobs": len(found.curve),
        "curve": [[point.weight, point.adherence] for point in found.curve],
    }
    if given.json:
        print(json.dumps(report))
    else:
        end = "reaches the target" if found.reached else "no weight reaches the target; this one comes nearest"
        print(f"weight {found.weight:g}: adherence {found.adherence:.3f} ({end})")
    return 0 if found.reached else 1


def search(post: Post, job: dict[str, Any], given: argparse.Namespace, say: Callable[[str], object]) -> Search:
    """Runs the jobs. Raises FindError."""
    body = copy.deepcopy(job)
    unit = _unit(body, given.unit)
    if int(body.get("seed", -1)) < 0:
        body["seed"] = random.randrange(1 << 31)
    if given.steps:
        body["steps"] = given.steps
    body["override_settings"] = {**body.get("override_settings", {}), "controlnet_measure": True}
    body |= {"send_images": False, "save_images": False}
    route = "/sdapi/v1/img2img" if body.get("init_images") else "/sdapi/v1/txt2img"

    def adherence(weight: float) -> float:
        unit["weight"] = weight
        return _adherence(post(route, body), given.unit)

    def told(point: Point) -> None:
        say(f"weight {point.weight:<7g} adherence {point.adherence:.3f}")

    return find_weight(adherence, given.target, highest=given.highest, most=given.most, told=told)


def _unit(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The unit of a request. Raises FindError."""
    scripts = body.get("alwayson_scripts") or {}
    name = next((key for key in scripts if key.lower() == "controlnet"), None)
    units = [] if name is None else scripts[name].get("args", [])
    if not 0 <= number < len(units) or not isinstance(units[number], dict):
        raise FindError(
            f'the job has no unit {number} in alwayson_scripts["ControlNet"]["args"] (there are {len(units)})'
        )
    return units[number]


def _adherence(answer: Any, number: int) -> float:
    """What the job's own meter says of the unit. Raises FindError."""
    info = json.loads(answer["info"])
    if "controlnet" not in info:
        raise FindError("the answer has no measure: the WebUI has no ControlNet of ours, or an older one")
    found = next((unit for unit in info["controlnet"] if unit["unit"] == number), None)
    if found is None:
        raise FindError(f"unit {number} took no part in the job; is it enabled?")
    if "adherence" not in found:
        raise FindError("the answer has no measure: the job's settings were not heard")
    if found["adherence"] is None:
        problems = [picture["problem"] for picture in found["pictures"] if picture.get("problem")]
        raise FindError(
            f"unit {number} could not be measured: {next(iter(problems), 'nothing of the picture is its own')}"
        )
    return float(found["adherence"])


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
    parser.add_argument("--most", type=int, choices=range(2, MOST_JOBS + 1), default=MOST_JOBS, help="jobs")
    parser.add_argument("--steps", type=int, default=0, help="of these jobs, in place of the job's own")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser

"""Requests: valid ones, and their mutations. The same seed gives the same requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from . import pictures

MODELS = ("demo_canny", "demo_scribble", "demo_seg")
MODULES = (
    "none", "canny", "invert", "threshold", "scribble_xdog", "shuffle", "blur_gaussian", "tile_resample",
    "tile_colorfix", "color", "lineart_standard", "inpaint_only", "reference_only",
)  # fmt: skip
"""Preprocessors that need no weights."""

HUGE = 10**400
ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 0.5, -0.5, 1e9, 1e300, 2**63, -(2**70), HUGE, -HUGE,
    float("nan"), float("inf"), float("-inf"), "", " ", "0.5", "1e400", "NaN", "none", "None", "true", "maybe",
    "x" * 3000, "\U0001f389", "bad\ud800half", "a\nb\x00c", "../../etc/passwd", "<lora:a:1>", [], [None], [1, 2], [[]],
    ["x"], {}, {"a": 1}, {"image": None}, {"image": {"image": {}}}, [[[[[[1]]]]]],
)  # fmt: skip
"""Values of every kind of JSON, for every field."""

TYPOS: Sequence[Callable[[str], str]] = (
    lambda name: name[:1] + name[2:],
    lambda name: name + "s",
    lambda name: name.upper(),
    lambda name: name.replace("_", " "),
    lambda name: name[::-1],
)


@dataclass
class Request:
    """One call. `host`: what the job asks of the host, without control. `units`: the entries of our script, if known.

    `valid`: nothing in it is wrong, so it must be answered with 200.
    """

    method: str
    path: str
    body: Any = None
    host: Mapping[str, Any] | None = None
    units: list[Any] = field(default_factory=list)
    valid: bool = False


def nested(random: Random) -> Any:
    """Lists or objects in each other, up to deeper than Python recurses."""
    value: Any = 1
    for _ in range(random.choice((5, 60, 400, 900))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def odd_value(random: Random) -> Any:
    draw = random.random()
    if draw < 0.15:
        return pictures.odd(random)
    return nested(random) if draw < 0.2 else random.choice(ODD_VALUES)


def unit(random: Random) -> dict[str, Any]:
    """A unit that must work."""
    made: dict[str, Any] = {
        "enabled": random.choice((True, True, True, 1, "true")),
        "module": random.choice(MODULES[:8]),
        "model": random.choice(MODELS),
        "image": pictures.valid(random),
    }
    start, end = sorted(round(random.random(), 2) for _ in range(2))
    choices: dict[str, Callable[[], Any]] = {
        "weight": lambda: round(random.uniform(0, 2), 2),
        "resize_mode": lambda: random.choice((0, 1, 2, "Just Resize", "Crop and Resize", "Resize and Fill")),
        "control_mode": lambda: random.choice((0, 1, 2, "Balanced", "My prompt is more important")),
        "processor_res": lambda: random.choice((-1, 64, 65, 128, 512, 0, 4096, 400.0)),
        "threshold_a": lambda: random.choice((-1, 0, 1, 64, 100, 0.5, 300)),
        "threshold_b": lambda: random.choice((-1, 0, 1, 64, 200, 0.5, 300)),
        "guidance_start": lambda: start,
        "guidance_end": lambda: end,
        "pixel_perfect": lambda: random.choice((True, False)),
        "hr_option": lambda: random.choice(("Both", "Low res only", "High res only")),
        "effective_region_mask": lambda: pictures.mask(random),
        "save_detected_map": lambda: random.choice((True, False)),
        "low_vram": lambda: random.choice((True, False)),
        "advanced_weighting": lambda: [round(random.random(), 2) for _ in range(7)],
        "weight_schedule": lambda: [[0, round(random.uniform(0.3, 2), 2)], [0.5, random.choice((0, 1))], [1, 2]],
        "hr_weight_schedule": lambda: random.choice(("0=1/0.5=0", "0:0", [[0.3, 0.7]])),
        "uncond_weight": lambda: random.choice((0, 0.5, 1, 2)),
        "reuse_control": lambda: random.choice((-1, 0, 0.3, 1)),
        "ip_weight_type": lambda: random.choice(("normal", "style transfer", "ease in")),
    }
    for name in random.sample(sorted(choices), random.randrange(0, 6)):
        made[name] = choices[name]()
    if "guidance_end" in made and "guidance_start" not in made:
        made["guidance_start"] = 0.0
    if made.get("control_mode") == 2:  # there the negative prompt has nothing to weigh, which is refused
        made.pop("uncond_weight", None)
    return made


def mutated(made: dict[str, Any], random: Random) -> dict[str, Any]:
    """The unit with one to three things wrong, odd or added."""
    made = dict(made)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        name = random.choice(sorted(made)) if made and random.random() < 0.6 else random.choice(FIELDS)
        kind = random.random()
        if kind < 0.6:
            made[name] = odd_value(random)
        elif kind < 0.7:
            made.pop(name, None)
        elif kind < 0.85:
            made[random.choice(TYPOS)(name)] = made.pop(name, odd_value(random))
        else:
            made[random.choice(("my_client", "version", "\U0001f389", "x" * 300, "_private", "\ud800"))] = odd_value(
                random
            )
    return made


FIELDS = (
    "enabled", "module", "model", "weight", "image", "mask", "mask_image", "input_image", "resize_mode", "control_mode",
    "processor_res", "threshold_a", "threshold_b", "guidance", "guidance_start", "guidance_end", "guessmode",
    "pixel_perfect", "hr_option", "lowvram", "inpaint_crop_input_image", "save_detected_map", "advanced_weighting",
    "effective_region_mask", "union_control_type", "input_mode", "batch_images", "output_dir", "loopback", "images",
    "weight_schedule", "hr_weight_schedule", "uncond_weight", "batch_weights", "ip_weight_type", "ip_layer_weights",
    "reuse_control",
    "ip_combine", "pulid_mode", "ipadapter_input", "use_preview_as_input", "is_ui", "batch_mask_dir", "invert_image",
)  # fmt: skip

HOSTS: Sequence[Mapping[str, Any]] = (
    {"width": 64, "height": 64, "steps": 1, "seed": 1},
    {"width": 64, "height": 64, "steps": 2, "seed": 2, "cfg_scale": 1.0},
    {"width": 96, "height": 64, "steps": 3, "seed": 3, "sampler_name": "DDIM"},
    {"width": 64, "height": 64, "steps": 2, "seed": 4, "batch_size": 2},
    {"width": 64, "height": 64, "steps": 1, "seed": 5, "n_iter": 2, "prompt": ""},
    {"width": 64, "height": 64, "steps": 1, "seed": 6, "enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.9},
    {"width": 64, "height": 128, "steps": 2, "seed": 7, "sampler_name": "DPM++ 2M"},
    {"width": 64, "height": 64, "steps": 2, "seed": 8, "init": True, "denoising_strength": 0.9},
    {"width": 64, "height": 64, "steps": 2, "seed": 9, "init": True, "inpaint": True, "denoising_strength": 0.9},
)
"""Jobs whose uncontrolled pictures are known. `init`: img2img, `inpaint`: with a mask."""

COSTLY = (
    "width", "height", "steps", "batch_size", "n_iter", "hr_scale", "hr_resize_x", "hr_resize_y",
    "hr_second_pass_steps", "firstphase_width", "firstphase_height", "script_name", "script_args", "save_images",
    "override_settings", "infotext", "do_not_save_samples", "do_not_save_grid",
)  # fmt: skip
"""Fields of the host whose odd values cost time, write files or change the server."""


def host_body(host: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(route, body) of a job without control."""
    body = {"prompt": "a red heart", "cfg_scale": 4.0, "sampler_name": "Euler", **host}
    random = Random(0)
    if not body.pop("init", False):
        return "/sdapi/v1/txt2img", body
    body["init_images"] = [pictures.base64_of(pictures.saved(pictures.drawing()))]
    if body.pop("inpaint", False):
        body["mask"] = pictures.mask(random)
    return "/sdapi/v1/img2img", body


def job(random: Random, schema: Mapping[str, Mapping[str, Any]]) -> Request:
    """A picture with one to four units, most of them wrong in something. `schema`: properties of each route's body."""
    host = random.choice(HOSTS)
    path, body = host_body(host)
    units: list[Any] = [unit(random) for _ in range(random.choice((1, 1, 1, 2, 3, 4)))]
    valid = random.random() < 0.3 and len(units) <= 3
    if not valid:
        place = random.randrange(len(units))
        units[place] = mutated(units[place], random) if random.random() < 0.95 else odd_value(random)
    script: Any = {"args": units}
    scripts: Any = {"ControlNet": script}
    made = Request("POST", path, {**body, "alwayson_scripts": scripts}, host, units, valid)
    draw = random.random()
    if not valid and draw < 0.05:
        made.body["alwayson_scripts"] = random.choice(
            ({"ControlNet": odd_value(random)}, {"ControlNet": {"args": odd_value(random)}}, odd_value(random),
             {"controlnet": script}, {"ControlNet": {"args": [units]}}, {"ControlNet": {"args": [*units, 0, None]}})
        )  # fmt: skip
        made.host = None
    elif not valid and draw < 0.15:
        name = random.choice([x for x in schema[path] if x not in COSTLY and x != "alwayson_scripts"])
        made.body[name] = odd_value(random)
        made.host = None
    return made


def detect(random: Random) -> Request:
    body: dict[str, Any] = {
        "controlnet_module": random.choice(MODULES),
        "controlnet_input_images": [pictures.valid(random)],
        "controlnet_processor_res": random.choice((-1, 64, 512)),
    }
    names = (*body, "controlnet_masks", "controlnet_images", "controlnet_threshold_a", "controlnet_threshold_b",
             "low_vram", "controlnet_tensor_format", "my_client", "controlnet_modul")  # fmt: skip
    for _ in range(random.randrange(0, 3)):
        name = random.choice(names)
        odd = odd_value(random)
        body[name] = [odd] if name.endswith(("images", "masks")) and random.random() < 0.7 else odd
    return Request("POST", "/controlnet/detect", body)


def pose(random: Random) -> Request:
    def points(count: int) -> list[Any]:
        return [random.choice((0, 1, 0.5, 30.0, 63, 1.0)) for _ in range(3 * count)]

    person: dict[str, Any] = {"pose_keypoints_2d": points(18), "hand_left_keypoints_2d": points(21)}
    drawn: dict[str, Any] = {"people": [person], "canvas_width": 64, "canvas_height": 64}
    for _ in range(random.randrange(0, 3)):
        target = random.choice((drawn, person))
        name = random.choice((*target, "animals", "face_keypoints_2d"))
        if isinstance(target.get(name), list) and random.random() < 0.6 and target[name]:
            target[name] = [*target[name][1:], odd_value(random)]
        else:
            target[name] = odd_value(random)
    body: Any = random.choice(([drawn], [drawn, drawn], drawn, [odd_value(random)]))
    return Request("POST", "/controlnet/render_openpose_json", body)


def lookup(random: Random) -> Request:
    name = random.choice(("version", "settings", "module_list?alias_names=x", "module_list", "control_types",
                          "model_list?update=false", "model_list?update=7"))  # fmt: skip
    return Request("GET", f"/controlnet/{name}")


def job_schemas(openapi: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The properties of both routes' bodies, as the server describes them."""
    bodies = openapi["components"]["schemas"]
    return {
        f"/sdapi/v1/{name.lower()}": bodies[f"StableDiffusionProcessing{name}"]["properties"]
        for name in ("Txt2Img", "Img2Img")
    }


def request(random: Random, schema: Mapping[str, Mapping[str, Any]]) -> Request:
    """The next request of this source of chance."""
    draw = random.random()
    if draw < 0.8:
        return job(random, schema)
    if draw < 0.92:
        return detect(random)
    return pose(random) if draw < 0.97 else lookup(random)

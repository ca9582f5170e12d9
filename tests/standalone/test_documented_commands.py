"""Every command that README and docs print is run by a test, or says here why none can run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launch import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "models").rglob("README.md")),
]
ELSEWHERE = {"docs/api.md": "tests/standalone/test_docs.py::test_examples_in_the_shell_run_as_printed"}
"""Pages whose blocks are run whole."""

CARD = "needs a graphics card"
MACHINES = "needs a second machine"
WHOLE = "is the suite itself, or sets it up"
HOURS = "takes up to hours; its parts are tested"
STANDALONE, DEMO, TRAINING = "tests/standalone/", "tests/demo/", "tests/training/"
ANNOTATE = f"{STANDALONE}test_annotate.py::"
BENCH = f"{STANDALONE}test_bench.py::test_a_run_says_how_long_it_will_take_and_ends_without_a_traceback"
TUTORIAL = f"{TRAINING}test_tutorial.py::test_the_tutorial_leads_to_a_controlled_picture"
PUSH = f"{TRAINING}test_card.py::test_the_command_uploads_a_finished_training"
SERVER = f"{STANDALONE}test_server.py::serving"
PREPARE = f"{TRAINING}test_prepare_cluster.py::test_what_a_killed_preparation_made_is_there_and_a_training_finds_all"
EVALUATE = f"{DEMO}test_model.py::test_control_is_followed_and_prompt_is_obeyed"

LAUNCH, MODULE = "python launch.py", "python -m standalone.demo."
CLUSTER = "--engine ray --address HEAD:6379"
TRAINING_CASES = [f"train_{what}_vs_{peer}" for what in ("time", "memory") for peer in ("finetune", "diffusers")]

RUN = {
    f"{LAUNCH}": SERVER,
    f"{LAUNCH} --ckpt model.safetensors --controlnet-dir folder": SERVER,
    f"{LAUNCH} --ckpt model.safetensors --controlnet-dir trained": SERVER,
    f"{LAUNCH} --gradio 4": "tests/test_launch.py::test_each_gradio_has_its_environment",
    f"{LAUNCH} --behave-as forge": f"{STANDALONE}test_forge.py::app",
    f"{LAUNCH} demo": f"{DEMO}test_run.py::test_whole_demo_follows_the_drawing",
    f"{LAUNCH} demo --preprocessors": f"{DEMO}test_preprocessors.py::test_every_network_shows_something",
    f"{LAUNCH} annotate INPUT... --preprocessor ID --out DIR": f"{ANNOTATE}test_a_pattern_names_pictures",
    f"{LAUNCH} annotate pictures/ --preprocessor canny --param low_threshold=50 --out maps/": (
        f"{ANNOTATE}test_a_folder_keeps_its_shape_and_the_maps_are_those_of_opencv"
    ),
    f"{LAUNCH} annotate --list": f"{ANNOTATE}test_the_list_tells_of_every_preprocessor",
    f"{LAUNCH} annotate PICTURE... --gallery DIR": (
        f"{ANNOTATE}test_the_gallery_shows_what_can_run_and_names_the_rest"
    ),
    f"{LAUNCH} annotate pictures/ --preprocessor canny --out maps/ --engine ray --workers 8": (
        f"{STANDALONE}test_annotate_cluster.py::test_a_cluster_of_its_own_makes_the_same_maps"
    ),
    f"{LAUNCH} measure PICTURES... --maps MAPS --preprocessor ID [--param NAME=NUMBER] [--out DIR] [--json]": (
        f"{STANDALONE}test_measure.py::test_one_object_with_each_metric_a_picture"
    ),
    f"{LAUNCH} find-weight JOB.json --target 0.8 [--unit 0] [--steps 10] [--shorten] [--url ADDRESS] [--json]": (
        f"{STANDALONE}test_find_weight.py::test_the_question_goes_with_the_job_and_the_answer_is_told"
    ),
    f"{LAUNCH} extract-lora CONTROLNET --base CHECKPOINT --rank 128": (
        f"{STANDALONE}test_extract.py::test_the_command_says_what_it_costs"
    ),
    f"{LAUNCH} extract-lora CONTROLNET --base CHECKPOINT --size 0.2 --dtype fp8": (
        f"{STANDALONE}test_extract.py::test_a_fifth_of_the_demos_controlnet_is_nearly_all_of_it"
    ),
    f"{LAUNCH} train CONFIG.toml": TUTORIAL,
    f"{LAUNCH} train photographs.toml --plan": TUTORIAL,
    f"{LAUNCH} train photographs.toml": TUTORIAL,
    f"{LAUNCH} train photographs.toml --resume": TUTORIAL,
    f"{LAUNCH} train my_control.toml": TUTORIAL,
    f"{LAUNCH} train my_control.toml --plan": TUTORIAL,
    f"{LAUNCH} train my_control.toml --resume": TUTORIAL,
    f"{LAUNCH} train my_control.toml --prepare": PREPARE,
    f"{LAUNCH} train photographs.toml --resume --push YOUR_NAME/my_canny": PUSH,
    f"{LAUNCH} train my_control.toml --resume --push USER/NAME": PUSH,
    f"{LAUNCH} bench": BENCH,
    f"{LAUNCH} bench --quick": BENCH,
    f"{MODULE}cards": f"{DEMO}test_cards.py::test_a_card_shows_that_its_control_acts",
    f"{MODULE}colouring --out DIR": f"{DEMO}test_colouring.py::test_a_drawing_is_coloured_inside_its_lines",
    f"{MODULE}control_types --out docs/types": (
        f"{DEMO}test_control_types.py::test_sources_are_what_their_preprocessors_expect"
    ),
    f"{MODULE}evaluate --type canny --out DIR": EVALUATE,
    f'{MODULE}evaluate --type canny --control FILE --kind KIND --cases "weight 1" --out DIR': EVALUATE,
    f"{MODULE}reuse --out FILE --pairs 64 --first 256": (
        "tests/demo/test_reuse.py::test_a_step_costs_a_tenth_more_at_most_and_the_map_is_followed_as_well"
    ),
    f"{MODULE}convergence --out DIR": f"{DEMO}test_convergence.py::test_a_run_tells_its_curve_and_is_not_made_twice",
    f"{MODULE}find_weight --out FILE": (
        f"{DEMO}test_find_weight.py::test_the_middle_between_without_and_with_control_is_reached"
    ),
    "python -m standalone.bench.passes": (
        "tests/standalone/test_bench_passes.py::test_every_step_of_a_pass_meets_the_bare_step_on_its_own_latents"
    ),
    f"{MODULE}evaluate --type canny --control train_output/demo_canny/demo_canny.safetensors --out DIR": EVALUATE,
    "python -m tests.browser.stage MODELS WEIGHTS": "tests/browser/conftest.py::server",
    f"{MODULE}looks train_output/demo_canny --out docs/training": (
        f"{DEMO}test_looks.py::test_a_log_and_its_samples_become_two_pictures"
    ),
    "python -m tests.fuzz --calls 10000 --seed 1": (
        "tests/fuzz/test_fuzz.py::test_no_request_crashes_or_is_silently_wrong"
    ),
}
"""Command as printed: the test, or the fixture, that runs what it does with the same options on something small."""

NOT_RUN = {
    "git clone <this repository>": WHOLE,
    "git clone ADDRESS extensions/sd-webui-controlnet": "needs the WebUI's own repository",
    "git clone ADDRESS extensions/controlnet": "needs the WebUI's own repository",
    ".ci/run": WHOLE,
    f"{LAUNCH} test": WHOLE,
    f"{LAUNCH} test --gradio 4": WHOLE,
    f"{LAUNCH} test tests/core -k resize -x": WHOLE,
    f"{LAUNCH} ray --version": WHOLE,
    f"{LAUNCH} bench --case device_events": HOURS,
    f"{LAUNCH} bench --device cuda": CARD,
    f"{LAUNCH} bench --true-width --case {' --case '.join(TRAINING_CASES)}": HOURS,
    f"{LAUNCH} bench --case step_reuse_one --case step_reuse_two": HOURS,
    f"{LAUNCH} annotate 'shards/*.tar' --preprocessor depth_midas --out maps/ --workers 4 --device cuda": CARD,
    f"{LAUNCH} ray get-auth-token --generate": MACHINES,
    f"{LAUNCH} ray start --head --port 6379": MACHINES,
    f"{LAUNCH} ray start --address HEAD:6379": MACHINES,
    f"{LAUNCH} annotate /data/pictures --preprocessor openpose --out /data/maps {CLUSTER}": MACHINES,
    f"{LAUNCH} train models/demo/canny.toml --threads 1": HOURS,
    f"{LAUNCH} train models/demo/canny.toml": HOURS,
}


def printed(page: Path) -> list[str]:
    """Commands in a page's blocks, and whole ones in its text; comments and what only shows output left out."""
    text = page.read_text("utf-8")
    lines: list[str] = []
    blocks = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for block in blocks.findall(text):
        lines += re.sub(r"\\\n\s*", "", block).splitlines()
    lines += [re.sub(r"\s+", " ", found) for found in re.findall(r"`(python [^`]*)`", blocks.sub("", text))]
    commands = (re.sub(r"\s{2,}", " ", re.split(r"\s+#|\s&&", line)[0]).strip() for line in lines)
    return [command for command in commands if re.match(r"(python|git|curl|\.ci/)\b", command) or command == ".ci/run"]


ALL = {command: page for page in PAGES for command in printed(page) if str(page.relative_to(ROOT)) not in ELSEWHERE}
RECIPE = re.compile(r"python -m standalone\.demo\.(train_(vae|text|base)|data|checkpoint) ")
"""How the demo's checkpoint was trained: HOURS."""


def test_every_command_is_run_or_says_why_not() -> None:
    known = {*RUN, *NOT_RUN}
    found = {command for command in ALL if not RECIPE.match(command)}
    assert found - known == set(), "printed and not declared here"
    assert known - found == set(), "declared and printed nowhere"
    assert len(ALL) - len(found) == 8
    assert not set(RUN) & set(NOT_RUN)


@pytest.mark.parametrize("named", sorted({*RUN.values(), *ELSEWHERE.values()}))
def test_the_tests_that_run_them_exist(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), named


@pytest.mark.parametrize("command", sorted(ALL))
def test_options_are_those_of_the_command(command: str) -> None:
    """As words of its parser's source: a renamed option cannot stay in a page."""
    words = command.split()
    if words[:2] == ["python", "launch.py"]:
        name = words[2] if len(words) > 2 and words[2] in COMMANDS else "webui"
        module = COMMANDS[name].module
    elif words[:2] == ["python", "-m"]:
        module = words[2]
    else:
        return
    if not module.startswith(("standalone", "tests")) or "ray " in command:
        return
    parent = ROOT.joinpath(*module.split(".")[:2])
    sources = [*parent.rglob("*.py")] if parent.is_dir() else [parent.with_suffix(".py")]
    webui = ROOT / "standalone" / "modules" / "shared_cmd_options.py"
    text = "".join(path.read_text("utf-8") for path in [*sources, webui, ROOT / "launch.py", ROOT / "preload.py"])
    for option in re.findall(r"(?<![\w-])--[a-z-]+", command):
        assert f'"{option}"' in text or f'"{option[2:]}"' in text, option

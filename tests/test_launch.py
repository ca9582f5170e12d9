"""The launcher: what it starts, when it installs, what it says when that fails. Never installs for real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import launch

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {*launch.TOOLS, *(lock for venv in (*launch.GRADIOS.values(), launch.RAY) for lock in venv.run)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with launch.py and empty lock files."""
    (tmp_path / "launch.py").write_bytes((ROOT / "launch.py").read_bytes())
    for lock in LOCKS:
        (tmp_path / lock.file).write_text("# nothing\n", "utf-8")
    return tmp_path


def installed(repository: Path, locks: tuple[launch.Lock, ...] = launch.RUN, folder: str = ".venv") -> Path:
    """Makes an environment look complete, with this Python; returns its interpreter."""
    environment = launch.Environment(repository, folder)
    environment.python.parent.mkdir(parents=True, exist_ok=True)
    if not environment.python.exists():
        environment.python.symlink_to(sys.executable)
    for lock in locks:
        environment._record(lock)
    return environment.python


def start(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "launch.py"), *arguments]
    set_by_launch = {"PYTHONPATH", *dict(launch.PRIVATE + launch.CPU)}
    everything = {key: value for key, value in os.environ.items() if key not in set_by_launch}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=repository.parent,
        stdin=subprocess.DEVNULL,
        env={**everything, **environment},
    )


REPORTER = """
import json, os, sys
def main(argv):
    keys = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "OMP_WAIT_POLICY")
    print(json.dumps({"argv": argv, "cwd": os.getcwd(), "env": {k: os.environ.get(k) for k in keys}}))
    return 7
"""


def write_command(repository: Path, name: str) -> None:
    module = repository / Path(*launch.COMMANDS[name].module.split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(REPORTER, "utf-8")


@pytest.mark.parametrize(
    ("arguments", "name", "expected"),
    [
        ([], "webui", []),
        (["--port", "7861", "--listen"], "webui", ["--port", "7861", "--listen"]),
        (["webui", "--nowebui"], "webui", ["--nowebui"]),
        (["demo", "--out", "a b", "--json"], "demo", ["--out", "a b", "--json"]),
        (["bench", "--quick"], "bench", ["--quick"]),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_command_gets_arguments_folder_and_exit_code(repository, arguments, name, expected):
    installed(repository)
    write_command(repository, name)
    result = start(repository, *arguments)
    assert result.returncode == 7, result.stderr
    said = json.loads(result.stdout)
    assert said["argv"] == expected
    assert said["cwd"] == str(repository.parent)
    assert said["env"]["HF_HUB_OFFLINE"] == "1"
    assert said["env"]["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_own_environment_variables_win(repository):
    installed(repository)
    write_command(repository, "demo")
    said = json.loads(start(repository, "demo", HF_HUB_OFFLINE="0").stdout)
    assert said["env"]["HF_HUB_OFFLINE"] == "0"


def test_help_and_unknown_command_install_nothing(repository):
    for flag in ("help", "--help", "-h"):
        result = start(repository, flag)
        assert result.returncode == 0
        assert all(f"launch.py {name}" in result.stdout for name in ("demo", "test", "bench"))
    result = start(repository, "dmeo")
    assert result.returncode == 2
    assert '"dmeo"' in result.stderr
    assert "demo" in result.stderr
    assert not (repository / ".venv").exists()


def test_complete_environment_is_left_alone(repository, monkeypatch):
    installed(repository)
    monkeypatch.setattr(launch.Environment, "_install", lambda *_: pytest.fail("installed again"))
    environment = launch.Environment(repository)
    assert environment.ensure(launch.RUN) == environment.python


def test_only_what_changed_is_installed_and_a_stop_is_resumed(repository, monkeypatch):
    installed(repository)
    (repository / "requirements-nodeps.txt").write_text("another==1\n", "utf-8")
    asked: list[list[str]] = []

    def step(_self: launch.Environment, command: list[str], _progress: object) -> None:
        asked.append(command)
        if len(asked) == 2:
            raise launch.SetupError("stopped")

    monkeypatch.setattr(launch.Environment, "_step", step)
    monkeypatch.setattr(launch.Environment, "_works", lambda _self: True)
    environment = launch.Environment(repository)
    with pytest.raises(launch.SetupError, match="stopped"):
        environment.ensure(launch.RUN + launch.TOOLS)
    assert [Path(command[-1]).name for command in asked] == ["requirements-nodeps.txt", "requirements-dev.txt"]
    assert "--no-deps" in asked[0]
    assert "--no-deps" not in asked[1]

    asked[:] = [["placeholder"] * 2] * 2
    environment.ensure(launch.RUN + launch.TOOLS)  # the first list is in, the second is asked for again
    later = ["requirements-dev.txt", "requirements-preprocessors.txt"]
    assert [Path(command[-1]).name for command in asked[2:]] == later
    environment.ensure(launch.RUN + launch.TOOLS)
    assert len(asked) == 4


@pytest.mark.parametrize("damage", ["no interpreter", "no pip"])
def test_damaged_environment_is_made_anew(repository, monkeypatch, damage):
    """With everything in it, also the lists that were installed before."""
    environment = launch.Environment(repository)
    python = installed(repository, launch.RUN[:1])
    if damage == "no interpreter":
        python.unlink()
    made: list[str] = []

    def create(_self: launch.Environment) -> None:
        shutil.rmtree(environment.folder)
        installed(repository, ())
        made.append("venv")

    monkeypatch.setattr(launch.Environment, "_works", lambda _self: False)
    monkeypatch.setattr(launch.Environment, "_create", create)
    monkeypatch.setattr(launch.Environment, "_step", lambda _self, command, _progress: made.append(command[-1]))
    environment.ensure(launch.RUN)
    assert made == ["venv", *(str(repository / lock.file) for lock in launch.RUN)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"requirements.txt": 5}'])
def test_damaged_stamp_means_install(repository, text):
    installed(repository)
    environment = launch.Environment(repository)
    environment.stamp.write_text(text, "utf-8")
    assert environment._missing(launch.RUN)[0] == launch.RUN[0]


def test_failed_step_is_one_sentence_with_its_command(repository, capsys):
    environment = launch.Environment(repository)
    code = "print('Collecting a'); print('ERROR: No matching distribution found for a==1'); raise SystemExit(3)"
    with pytest.raises(launch.SetupError) as caught:
        environment._step([sys.executable, "-c", code], launch._Progress("requirements.txt", 1))
    text = str(caught.value)
    assert "\n" not in text
    assert subprocess.list2cmdline([sys.executable, "-c", code]) in text
    assert "No matching distribution found for a==1" in text
    assert "Collecting a" in environment.log.read_text("utf-8")


def test_failed_setup_ends_the_start(repository):
    """End to end: a Python without pip in `.venv`, so that the first command of the set-up fails."""
    broken = textwrap.dedent(
        """
        import launch, sys
        launch.Environment._works = lambda self: True
        launch.Environment.python = property(lambda self: __import__("pathlib").Path(sys.executable + "-gone"))
        sys.exit(launch.main(["demo"]))
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, cwd=repository, timeout=60, check=False
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "pip install" in result.stderr


def test_progress_names_large_downloads(repository, capsys):
    environment = launch.Environment(repository)
    lines = ["Collecting torch==1", "  Downloading torch-1.whl (800.1 MB)", "Installing collected packages: torch"]
    code = f"print({chr(10).join(lines)!r})"
    environment._step([sys.executable, "-c", code], launch._Progress("requirements.txt", 1))
    said = capsys.readouterr().out
    assert "torch-1.whl (800.1 MB)" in said
    assert "unpacking" in said


def test_two_starts_install_once(tmp_path):
    """The lock is held by one process at a time, and freed by one that dies."""
    script = tmp_path / "hold.py"
    script.write_text(
        "import sys, os, time; sys.path.insert(0, sys.argv[1]); import launch; from pathlib import Path\n"
        "with launch._only_one(Path(sys.argv[2])):\n"
        "    print('in', flush=True); sys.stdin.readline(); os._exit(0)\n",
        "utf-8",
    )
    command = [sys.executable, str(script), str(ROOT), str(tmp_path / "lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        waiting = {first: first.stdout.readline(), second: second.stdout.readline()}
        holder = next(process for process, line in waiting.items() if line == "in\n")
        other = second if holder is first else first
        assert "waiting" in waiting[other]
        holder.communicate("die\n", timeout=60)
        assert other.stdout.readline() == "in\n"
        other.communicate("die\n", timeout=60)


def test_second_start_is_quick(repository):
    """CPU seconds from the start to the handing over, which imports nothing outside the standard library."""
    installed(repository)
    code = (
        "import sys, time; t = time.process_time(); import launch;"
        "launch.os.execve = lambda *_: sys.exit(print(time.process_time() - t));"
        "launch.main(['demo'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=False)
    assert float(run.stdout) < 0.5, run.stderr


def test_whole_suite_or_what_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shares = {version: [str(ROOT / name) for name in gradio.tests] for version, gradio in launch.GRADIOS.items()}
    assert shares == {"3": [str(ROOT / "tests")], "4": [str(ROOT / "tests" / "ui"), str(ROOT / "tests" / "browser")]}
    for gradio, share in zip(launch.GRADIOS.values(), shares.values(), strict=True):
        named = ["tests/test_launch.py::test_x", "-x"]
        assert launch._test_arguments(["-k", "canny"], gradio.tests) == ["-k", "canny", *share]
        assert launch._test_arguments(named, gradio.tests) == named


@pytest.mark.parametrize(
    ("argv", "taken"),
    [
        (["test", "-x"], ("3", ["test", "-x"])),
        (["test", "--gradio", "4", "-x"], ("4", ["test", "-x"])),
        (["--gradio=4", "--port", "1"], ("4", ["--port", "1"])),
        (["test", "--gradio"], ("", ["test"])),
    ],
)
def test_version_of_gradio_is_taken_from_the_arguments(argv, taken):
    assert launch._take_gradio(argv) == taken


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_each_gradio_has_its_environment(repository):
    write_command(repository, "demo")
    python = installed(repository, launch.GRADIOS["4"].run, ".venv-gradio4")
    assert start(repository, "demo", "--gradio", "4").returncode == 7
    assert python.is_relative_to(repository / ".venv-gradio4")
    assert not (repository / ".venv").exists()
    refused = start(repository, "demo", "--gradio", "5")
    assert refused.returncode == 2
    assert "--gradio is 3 or 4" in refused.stderr


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["annotate", "in", "--engine", "ray"], ".venv-ray"),
        (["annotate", "--engine=ray", "in"], ".venv-ray"),
        (["ray", "start", "--head"], ".venv-ray"),
        (["annotate", "in", "--engine", "local"], ".venv"),
        (["annotate", "ray"], ".venv"),
    ],
)
def test_ray_has_its_environment(repository, arguments, folder):
    write_command(repository, arguments[0])
    installed(repository, launch.RAY.run if folder == ".venv-ray" else launch.RUN, folder)
    assert start(repository, *arguments).returncode == 7
    assert [path.name for path in repository.glob(".venv*") if path.is_dir()] == [folder]


def releases(file: Path) -> dict[str, set[str]]:
    """The versions of each package in a lock."""
    found: dict[str, set[str]] = {}
    for line in file.read_text("utf-8").splitlines():
        if line[:1].isalnum():
            name, _, version = line.split(";")[0].strip().partition("==")
            found.setdefault(name, set()).add(version)
    return found


def test_ray_makes_maps_with_the_same_packages():
    """A map must be the same to the bit in both environments; and what gradio brings is not in Ray's."""
    ray, main = (releases(ROOT / name) for name in ("requirements-ray.txt", "requirements.txt"))
    assert {name: ray[name] for name in ray.keys() & main.keys() if ray[name] != main[name]} == {}
    assert {"torch", "numpy", "opencv-python-headless", "pillow", "scipy"} <= ray.keys()
    assert not {"gradio", "pydantic", "pyarrow"} & ray.keys()


@pytest.mark.parametrize(
    ("version", "on_path", "expected"),
    [
        ((3, 10, 0), {}, "own"),
        ((3, 14, 0), {"python3.12": "/usr/bin/python3.12", "python3.10": "/usr/bin/python3.10"}, "/usr/bin/python3.12"),
        ((3, 9, 0), {"python3.11": "/opt/python3.11"}, "/opt/python3.11"),
        ((3, 14, 0), {}, None),
    ],
)
def test_a_python_that_fits_is_used(monkeypatch, version, on_path, expected):
    monkeypatch.setattr(launch.sys, "version_info", version)
    monkeypatch.setattr(launch.shutil, "which", on_path.get)
    if expected is None:
        with pytest.raises(launch.SetupError, match=r"Python 3\.10 to"):
            launch._supported_python()
    else:
        assert launch._supported_python() == [sys.executable if expected == "own" else expected]


def test_locks_pin_everything():
    for lock in LOCKS:
        lines = [line.split("#")[0].strip() for line in (ROOT / lock.file).read_text("utf-8").splitlines()]
        packages = [line for line in lines if line]
        assert packages
        assert [line for line in packages if "==" not in line.split(";")[0]] == []


@pytest.mark.parametrize("with_host", [True, False])
def test_import_by_another_extension_finds_the_hosts_functions(tmp_path, with_host):
    """Forge keeps our folder first on `sys.path`; `import launch` there must still give `is_installed`."""
    path = [str(ROOT)]
    if with_host:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "__init__.py").touch()
        (tmp_path / "modules" / "launch_utils.py").write_text("def is_installed(name): return name == 'x'\n", "utf-8")
        path.append(str(tmp_path))
    code = f"import sys; sys.path[:0] = {path!r}; import launch; print(launch.is_installed('x'))"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    if with_host:
        assert run.stdout == "True\n", run.stderr
    else:
        assert "AttributeError: module 'launch' has no attribute 'is_installed'" in run.stderr


@pytest.mark.parametrize(("arguments", "wanted"), [((), False), (("--preprocessors",), True)])
def test_the_demo_installs_more_only_where_it_is_asked_to(monkeypatch, arguments, wanted):
    asked: list[launch.Lock] = []

    def ensure(_self, locks):
        asked.extend(locks)
        raise launch.SetupError("enough")

    monkeypatch.setattr(launch.Environment, "ensure", ensure)
    assert launch.main(["demo", *arguments]) == 1
    assert (launch.PREPROCESSORS in asked) is wanted
    assert set(launch.RUN) <= set(asked)

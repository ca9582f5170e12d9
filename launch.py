#!/usr/bin/env python3
"""The one entry: makes `.venv` on first use, then runs a subcommand in it.

    python launch.py [webui] [options]    the embedded WebUI, http://127.0.0.1:7860
    python launch.py demo [--out DIR]     draw without and with control, and measure (--preprocessors: maps of a photo)
    python launch.py test [pytest args]   the test suite
    python launch.py annotate INPUT...    preprocessors over folders of pictures; --list shows them
    python launch.py ray start|stop ...   the machines of `--engine ray` (annotate, train): see docs/annotate.md
    python launch.py train CONFIG.toml    train a ControlNet: see docs/training.md
    python launch.py measure PICTURES --maps MAPS --preprocessor ID    how well pictures follow their maps
    python launch.py find-weight JOB.json --target 0.8    the least weight that reaches an adherence
    python launch.py extract-lora CONTROLNET --base CHECKPOINT    make a Control-LoRA of a ControlNet
    python launch.py bench [--quick]      the benchmarks

`COMMAND --help` prints a command's options. `--gradio 4` runs it with Forge's page library, in `.venv-gradio4`.
Standard library only, and no network after the first use: a stamp in the environment holds the lock files' hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parent
SUPPORTED = ((3, 10), (3, 13))
"""First Python that works, first that does not: NumPy 1, which gradio 3.41.2 needs, ends at Python 3.12."""


class Lock(NamedTuple):
    """One locked list of packages and the way pip installs it."""

    file: str
    options: tuple[str, ...] = ()


class Command(NamedTuple):
    """What runs in the environment: `main(argv)` of a module of ours, or a module as `python -m`."""

    module: str
    ours: bool = True
    tools: tuple[Lock, ...] = ()
    extras: tuple[str, ...] = ()
    """Options with which alone `tools` are needed; without any they always are."""
    environment: tuple[tuple[str, str], ...] = ()


class Venv(NamedTuple):
    """One environment: its folder, its packages, and the tests that depend on them."""

    folder: str
    run: tuple[Lock, ...]
    tests: tuple[str, ...] = ()


NODEPS = Lock("requirements-nodeps.txt", ("--no-deps",))
RUN = (Lock("requirements.txt"), NODEPS)
GRADIOS = {
    "3": Venv(".venv", RUN, ("tests",)),
    "4": Venv(".venv-gradio4", (Lock("requirements-gradio4.txt"), NODEPS), ("tests/ui", "tests/browser")),
}
RAY = Venv(".venv-ray", (Lock("requirements-ray.txt"), NODEPS))
PREPROCESSORS = Lock("requirements-preprocessors.txt", ("--no-deps",))
TOOLS = (Lock("requirements-dev.txt"), PREPROCESSORS)
PASSIVE = (("OMP_WAIT_POLICY", "PASSIVE"),)
CPU = (("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1))), *PASSIVE)
PRIVATE = (
    ("GRADIO_ANALYTICS_ENABLED", "False"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
    ("RAY_AUTH_MODE", "token"),
)
"""No library of ours calls home; whoever sets one of these himself is obeyed."""

COMMANDS = {
    "webui": Command("standalone.webui"),
    "demo": Command("standalone.demo.run", tools=(PREPROCESSORS,), extras=("--preprocessors",)),
    "test": Command("pytest", ours=False, tools=TOOLS, environment=CPU),
    "annotate": Command("standalone.annotate.cli", environment=PASSIVE),
    "ray": Command("standalone.annotate.nodes"),
    "train": Command("standalone.train.cli", environment=PASSIVE),
    "measure": Command("standalone.measure.cli", environment=PASSIVE),
    "find-weight": Command("standalone.measure.find", environment=PASSIVE),
    "extract-lora": Command("standalone.extract.cli"),
    "bench": Command("standalone.bench.cli", environment=PASSIVE),
}


HELP = (["-h"], ["--help"], ["help"])
CALL = """import sys
try:
    from %s import main
    sys.exit(main(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(print("\\nInterrupted.", file=sys.stderr, flush=True) or 130)"""


class SetupError(Exception):
    """Set-up cannot go on; the text is the one sentence the user reads."""


def main(argv: Sequence[str]) -> int:
    """Run `argv` (without the program's name); returns the exit code."""
    version, argv = _take_gradio(argv)
    name, arguments = _parse(argv)
    if name == "help":
        print((__doc__ or "").strip())
        return 0
    if name not in COMMANDS:
        print(f'launch.py: there is no command "{name}"; there are: {", ".join(COMMANDS)}, help.', file=sys.stderr)
        return 2
    if version not in GRADIOS:
        print(f'launch.py: --gradio is {" or ".join(GRADIOS)}, not "{version}".', file=sys.stderr)
        return 2
    command = COMMANDS[name]
    venv = RAY if name == "ray" or "--engine ray" in " ".join(arguments).replace("=", " ") else GRADIOS[version]
    try:
        wanted = command.tools if not command.extras or set(command.extras) & set(arguments) else ()
        python = Environment(ROOT, venv.folder).ensure(venv.run + wanted)
    except SetupError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlaunch.py: set-up was interrupted; the next start resumes it.", file=sys.stderr)
        return 130
    return _run(python, command, arguments, venv.tests)


def _take_gradio(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The value of `--gradio`, the first's where there is none, and the other arguments."""
    rest = list(argv)
    for place, argument in enumerate(rest):
        option, equals, value = argument.partition("=")
        if option == "--gradio":
            value = value if equals else " ".join(rest[place + 1 : place + 2])
            return value, rest[:place] + rest[place + (1 if equals else 2) :]
    return next(iter(GRADIOS)), rest


def _parse(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Command and its arguments; options without a command are the WebUI's."""
    if (argv[1:2] if argv[:1] == ["test"] else argv[:1]) in HELP:  # pytest would be installed to be asked
        return "help", []
    return ("webui", list(argv)) if not argv or argv[0].startswith("-") else (argv[0], list(argv[1:]))


def _run(python: Path, command: Command, arguments: list[str], tests: Sequence[str]) -> int:
    environment = dict(os.environ)
    for key, value in PRIVATE + command.environment:
        environment.setdefault(key, value)
    # The caller's folder stays the current one, so that paths in the arguments mean what he thinks.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    if command.ours:
        line = [str(python), "-c", CALL % command.module, *arguments]
    else:
        line = [str(python), "-m", command.module, "--rootdir", str(ROOT), *_test_arguments(arguments, tests)]
    if os.name == "nt":  # exec there starts a second process and returns to the prompt at once
        return subprocess.call(line, env=environment)
    sys.stdout.flush()
    return os.execve(line[0], line, environment)  # which does not return


def _test_arguments(arguments: list[str], tests: Sequence[str]) -> list[str]:
    """`tests`, the environment's share of the suite, unless the arguments name something themselves."""
    named = any(Path(argument.split("::")[0]).exists() for argument in arguments if not argument.startswith("-"))
    return arguments if named else [*arguments, *(str(ROOT / folder) for folder in tests)]


class Environment:
    """One of the repository's environments: complete or not there, as far as a start can tell."""

    def __init__(self, root: Path, name: str = ".venv") -> None:
        self.root = root
        self.folder = root / name
        self.stamp = self.folder / "installed.json"
        self.log = root / f"{name}-setup.log"

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def ensure(self, locks: Sequence[Lock]) -> Path:
        """The environment's Python, after installing what its stamp does not list. Raises SetupError."""
        if not self._missing(locks):
            return self.python
        with _only_one(self.folder.with_name(f"{self.folder.name}.lock")):
            if self._missing(locks):  # another start may have installed it while this one waited
                self._install(locks)
        return self.python

    def _missing(self, locks: Sequence[Lock]) -> list[Lock]:
        """Locks that are not, or not in this wording, installed."""
        if not self.python.exists():
            return list(locks)
        done = self._stamped()
        return [lock for lock in locks if done.get(lock.file) != self._hash(lock)]

    def _stamped(self) -> dict[str, str]:
        """Lock file -> hash of what was installed; empty where nothing was, or the stamp cannot be read."""
        try:
            done = json.loads(self.stamp.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return done if isinstance(done, dict) else {}

    def _hash(self, lock: Lock) -> str:
        text = (self.root / lock.file).read_text("utf-8")
        return hashlib.sha256("\n".join([*lock.options, *text.splitlines()]).encode()).hexdigest()

    def _install(self, locks: Sequence[Lock]) -> None:
        started = time.monotonic()
        print(f"Setting up {self.folder} (once; a few minutes and about 2 GB).", flush=True)
        self.log.write_text("", "utf-8")
        if not self._works():
            self._create()
        for lock in self._missing(locks):
            self._pip_install(lock)
            self._record(lock)
        print(f"Set-up is complete after {time.monotonic() - started:.0f} s.", flush=True)

    def _works(self) -> bool:
        """Whether Python and pip of a folder left by an earlier start run."""
        if not self.python.exists():
            return False
        probe = [str(self.python), "-c", "import pip"]
        try:
            return subprocess.run(probe, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def _create(self) -> None:
        chosen = _supported_python()
        if chosen == [sys.executable]:
            import venv

            try:
                venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(self.folder)
            except (OSError, subprocess.CalledProcessError) as error:
                command = f'"{sys.executable}" -m venv --clear "{self.folder}"'
                hint = " (on Debian and Ubuntu the package python3-venv is needed)" if os.name != "nt" else ""
                raise SetupError(f"set-up failed at {command}: {error}{hint}.") from error
            return
        self._step([*chosen, "-m", "venv", "--clear", str(self.folder)], _Progress(f"making {self.folder.name}", 0))

    def _pip_install(self, lock: Lock) -> None:
        count = sum(line[:1].isalnum() for line in (self.root / lock.file).read_text("utf-8").splitlines())
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        self._step([*pip, *lock.options, "-r", str(self.root / lock.file)], _Progress(lock.file, count))

    def _step(self, command: list[str], progress: _Progress) -> None:
        """Run one command of the set-up with its output in the log and its progress on the screen."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        environment.update(PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", PIP_PROGRESS_BAR="off")
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            process = subprocess.Popen(command, **pipes, encoding="utf-8", errors="replace", env=environment)
        except OSError as error:
            raise SetupError(f"set-up failed at {subprocess.list2cmdline(command)}: {error}.") from error
        with process, self.log.open("a", encoding="utf-8") as log:
            try:
                reason = progress.follow(process.stdout, log)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            why = f"{reason or f'exit code {process.returncode}'} (all of its output is in {self.log})"
            raise SetupError(f"set-up failed at {subprocess.list2cmdline(command)}: {why}.")

    def _record(self, lock: Lock) -> None:
        """Add one lock to the stamp; written aside and renamed, so that it is whole or not there."""
        done = {**self._stamped(), lock.file: self._hash(lock)}
        draft = self.stamp.with_suffix(".new")
        draft.write_text(json.dumps(done, indent=1), "utf-8")
        draft.replace(self.stamp)


class _Progress:
    """What the screen shows of pip: how many packages are at hand, and that it is alive."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.seen = 0
        self.state = "starting"
        self.terminal = sys.stdout.isatty()

    def follow(self, output: IO[str] | None, log: IO[str]) -> str:
        """Copy `output` to `log` until it ends; returns the last line that says what went wrong, or ''."""
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_pump, args=(output, lines), daemon=True).start()
        started, reason = time.monotonic(), ""
        while True:
            with contextlib.suppress(queue.Empty):
                line = lines.get(timeout=1)
                if line is None:
                    break
                log.write(line)
                self._read(line)
                reason = line.partition("ERROR: ")[2].strip() or reason
            self._show(time.monotonic() - started)
        if self.terminal:
            print(flush=True)
        return reason.rstrip(".")

    def _read(self, line: str) -> None:
        words = line.split()
        if words[:1] == ["Collecting"] or line.startswith("Requirement already satisfied:"):
            self.seen += 1
            self.state = words[1] if words[0] == "Collecting" else words[3]
        elif words[:1] == ["Downloading"]:
            name = words[1].rsplit("/", 1)[-1]
            self._announce(f"downloading {name} {' '.join(words[2:])}", large=" MB" in line or " GB" in line)
        elif words[:1] == ["Installing"]:
            self._announce("unpacking (a minute or more)", large=True)

    def _announce(self, state: str, large: bool) -> None:
        self.state = state
        if large and not self.terminal:
            print(f"  {self.title}: {state}", flush=True)

    def _show(self, seconds: float) -> None:
        if self.terminal:
            count = f"{min(self.seen, self.total)}/{self.total} " if self.total else ""
            text = f"  {self.title}: {count}{self.state} [{seconds:.0f} s]"
            print("\r" + text[:110].ljust(110), end="", flush=True)


def _pump(output: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    for line in output or ():
        lines.put(line)
    lines.put(None)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Let one start at a time install; the system frees the lock of a start that died."""
    with path.open("a+") as file:
        _lock(file)
        yield


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        while True:
            with contextlib.suppress(OSError):  # gives up after 10 s
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another start is setting up; waiting for it.", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)


def _supported_python() -> list[str]:
    """This Python if the lock fits it, else one from the path. Raises SetupError if there is none."""
    first, end = SUPPORTED
    if first <= sys.version_info[:2] < end:
        return [sys.executable]
    for minor in range(end[1] - 1, first[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            return [found]
    raise SetupError(
        f"Python {first[0]}.{first[1]} to {end[0]}.{end[1] - 1} is needed, this is {sys.version.split()[0]}, "
        "and no other was found on the path; install one and start with it."
    )


def __getattr__(name: str) -> object:
    """Stand aside for the host's module of this name, `modules.launch_utils`.

    Forge keeps each extension's folder first on `sys.path`: another extension's `import launch` finds this file.
    """
    if not name.startswith("__"):
        with contextlib.suppress(ImportError):
            from modules import launch_utils

            return getattr(launch_utils, name)
    raise AttributeError(f"module 'launch' has no attribute {name!r}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

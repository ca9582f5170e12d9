"""What every command has in common: how it ends when it is stopped, and when it is told what cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from standalone.annotate.options import Options
from standalone.annotate.sheet import written

ROOT = Path(__file__).resolve().parents[2]


def command(module: str, *arguments: str, folder: Path = ROOT) -> list[str]:
    """As launch.py starts it."""
    return [
        sys.executable,
        "-c",
        # of a shell's background jobs the signal is ignored, which processes inherit
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path.insert(0, {str(folder)!r})\n{launch.CALL % module}",
        *arguments,
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
@pytest.mark.parametrize("when", ["reading", "running"])
def test_ctrl_c_ends_a_command_in_one_line(tmp_path: Path, when: str) -> None:
    wait = "import time\nprint('ready', flush=True)\ntime.sleep(60)\n"
    body = "".join(f"    {line}\n" for line in wait.splitlines())
    source = f"{wait}def main(argv):\n    return 0\n" if when == "reading" else f"def main(argv):\n{body}"
    (tmp_path / "waiting.py").write_text(source)
    process = subprocess.Popen(
        command("waiting", folder=tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _out, error = process.communicate(timeout=30)
    assert (process.returncode, error.strip()) == (130, "Interrupted.")


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        ("standalone.webui", ["--port", "99999"], "give a number from 1 to 65535, not 99999"),
        ("standalone.webui", ["--port", "-1"], "give a number from 1 to 65535, not -1"),
        ("standalone.demo.run", ["--image", "no_such.png"], "there is no no_such.png"),
        ("standalone.demo.run", ["--ckpt", "no_such.safetensors"], "there is no no_such.safetensors"),
        ("standalone.demo.run", ["--image", "README.md", "--out", "{out}"], "is not a picture"),
        ("standalone.demo.run", ["--image", "tests", "--out", "{out}"], "tests"),
    ],
)
def test_what_cannot_be_is_said_without_a_traceback(
    module: str, arguments: list[str], words: str, tmp_path: Path
) -> None:
    given = [argument.format(out=tmp_path) for argument in arguments]
    done = subprocess.run(command(module, *given), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_asking_for_help_installs_no_test_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch.Environment, "ensure", lambda *_: pytest.fail("something would be installed"))
    assert launch.main(["test", "--help"]) == 0
    assert "test [pytest args]" in capsys.readouterr().out


def test_annotate_finds_what_the_webui_has_downloaded() -> None:
    folders = Options("").folders
    assert ROOT / "standalone" / "user" / "models" / "ControlNetPreprocessor" in folders
    assert folders[0] == ROOT / "models" / "ControlNetPreprocessor", "where downloads go"


@pytest.mark.parametrize("name", ["plain.png", "Bär.png", "рисунок.png", "絵.png", "\U0001f600.png"])
def test_names_are_written_in_letters(name: str) -> None:
    """Never in boxes: with a font that has the letters, or with the letters' numbers."""
    text, font = written(name)
    box = list(font.getmask("\uffff"))
    assert all(list(font.getmask(letter)) != box for letter in text)
    assert text.endswith(".png")

"""The trainer of a WebUI that trains nothing is not even imported."""

from __future__ import annotations

from types import SimpleNamespace

from lib_controlnet.hosts.webui.training import LateJobs
from lib_controlnet.training.status import Status


def test_the_trainer_is_made_when_a_training_is_first_asked_for() -> None:
    made: list[str] = []

    def make() -> SimpleNamespace:
        made.append("made")
        return SimpleNamespace(status=lambda: "running", start=lambda *given, **more: (given, more))

    jobs = LateJobs(make)
    assert jobs.status() == Status("idle")
    assert made == []
    assert jobs.start("settings", resume=True) == (("settings",), {"resume": True})
    assert jobs.status() == "running"
    assert made == ["made"]

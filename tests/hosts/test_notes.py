"""What a job tells its user, in whatever host."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace
from typing import Any

import pytest

from lib_controlnet.hosts.webui.notes import NOTES, forget, say, say_all


class Job:
    """The part of a processing object that notes touch."""

    def __init__(self) -> None:
        self.comments: dict[str, int] = {}
        self.extra_generation_params: dict[str, Any] = {}

    def comment(self, text: str) -> None:
        self.comments[text] = 1


class Frozen:
    """A host's object that lets nobody put anything on it."""

    __slots__ = ()

    @property
    def extra_generation_params(self) -> dict[str, Any]:
        raise RuntimeError("not yet")

    def comment(self, text: str) -> None:
        raise OSError(text)


def test_a_note_is_under_the_pictures_in_the_infotext_and_in_the_log(caplog: pytest.LogCaptureFixture):
    job = Job()
    say(job, "threshold_a 300 was replaced by 100", unit=1)
    assert list(job.comments) == ["ControlNet unit 1: threshold_a 300 was replaced by 100"]
    assert job.extra_generation_params == {NOTES: "Unit 1: threshold_a 300 was replaced by 100"}
    assert caplog.messages == ["Unit 1: threshold_a 300 was replaced by 100"]


def test_notes_are_said_once_and_kept_together(caplog: pytest.LogCaptureFixture):
    job = Job()
    say_all(job, ["one.", "two.", "one."])
    say(copy.copy(job), "two.")
    assert job.extra_generation_params[NOTES] == "One. Two."
    assert len(job.comments) == len(caplog.messages) == 2


def test_an_earlier_jobs_notes_are_not_the_next_ones():
    job = Job()
    say(job, "old")
    shared = copy.copy(job)
    forget(shared)
    assert NOTES not in shared.extra_generation_params
    assert job.extra_generation_params[NOTES] == "Old"
    say(shared, "old")
    assert shared.extra_generation_params[NOTES] == "Old"


@pytest.mark.parametrize(
    "job",
    [
        None,
        object(),
        Frozen(),
        SimpleNamespace(comment=7, comments=[], extra_generation_params=None),
        SimpleNamespace(controlnet_notes="odd", comments={}, extra_generation_params=()),
    ],
    ids=["none", "bare", "frozen", "odd values", "odd notes"],
)
def test_no_host_can_make_a_note_fail(job: Any, caplog: pytest.LogCaptureFixture):
    forget(job)
    say(job, "this is still logged")
    assert "This is still logged" in caplog.messages


def test_a_note_can_be_written_whatever_it_quotes():
    job = Job()
    say(job, 'the name "\ud800\x1b[31m\n\u202e🎉" is odd' + "x" * 5000)
    text = job.extra_generation_params[NOTES]
    json.dumps(text, ensure_ascii=False).encode()
    assert "🎉" in text
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 1100

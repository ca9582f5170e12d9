"""Where detected maps may stand among a job's pictures."""

from types import SimpleNamespace

import pytest

from lib_controlnet.hosts.webui.results import counts_pictures


def _job(selected: object, *titles: str) -> SimpleNamespace:
    scripts = [SimpleNamespace(title=lambda title=title: title) for title in titles]
    return SimpleNamespace(script_args=[selected, None], scripts=SimpleNamespace(selectable_scripts=scripts))


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (_job(0, "Prompt matrix"), False),
        (_job(1, "Prompt matrix"), True),
        (_job(2, "Prompt matrix", "X/Y/Z plot"), False),
        (_job(None, "Prompt matrix"), False),
        (_job(3, "Prompt matrix"), False),
        (SimpleNamespace(), False),
        (SimpleNamespace(scripts=None, script_args=[1]), False),
    ],
)
def test_prompt_matrix_alone_counts_pictures(job: SimpleNamespace, expected: bool) -> None:
    assert counts_pictures(job) is expected

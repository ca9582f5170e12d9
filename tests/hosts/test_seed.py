"""The seed that preprocessors with chance in them get from a job."""

from types import SimpleNamespace

import pytest

from lib_controlnet.hosts import a1111


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ({"seed": 7, "subseed": 2}, 9),
        ({"seed": 7, "subseed": -1, "all_seeds": [7, 8], "all_subseeds": [40, 41]}, 47),
        ({"seed": -1, "subseed": -1, "all_seeds": [5], "all_subseeds": [1]}, 6),
        ({"seed": [11, 11], "subseed": 3, "all_seeds": [11, 11], "all_subseeds": [3, 4]}, 14),
        ({"seed": -1, "subseed": -1}, 0),
    ],
)
def test_first_pictures_seeds_count(p: dict[str, object], expected: int) -> None:
    assert a1111._seed(SimpleNamespace(**p)) == expected


def test_a_scripts_list_of_seeds_is_read() -> None:
    """Prompt matrix gives every picture the same seed as a list."""
    job = SimpleNamespace(seed=[3, 3, 3], subseed=[1, 1, 1], all_seeds=[3, 3, 3], all_subseeds=[1, 1, 1])
    assert a1111._seed(job) == 4

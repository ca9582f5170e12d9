"""Residuals that serve for several steps: when, for which rows, and that what acts on them acts as before."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lib_controlnet.core.modes import ControlMode
from lib_controlnet.core.residuals import Residuals
from lib_controlnet.core.schedule import WeightCurve
from lib_controlnet.core.step import Pass, Step
from lib_controlnet.engine.effect import Computed
from lib_controlnet.engine.reuse import change_of
from lib_controlnet.engine.session import ControlSession
from lib_controlnet.families.base import BaseModel, BoundControl, OwnControl
from tests.families.driving import session_with

from .test_session import CONFIG, SIZE, FakeGeneration, began, picture, reference, step, unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    for name, seed in (("first", 1), ("second", 2)):
        save_file(reference(seed).state_dict(), path / f"{name}.safetensors")
    return path


def at(turn: int, planned: int = 20, drift: float = 0.001, **fields: Any) -> Step:
    """A U-Net call of denoiser call `turn`, whose latents have moved on a little."""
    given = step(progress=(turn - 1) / planned, **fields)
    moved = given.x + drift * turn * torch.ones_like(given.x)
    return replace(given, x=moved, turn=turn, planned=planned)


def _net(run: Any) -> torch.nn.Module:
    return run.model.net


class Watched:
    """A session whose networks' runs are counted."""

    def __init__(self, session: ControlSession) -> None:
        self.session = session
        self.runs: list[int] = []
        for run in session.runs:
            _net(run).register_forward_hook(lambda *_: self.runs.append(self.turn))
        self.turn = 0

    def __call__(self, now: Step) -> list[Tensor]:
        self.turn = now.turn
        control = self.session.begin_call(now)[1]
        self.session.end_call(now.x, [])
        self.session.done()
        return [] if control is None else list(control.outputs())


def watched(folder: Path, *units: Any, **given: Any) -> Watched:
    return Watched(began(folder, *(units or (unit(reuse_control=1.0),)), **given))


def same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) > 0 and all(map(torch.equal, first, second))


SCHEDULES = {
    5: [1, 2, 3, 4, 5],
    6: [1, 2, 4, 6],
    8: [1, 2, 4, 6, 8],
    10: [1, 2, 4, 6, 8, 10],
    12: [1, 2, 5, 8, 11],
    20: [1, 2, 6, 10, 14, 18],
}
"""Denoiser calls of a pass -> those that are computed where next to nothing changes: a fifth of the pass apart."""


class Going:
    """What comes of a call by hand, from what it would be in full, [cond row, uncond row].

    Of the computed calls the third, fifth, ... are computed for the cond row alone, but in passes of 10 calls or fewer:
    the other one moves with it. What serves is the last of it, and half of what the cond row had changed by, a call.
    """

    def __init__(self, turns: Sequence[int], moves: bool = True) -> None:
        self._turns, self._moves = turns, moves
        self._made: list[tuple[int, list[Tensor]]] = []

    def at(self, turn: int, full: list[Tensor]) -> list[Tensor]:
        if turn in self._turns:
            count, short = self._turns.index(turn), self._turns[2] < 5
            outputs = full if short or count < 2 or count % 2 else self._half(full)
            self._made.append((turn, outputs))
            return outputs
        (earlier, old), (later, new) = self._made[-2:]
        calls = (turn - later) / (later - earlier) if self._moves else 0.0
        return [b + 0.5 * calls * (b - a)[:1] for a, b in zip(old, new, strict=True)]

    def _half(self, full: list[Tensor]) -> list[Tensor]:
        last = self._made[-1][1]
        return [torch.stack([new[0], kept[1] + new[0] - kept[0]]) for new, kept in zip(full, last, strict=True)]


def near(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Equal but for rounding, which is another where fewer rows are computed at once (up to 1e-6)."""
    pairs = zip(first, second, strict=True)
    return len(first) > 0 and all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("planned", SCHEDULES)
def test_what_is_computed_is_as_without_reuse_and_what_serves_goes_on_as_it_went(folder: Path, planned: int) -> None:
    full, reused, going = watched(folder, unit()), watched(folder), Going(SCHEDULES[planned])
    for turn in range(1, planned + 1):
        expected, found = full(at(turn, planned)), reused(at(turn, planned))
        assert near(found, going.at(turn, expected))
        assert turn in SCHEDULES[planned] or not near(found, expected)
        assert turn not in SCHEDULES[planned][:2] or same(found, expected)
    assert full.runs == list(range(1, planned + 1))
    assert reused.runs == SCHEDULES[planned]


def test_what_serves_is_neither_what_was_computed_nor_what_would_be(folder: Path) -> None:
    """That is: the test above can fail."""
    full, staying = watched(folder, unit()), Going(SCHEDULES[20], moves=False)
    outputs = {turn: full(at(turn)) for turn in range(1, 21)}
    going = Going(SCHEDULES[20])
    for turn in range(1, 21):
        served = going.at(turn, outputs[turn])
        assert near(served, staying.at(turn, outputs[turn])) == (turn in SCHEDULES[20])
        whole = turn in SCHEDULES[20] and SCHEDULES[20].index(turn) not in (2, 4)
        assert near(served, outputs[turn]) == whole


def test_where_the_sampler_adds_noise_they_stay_as_they_were(folder: Path) -> None:
    full, reused, staying = watched(folder, unit()), watched(folder), Going(SCHEDULES[20], moves=False)
    for turn in range(1, 21):
        assert near(reused(replace(at(turn), noisy=True)), staying.at(turn, full(at(turn))))
    assert reused.runs == SCHEDULES[20]


def test_of_several_units_all_serve_so(folder: Path) -> None:
    """One of them has weight 0.5."""
    units = [[unit(weight=0.5, **fields), unit(1, model="second", **fields)] for fields in ({}, {"reuse_control": 1.0})]
    full, reused = (watched(folder, *given) for given in units)
    going = Going(SCHEDULES[20])
    for turn in range(1, 21):
        assert near(reused(at(turn)), going.at(turn, full(at(turn))))
    assert reused.runs == [turn for turn in SCHEDULES[20] for _ in range(2)]


ROWS: dict[str, tuple[dict[str, Any], bool]] = {
    "one picture": ({}, True),
    "uncond first": ({"is_cond": (False, True)}, True),
    "two pictures": ({"batch": 4, "is_cond": (True, True, False, False), "images": (0, 1, 0, 1)}, True),
    "two pictures, side by side": ({"batch": 4, "is_cond": (True, False) * 2, "images": (0, 0, 1, 1)}, True),
    "uncond rows the other way round": (
        {"batch": 4, "is_cond": (True, True, False, False), "images": (0, 1, 1, 0)},
        True,
    ),
    "two prompts": ({"batch": 3, "is_cond": (True, True, False), "images": (0, 0, 0)}, False),
    "two prompts of one picture": (
        {"batch": 4, "is_cond": (True, True, False, False), "images": (0, 0, 0, 1)},
        False,
    ),
    "no guidance": ({"batch": 1, "is_cond": (True,), "images": (0,)}, False),
    "no guidance, two pictures": ({"batch": 2, "is_cond": (True, True), "images": (0, 1)}, False),
}


@pytest.mark.parametrize("name", ROWS)
def test_uncond_rows_move_with_the_cond_row_of_their_picture(folder: Path, name: str) -> None:
    """Where each has one; by hand, row by row. The rows' latents move each in its own way."""
    fields, halves = ROWS[name]
    full, reused = watched(folder, unit()), watched(folder)
    seen: list[int] = []
    _net(reused.session.runs[0]).register_forward_hook(lambda _net, args, _out: seen.append(len(args[3])))

    def now(turn: int) -> Step:
        given = at(turn, **fields)
        own = torch.arange(1.0, given.batch + 1)[:, None, None, None]
        return replace(given, x=given.x + 0.02 * turn * own)

    outputs = {turn: full(now(turn)) for turn in range(1, 7)}
    found = {turn: reused(now(turn)) for turn in range(1, 7)}
    assert reused.runs == [1, 2, 6]
    rows = list(zip(now(1).is_cond, now(1).images, strict=True))
    assert seen == [len(rows), len(rows), len(rows) // 2 if halves else len(rows)]
    for place, (is_cond, image) in enumerate(rows):
        for before, wanted, made in zip(outputs[2], outputs[6], found[6], strict=True):
            by_hand = wanted[place]
            if halves and not is_cond:
                own = rows.index((True, image))
                by_hand = before[place] + wanted[own] - before[own]
            assert torch.allclose(made[place], by_hand, rtol=1e-4, atol=1e-6)
            assert is_cond or not halves or not torch.allclose(made[place], wanted[place], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"reuse_control": 0.0}, {"reuse_control": -1.0}], ids=str)
def test_off_is_the_default_and_a_budget_of_zero(folder: Path, fields: dict[str, Any]) -> None:
    plain = watched(folder, unit(**fields))
    for turn in range(1, 7):
        plain(at(turn))
    assert plain.runs == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("own", "served"), [(-1.0, True), (0.0, False), (0.5, True)])
def test_the_option_counts_where_the_unit_says_nothing(folder: Path, own: float, served: bool) -> None:
    made = watched(folder, unit(reuse_control=own), controlnet_reuse_control=0.4)
    for turn in range(1, 4):
        made(at(turn))
    assert made.runs == ([1, 2] if served else [1, 2, 3])
    assert made.session.runs[0].unit.reuse_control == {-1.0: 0.4}.get(own, own)  # as the infotext says it


class Told(BoundControl):
    """Gives at call n residuals that are all `values[n]`, and counts its calls."""

    spatial = False

    def __init__(self, value: Callable[[int], float]) -> None:
        self.value = value
        self.computed: list[int] = []

    def residuals(self, step: Step) -> Residuals:
        self.computed.append(step.turn)
        full = torch.full((step.batch, 2, 4, 4), self.value(step.turn), device=step.x.device)
        return Residuals(skip=(full,), middle=-full)


def told(value: Callable[[int], float], planned: int, budget: float) -> list[int]:
    bound = Told(value)
    model = OwnControl("told", lambda _hints, _settings: bound)
    model.outputs, model.reusable = 2, True
    session = session_with([model], reuse_control=budget)
    for turn in range(1, planned + 1):
        session.begin_call(at(turn, planned))
        session.done()
    return bound.computed


def test_residuals_serve_while_they_are_expected_to_have_changed_little() -> None:
    """By hand. A tenth more at each call, budget 1/4, a pass of 50 (none serves beyond 10).

    Call 2 measures 1 - 1/1.1 = 0.0909, known from call 4 on. 3 and 4 have it (0.0909, 0.182), 5 would have 0.273.
    Call 5 measures 1 - 1/1.1^3 = 0.2487 over 3 calls, known from 7 on: 7 has 0.2487 * sqrt(2/3), 8 has 0.2487, 9 would
    have 0.332. Call 9 measures 1 - 1/1.1^4 = 0.317 over 4, known from 11: 10 is as 6, 11 would have 0.317 * sqrt(2/4) =
    0.224, 12 0.317 * sqrt(3/4) = 0.2745. Call 12 measures as 5: 13, 14 and 15 have it.
    """
    assert told(lambda n: 1.1**n, 50, 0.25)[:6] == [1, 2, 5, 9, 12, 16]


def test_what_changes_faster_than_the_budget_is_computed_at_every_call_that_knows_it() -> None:
    """A half more at each call: 1 - 1/1.5 = 0.33, over two 0.56, of which one would have 0.39. Call 3 cannot know."""
    assert told(lambda n: 1.5**n, 20, 0.3) == [1, 2, *range(4, 21)]


def test_a_change_that_grows_is_followed() -> None:
    """Nothing changes up to call 9, everything is twice as much at each from then on. Found out when they are computed
    after a fifth of 50, in call 12: 7/8 over 10 calls, known from 14 on, which would have 7/8 * sqrt(2/10) = 0.391. 15
    would have 0.277, and is the last: 14 measures 3/4 over 2 calls, known from 16 on.
    """
    assert told(lambda n: 2.0 ** max(n - 9, 0), 50, 0.3)[:8] == [1, 2, 12, 14, 16, 17, 18, 19]


def test_values_that_are_not_numbers_are_computed_anew() -> None:
    nan = float("nan")
    assert told(lambda n: nan if n > 1 else 1.0, 20, 1.0)[:6] == [1, 2, 4, 5, 6, 7]
    assert told(lambda n: float(n < 2), 20, 1.0)[:6] == [1, 2, 4, 5, 6, 7]


def test_a_control_that_ends_or_runs_out_of_memory_in_a_half_keeps_nothing(folder: Path) -> None:
    """It may give nothing; and where the device is short meanwhile, what comes of the call is as it would be."""
    bound = Told(lambda _turn: 1.0)
    model = OwnControl("told", lambda _hints, _settings: bound)
    model.outputs, model.reusable = 2, True
    session = session_with([model], reuse_control=1.0)
    for turn in range(1, 6):
        session.begin_call(at(turn))
        session.done()
    bound.residuals = lambda _step: None  # type: ignore[method-assign,assignment]
    assert session.begin_call(at(6))[1] is None
    session.done()
    assert session._calls is not None
    assert not session._calls.reuse._kept

    full, reused = watched(folder, unit()), watched(folder)
    for turn in range(1, 6):
        reused(at(turn))
    kept = full(at(2))
    net = _net(reused.session.runs[0])
    handle = net.register_forward_hook(lambda *_: reused.session.short_of_memory())
    found, wanted = reused(at(6)), full(at(6))
    handle.remove()
    assert near(found, [torch.stack([new[0], old[1] + new[0] - old[0]]) for new, old in zip(wanted, kept, strict=True)])
    assert reused.session._calls is not None
    assert not reused.session._calls.reuse._kept
    assert same(reused(at(7)), full(at(7)))


def test_the_change_is_that_of_the_row_that_changed_most() -> None:
    """Against NumPy-like sums written out."""
    generator = torch.Generator().manual_seed(1)
    new, old = (
        [torch.randn(3, *size, generator=generator) for size in ((2, 4, 4), (5, 2, 2), (1, 1, 1))] for _ in range(2)
    )
    expected = max(
        (
            sum(float(((a - b)[row].double() ** 2).sum()) for a, b in zip(new, old, strict=True))
            / sum(float((a[row].double() ** 2).sum()) for a in new)
        )
        ** 0.5
        for row in range(3)
    )
    found = change_of(Residuals(skip=tuple(new[:2]), middle=new[2]), Residuals(skip=tuple(old[:2]), middle=old[2]))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    half = Residuals(encoder=(new[0].half(),)), Residuals(encoder=(old[0].half(),))
    assert change_of(*half).dtype == torch.float32


OTHERS: dict[str, Callable[[Step], Step]] = {
    "only cond rows": lambda s: s.select([0]),
    "only uncond rows": lambda s: s.select([1]),
    "uncond first": lambda s: replace(s, is_cond=(False, True)),
    "other pictures": lambda s: replace(s, images=(0, 1)),
    "another prompt": lambda s: replace(s, context=s.context + 0.01),
    "a longer prompt": lambda s: replace(s, context=s.context.repeat(1, 2, 1)),
    "another part of the prompt": lambda s: replace(s, prompts=(1,)),
    "another size": lambda s: replace(s, x=s.x[..., :4]),
    "half precision": lambda s: replace(s, x=s.x.double()),
    "replaced y": lambda s: replace(s, told=frozenset((0,))),
    "later": lambda s: replace(s, turn=s.turn + 1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_serves_for_other_rows_prompts_or_sizes(folder: Path, name: str) -> None:
    full, reused = watched(folder, unit()), watched(folder)
    if name == "another size":
        for one in (full, reused):
            one.session._calls._check_size = lambda *_: None  # type: ignore[union-attr,method-assign]
    for turn in (1, 2):
        assert same(full(at(turn)), reused(at(turn)))
    odd = OTHERS[name](at(3))
    if name == "later":  # it did not act in call 3, and is computed anew however little has changed
        reused.session.runs[0].rests = True
        reused(at(3))
        reused.session.runs[0].rests = False
    assert same(reused(odd), full(odd))
    assert reused.runs == [1, 2, odd.turn]


@pytest.mark.parametrize("name", ["another prompt", "another part of the prompt"])
def test_with_another_prompt_everything_begins_anew(folder: Path, name: str) -> None:
    """Nothing moves from the one to the other: two whole calls again, before any serve."""
    full, reused = watched(folder, unit()), watched(folder)
    for turn in range(1, 9):
        now = at(turn) if turn < 3 else OTHERS[name](at(turn))
        expected, found = full(now), reused(now)
        assert turn not in (1, 2, 3, 4) or same(found, expected)
    assert reused.runs == [1, 2, 3, 4, 8]


def test_calls_of_one_step_are_told_apart(folder: Path) -> None:
    """Rows in a call each, among them two prompts of one picture."""
    full, reused = watched(folder, unit()), watched(folder)

    def calls(turn: int) -> list[Step]:
        whole = replace(at(turn, batch=3, is_cond=(True, True, False), images=(0, 0, 0)), noisy=True)
        return [whole.select([row]) for row in range(3)]

    kept: list[list[Tensor]] = []
    for turn in range(1, 8):
        expected = [full(call) for call in calls(turn)]
        kept = expected if turn in (1, 2, 6) else kept
        found = [reused(call) for call in calls(turn)]
        assert all(map(same, found, kept))
        assert not same(found[0], found[1])
    assert reused.runs == [1] * 3 + [2] * 3 + [6] * 3
    assert reused.session._calls is not None
    assert reused.session._calls.reuse.computed() == {
        0: Computed(3, 0)
    }  # denoiser calls, however many each makes of the U-Net


def test_of_prompts_in_several_calls_all_rows_are_computed(folder: Path) -> None:
    """Three prompts of one picture, the last beside the uncond row: if that moved with one of them, it would be another
    one to the others, which hosts of the Forge family draw so where memory is short."""
    full, reused = watched(folder, unit()), watched(folder)
    seen: list[int] = []
    _net(reused.session.runs[0]).register_forward_hook(lambda _net, args, _out: seen.append(len(args[3])))
    for turn in range(1, 7):
        whole = at(turn, drift=0.02, batch=4, is_cond=(True, True, True, False), images=(0,) * 4)
        for rows in ((2, 3), (0, 1)):
            expected, found = full(whole.select(rows)), reused(whole.select(rows))
            assert turn not in (1, 2, 6) or same(found, expected)
    assert seen == [2] * 6


@pytest.mark.parametrize(("second", "halved"), [((1, 2, 4, 5), 1), ((2, 0, 5, 3), 0)])
def test_calls_with_pairs_alone_are_halved_each(folder: Path, second: tuple[int, ...], halved: int) -> None:
    """Windows of a film, whose `second` comes in place of another in call 6: one that is new is computed whole, and
    with it the denoiser call counts as such."""
    reused = watched(folder)
    for turn in range(1, 7):
        whole = at(turn, batch=6, is_cond=(True,) * 3 + (False,) * 3, images=(0, 1, 2) * 2)
        for rows in ((0, 1, 3, 4), second if turn == 6 else (1, 2, 4, 5)):
            reused(whole.select(rows))
    assert reused.session._calls is not None
    assert reused.session._calls.reuse.computed() == {0: Computed(3, halved)}


def test_rows_laid_out_anew_begin_anew(folder: Path) -> None:
    """As where the host skips uncond rows for some steps: what was kept of both does not come back."""
    reused = watched(folder)
    for turn in range(1, 5):
        reused(at(turn) if turn != 4 else at(turn).select([0]))
    reused(at(5))
    assert reused.runs == [1, 2, 4, 5]


def test_passes_jobs_and_networks_keep_nothing_for_each_other(folder: Path) -> None:
    reused = watched(folder)
    session = reused.session
    for turn in (1, 2, 3):
        reused(at(turn))
    session.rebase(BaseModel(CONFIG, "refiner.safetensors"))
    reused(at(4))
    assert reused.runs == [1, 2, 4]
    session.end(4)
    session.begin(Pass.hires, SIZE, SIZE)
    for turn in (1, 2, 3):
        reused(replace(at(turn), pass_=Pass.hires))
    assert reused.runs == [1, 2, 4, 1, 2]
    inner = session.hold()
    session.begin(Pass.base, SIZE, SIZE)
    reused(at(3))
    session.resume(inner)
    reused(replace(at(4), pass_=Pass.hires))
    assert reused.runs == [1, 2, 4, 1, 2, 3]
    other = watched(folder)
    other(at(3))
    assert other.runs == [3]


ACTING: dict[str, dict[str, Any]] = {
    "weight": {"weight": 0.4},
    "curve": {"weight_schedule": WeightCurve(((0.0, 1.3), (0.2, 0.1), (1.0, 1.0)))},
    "layers": {"layer_weights": tuple(0.1 * n for n in range(7))},
    "prompt is more important": {"control_mode": ControlMode.prompt},
    "control is more important": {"control_mode": ControlMode.control},
    "region": {"region_mask": picture(5)[:, :, 0]},
    "uncond": {"uncond_weight": 0.3},
    "pictures": {"batch_weights": (0.2, 0.9)},
    "range": {"guidance_start": 0.1, "guidance_end": 0.25},
}


@pytest.mark.parametrize("name", ACTING)
def test_what_acts_on_residuals_acts_on_those_that_serve(folder: Path, name: str) -> None:
    """The latents stand still, so that what serves is what would be computed: every step is equal to the bit."""
    rows: dict[str, Any] = {"batch": 4, "is_cond": (True, True, False, False), "images": (0, 1, 0, 1)}
    jobs = [
        watched(
            folder,
            unit(**ACTING[name], reuse_control=budget),
            unit(1, model="second", reuse_control=budget),
            generation=FakeGeneration(batch_size=2) if name == "pictures" else None,
        )
        for budget in (0.0, 0.5)
    ]
    for turn in range(1, 9):
        full, reused = (job(at(turn, drift=0.0, **rows)) for job in jobs)
        assert same(full, reused) if turn < 6 else near(full, reused)  # in call 6 fewer rows are computed at once
    assert len(jobs[1].runs) < len(jobs[0].runs)


def test_units_serve_each_by_its_own_budget(folder: Path) -> None:
    session = began(folder, unit(reuse_control=1.0), unit(1, model="second"), unit(2, model="second"))
    counts = [0, 0]
    for place in (0, 1):
        _net(session.runs[place]).register_forward_hook(
            lambda *_, place=place: counts.__setitem__(place, counts[place] + 1)
        )
    for turn in range(1, 6):
        session.begin_call(at(turn))
        session.done()
    assert counts == [2, 10]


def test_what_is_kept_is_let_go_of_with_the_pass(folder: Path) -> None:
    for ends in (lambda s: s.end(3), lambda s: s.break_off(), lambda s: s.close()):
        made = watched(folder)
        for turn in (1, 2, 3):
            made(at(turn))
        (kept,) = made.session._calls.reuse._kept.values()  # type: ignore[union-attr]
        refs = [weakref.ref(tensor) for one in (kept.residuals, kept.drift) for tensor in one.outputs()]  # type: ignore[union-attr]
        del kept
        assert len(refs) > 2
        assert all(ref() is not None for ref in refs)
        ends(made.session)
        assert all(ref() is None for ref in refs)


@pytest.fixture
def remarks(folder: Path) -> Callable[..., list[str]]:
    def of(planned: int, calls: int, change: Callable[[Step], Step] = lambda s: s, **fields: Any) -> list[str]:
        made = watched(folder, unit(**{"reuse_control": 0.3, **fields}))
        for turn in range(1, calls + 1):
            made(change(at(turn, planned)))
        return [remark.text for remark in made.session.end(calls)]

    return of


def test_a_refusal_says_why(remarks: Callable[..., list[str]]) -> None:
    assert remarks(20, 20) == []
    assert remarks(20, 20, reuse_control=0.0) == []
    (few,) = remarks(4, 4)
    assert "every step was computed: the sampling has only 4 calls" in few
    (untold,) = remarks(20, 4, lambda s: replace(s, turn=0))
    assert "nothing tells how far the sampling is" in untold
    noisy = torch.Generator().manual_seed(4)
    (fast,) = remarks(20, 6, lambda s: replace(s, prompts=(s.turn,), x=torch.randn(s.x.shape, generator=noisy)))
    assert "its control changed by more than 0.3 between steps" in fast


def test_tiles_are_computed_each(folder: Path) -> None:
    made = watched(folder)
    half = torch.rand(2, 3, SIZE, SIZE // 2)
    for turn in range(1, 5):
        made.session.tile(0, half)
        now = at(turn, batch=4, is_cond=(True, False) * 2, images=(0,) * 4)
        made(replace(now, x=now.x[..., : SIZE // 16], group=2))
    assert made.runs == [1, 2, 3, 4]
    (remark,) = made.session.end(4)
    assert "the picture is drawn in tiles" in remark.text


def test_the_memory_of_what_is_kept_is_asked_for(folder: Path) -> None:
    """The numbers by hand: 4 blocks of 32 channels and the middle; 8x8, and 4x4 from the fourth output on."""
    asked: list[int] = []
    generation = FakeGeneration()
    generation.runtime = replace(generation.runtime, reserve=asked.append)
    made = watched(folder, generation=generation)
    before = made.session._placement.size
    made(at(1))
    kept = sum(tensor.numel() * 4 for tensor in made(at(2)))
    by_hand = 2 * 4 * (3 * 32 * 64 + 32 * 16 + 2 * 64 * 16 + 64 * 16)
    assert kept == by_hand
    made(at(6))
    assert asked.count(by_hand) == 2  # what is kept, and by how much it moves
    assert made.session.size - before == 2 * by_hand
    assert watched(folder, unit()).session.size == before

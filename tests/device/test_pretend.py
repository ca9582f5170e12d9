"""The pretended card itself: it refuses and records what a card would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pretend import Card, PretendedError, pretended


def test_numbers_are_the_processors() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = net(x)
    with pretended() as card:
        output = card.module(net)(card.tensor(x))
        assert output.device == torch.device("cuda:0")
        assert torch.equal(card.host(output), expected)
        assert not card.events


WAITING: list[Callable[[Tensor], Any]] = [
    lambda x: bool((x > 0).any()),
    lambda x: float(x.amax()),
    lambda x: x[0, 0].item(),
    lambda x: torch.equal(x, x),
    lambda x: x[x > 0],
    lambda x: x[[0, 1]],
    lambda x: x.nonzero(),
    lambda x: x.tolist(),
    lambda x: x.cpu(),
    lambda x: x.to("cpu"),
    lambda x: x.to("cpu", torch.float16),
    lambda x: torch.tensor([1.0], device=x.device),
    lambda x: torch.as_tensor([1.0], device=x.device),
    lambda x: torch.ones(2).to(x),
    lambda x: torch.ones(2).to(device=x.device),
    lambda x: torch.ones(2).cuda(),
    lambda x: x.new_tensor([1.0]),
    lambda x: x.copy_(torch.ones(2, 3)),
    lambda x: torch.ones(2, 3).copy_(x),
]


@pytest.mark.parametrize("act", WAITING)
def test_waits_are_recorded(act: Callable[[Tensor], Any]) -> None:
    with pretended() as card:
        x = card.tensor(torch.arange(6.0).reshape(2, 3))
        act(x)
        assert card.syncs, card.told()


FREE: list[Callable[[Tensor], Any]] = [
    lambda x: x[0] + x[:, 1:].sum(),
    lambda x: x[torch.arange(2, device=x.device)],
    lambda x: torch.zeros(3, device=x.device) + x,
    lambda x: x.new_zeros(3) + x,
    lambda x: x * 2.0 + torch.tensor(1.0),
    lambda x: torch.where(x > 0, x, 0.0),
    lambda x: x.to(x.device),
    lambda x: F.interpolate(x[None, None], scale_factor=2.0),
    lambda x: torch.randn(x.shape, device=x.device) + x,
]


@pytest.mark.parametrize("act", FREE)
def test_what_a_card_does_by_itself_is_no_event(act: Callable[[Tensor], Any]) -> None:
    with pretended() as card:
        result = act(card.tensor(torch.arange(6.0).reshape(2, 3)))
        assert result.device == card.device
        assert not card.events, card.told()


REFUSED: list[tuple[str, Callable[[Card, Tensor], Any]]] = [
    ("cuda", lambda card, x: x + torch.ones(2, 3)),
    ("cuda", lambda card, x: torch.cat([x, torch.ones(2, 3)])),
    ("cuda", lambda card, x: x @ card.tensor(torch.ones(3, 2)).half()),
    ("cuda", lambda card, x: F.layer_norm(x.half(), (3,), card.tensor(torch.ones(3)))),
    ("cuda", lambda card, x: F.conv2d(x[None, None].bfloat16(), card.tensor(torch.ones(1, 1, 1, 1)))),
    ("mps", lambda card, x: x.double()),
    ("mps", lambda card, x: torch.ones(3, dtype=torch.float64).to(x.device)),
    ("mps", lambda card, x: F.adaptive_avg_pool2d(x[None], (2, 2))),
]


@pytest.mark.parametrize(("kind", "act"), REFUSED)
def test_what_a_card_refuses_is_refused(kind: str, act: Callable[[Card, Tensor], Any]) -> None:
    with pretended(kind) as card, pytest.raises(PretendedError):
        act(card, card.tensor(torch.arange(6.0).reshape(2, 3)))


def test_numpy_wants_the_host() -> None:
    with pretended() as card, pytest.raises(TypeError, match="cuda"):
        card.tensor(torch.ones(2)).numpy()


def test_pinned_memory_is_copied_without_a_wait() -> None:
    with pretended() as card:
        torch.ones(4).pin_memory().to(card.device, non_blocking=True)
        torch.ones(4).to(card.device, non_blocking=True)
        assert [(event.kind, event.size, event.waits) for event in card.events] == [("up", 16, False), ("up", 16, True)]


def test_casts_are_recorded() -> None:
    with pretended() as card:
        card.tensor(torch.ones(2)).half().float().float()
        assert [event.kind for event in card.events] == ["cast", "cast"]


def test_modules_move_there_and_back() -> None:
    net = nn.Linear(3, 2)
    weight = net.weight.detach().clone()
    with pretended() as card:
        net.to(card.device)
        assert net.weight.device == card.device
        assert card.memory.live == 4 * (6 + 2)
        assert net(card.tensor(torch.ones(1, 3))).device == card.device
        net.to("cpu")
        assert type(net.weight) is nn.Parameter
        assert [event.kind for event in card.copies] == ["up", "up", "down", "down"]
    assert torch.equal(net.weight, weight)


def test_memory_is_counted_once_a_storage() -> None:
    with pretended() as card:
        x = card.tensor(torch.zeros(100))
        views = [x[10:], x.reshape(10, 10), x.t()]
        assert card.memory.live == 400
        y = x + 1
        assert card.memory.live == 800
        x.add_(1)
        del y
        assert (card.memory.live, card.memory.peak) == (400, 800)
        card.memory.restart()
        assert card.memory.peak == 400
        del x, views
        assert card.memory.live == 0

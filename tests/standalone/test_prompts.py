"""Prompt syntax: emphasis, composition, editing, chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.standalone.conftest import Traced


@pytest.fixture
def parser(host: Traced) -> Any:
    return host.app.modules("prompt_parser")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [["normal text", 1.0]]),
        ("an (important) word", [["an ", 1.0], ["important", 1.1], [" word", 1.0]]),
        ("(unbalanced", [["unbalanced", 1.1]]),
        (r"\(literal\]", [["(literal]", 1.0]]),
        ("(unnecessary)(parens)", [["unnecessaryparens", 1.1]]),
        ("[less] (a:1.5)", [["less", 1 / 1.1], [" ", 1.0], ["a", 1.5]]),
        ("a BREAK b", [["a", 1.0], ["BREAK", -1], ["b", 1.0]]),
        ("", [["", 1.0]]),
    ],
)
def test_emphasis(parser: Any, text: str, expected: list[list[Any]]) -> None:
    """The examples are those of the real host's documentation."""
    found = parser.parse_prompt_attention(text)
    assert [x[0] for x in found] == [x[0] for x in expected]
    assert [x[1] for x in found] == pytest.approx([x[1] for x in expected])


def test_nested_emphasis_multiplies(parser: Any) -> None:
    found = parser.parse_prompt_attention("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    expected = {"house": 1.3 * 1.1**2, "on": 1.0, "hill": 0.55, "sky": 1.1**4}
    assert {k: v for k, v in found if k in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("test", [[10, "test"]]),
        ("a [b:3]", [[3, "a "], [10, "a b"]]),
        ("a [b: 3]", [[3, "a "], [10, "a b"]]),
        ("a [[[b]]:2]", [[2, "a "], [10, "a [[b]]"]]),
        ("[(a:2):3]", [[3, ""], [10, "(a:2)"]]),
        ("a [b : c : 1] d", [[1, "a b  d"], [10, "a  c  d"]]),
        ("a[b:[c:d:2]:1]e", [[1, "abe"], [2, "ace"], [10, "ade"]]),
        ("a [unbalanced", [[10, "a [unbalanced"]]),
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("((a][:b:c [d:3]", [[3, "((a][:b:c "], [10, "((a][:b:c d"]]),
        ("[fe|]male", [[i, "female" if i % 2 else "male"] for i in range(1, 11)]),
        ("a | b [c:3]", [[10, "a | b [c:3]"]]),
    ],
)
def test_prompt_editing(parser: Any, prompt: str, expected: list[list[Any]]) -> None:
    assert parser.get_learned_conditioning_prompt_schedules([prompt], 10)[0] == expected


def test_prompt_editing_in_the_second_pass_counts_from_one(parser: Any) -> None:
    schedules = parser.get_learned_conditioning_prompt_schedules
    assert schedules(["a [b:.5] c"], 10, 10)[0] == [[10, "a b c"]]
    assert schedules(["a [b:1.5] c"], 10, 10)[0] == [[5, "a  c"], [10, "a b c"]]


def test_and_splits_and_weighs(parser: Any) -> None:
    indexes, flat, _ = parser.get_multicond_prompt_list(["a AND b :0.5 AND a"])
    assert indexes == [[(0, 1.0), (1, 0.5), (2, 1.0)]] or indexes[0][1][1] == 0.5
    assert flat[0].strip() == "a"


def test_long_prompts_are_cut_before_the_words_after_a_comma(host: Traced) -> None:
    conditioner = host.app.modules("shared").sd_model.cond_stage_model
    chunks, count = conditioner.tokenize_line("cat " * 70 + ", " + "dog " * 10)
    assert count == 81
    assert [len(x.tokens) for x in chunks] == [77, 77]
    comma = conditioner.comma_token
    assert chunks[0].tokens.index(comma) == 71
    assert chunks[0].tokens[72] == conditioner.id_end
    host.options(comma_padding_backtrack=0)
    chunks, _ = conditioner.tokenize_line("cat " * 70 + ", " + "dog " * 10)
    assert chunks[0].tokens[72] != conditioner.id_end


def test_emphasis_keeps_the_mean_unless_told_otherwise(host: Traced) -> None:
    clip = host.app.modules("sd_clip")
    z = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    weights = torch.tensor([[1.0, 2.0, 1.0, 1.0]])
    kept = clip.emphasize(z, weights)
    assert kept.mean() == pytest.approx(float(z.mean()), rel=1e-5)
    assert torch.allclose(kept[:, 1] / kept[:, 0], 2 * z[:, 1] / z[:, 0])
    host.options(emphasis="No norm")
    assert torch.equal(clip.emphasize(z, weights)[:, 1], z[:, 1] * 2)
    host.options(emphasis="Ignore")
    assert torch.equal(clip.emphasize(z, weights), z)


def test_extra_networks_are_taken_out_of_the_prompt(host: Traced) -> None:
    networks = host.app.modules("extra_networks")
    prompts, found = networks.parse_prompts(["a <lora:style:0.5> cat"])
    assert prompts == ["a  cat"]
    assert found["lora"][0].items == ["style", "0.5"]

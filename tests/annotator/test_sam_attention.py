"""Segment Anything's attention in parts, against the library's own."""

from __future__ import annotations

import pytest
import torch

from annotator.sd_controlnet.entries.sam import attention
from annotator.sd_controlnet.entries.sam.attention import in_parts
from annotator.sd_controlnet.libraries import controlnet_aux

from .test_portable import Largest


@pytest.mark.parametrize(("batch", "heads", "side"), [(1, 12, 16), (9, 4, 7), (2, 3, 5)])
@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_heads_one_after_the_other_give_the_same(
    monkeypatch: pytest.MonkeyPatch, batch: int, heads: int, side: int, at_once: int
) -> None:
    module = controlnet_aux("segment_anything.modeling.image_encoder")
    torch.manual_seed(0)
    layer = module.Attention(heads * 8, heads, use_rel_pos=True, input_size=(side, side)).eval()
    with torch.no_grad():
        layer.rel_pos_h.normal_()
        layer.rel_pos_w.normal_()
        x = torch.randn(batch, side, side, heads * 8)
        expected = layer(x)
        in_parts(layer, module.add_decomposed_rel_pos)
        assert torch.equal(layer(x), expected), "on the processor nothing changes"
        monkeypatch.setattr(attention, "_has_room", lambda _x: False)
        monkeypatch.setattr(attention, "LARGEST_SCORES", at_once * 4 * side**4)
        with Largest() as seen:
            found = layer(x)
    assert float((found - expected).abs().max()) <= 1e-6
    assert seen.numbers <= max(at_once * side**4, 3 * x.numel())

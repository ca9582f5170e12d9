"""The pictures of the cards of docs/families.md."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from standalone.demo.cards import CARDS, main


def test_a_card_shows_that_its_control_acts(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--only", "control_lora"]) == 0
    (path,) = tmp_path.iterdir()
    strip = cv2.imread(str(path)).astype(float)
    third = strip.shape[1] // 3
    assert path.stem in {card.name for card in CARDS}
    assert np.abs(strip[:, third + 10 : 2 * third - 10] - strip[:, 2 * third + 10 : 3 * third - 10]).mean() > 5

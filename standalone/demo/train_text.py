"""Train the demo model's text encoder: python -m standalone.demo.train_text --out FILE --steps 1500

It learns, before any picture, to say at every padded place which shape, colour and background a prompt names, or
that it
leaves them open. It is then frozen, as Stable Diffusion freezes CLIP. Unknown words have zero embeddings and are
mixed in, so that they are harmless.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from .networks import new_text_encoder
from .prompts import Said, known_tokens, phrase, tokenize
from .shapes import COLOURS, SHAPES

BATCH = 48
END_TOKEN = 49407


def random_said(rng: random.Random) -> Said:
    """A statement with each part left out now and then."""
    shape, colour, background = rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(list(COLOURS))
    if rng.random() < 0.1:
        return Said()
    return Said(
        shape if rng.random() < 0.85 else None,
        colour if rng.random() < 0.85 else None,
        background if rng.random() < 0.85 else None,
    )


def labels(said: list[Said]) -> torch.Tensor:
    """(n, 3) class indices of shape, colour, background; the last class of each means "open"."""
    names: tuple[tuple[str | None, ...], ...] = ((*SHAPES, None), (*COLOURS, None), (*COLOURS, None))
    return torch.tensor(
        [
            [known.index(word) for known, word in zip(names, (one.shape, one.colour, one.background), strict=True)]
            for one in said
        ]
    )


def with_unknown_words(tokens: torch.Tensor, unknown: list[int], rng: random.Random) -> torch.Tensor:
    """Put up to four random unknown tokens between the words of every second prompt."""
    rows: list[list[int]] = []
    for row in tokens.tolist():
        words = row[: row.index(END_TOKEN)]
        for _ in range(rng.randrange(1, 5) if rng.random() < 0.5 else 0):
            words.insert(rng.randrange(1, len(words) + 1), rng.choice(unknown))
        rows.append((words + [END_TOKEN] * 77)[:77])
    return torch.tensor(rows)


def train(out: Path, steps: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    known = known_tokens()
    unknown = sorted(set(range(49406)) - set(known))
    model, heads = new_text_encoder(), nn.ModuleList(nn.Linear(64, count + 1) for count in (5, 12, 12))
    embedding = next(value for key, value in model.named_parameters() if key.endswith("token_embedding.weight"))
    keep = torch.zeros(len(embedding), 1)
    keep[known] = 1
    with torch.no_grad():
        embedding.normal_(0, 0.5).mul_(keep)
    embedding.register_hook(lambda gradient: gradient * keep)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, step / 50, max(0.02, 2 * (1 - step / steps)))
        said = [random_said(rng) for _ in range(BATCH)]
        tokens = with_unknown_words(tokenize([phrase(one, rng) for one in said]), unknown, rng)
        states = model(tokens).last_hidden_state
        first_end = (tokens == END_TOKEN).int().argmax(1)
        places = first_end + (torch.rand(BATCH) * (77 - first_end)).long()
        read, wanted = states[torch.arange(BATCH), places], labels(said)
        losses = [F.cross_entropy(head(read), wanted[:, index]) for index, head in enumerate(heads)]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            right = [
                (head(read).argmax(1) == wanted[:, index]).float().mean().item() for index, head in enumerate(heads)
            ]
            print(f"step {step}, losses {[round(loss.item(), 4) for loss in losses]}, right {right}", flush=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.out, options.steps, options.seed)


if __name__ == "__main__":
    main()

"""Estimate the cost of waiting for the longest answer: the share of a step in which a GPU decodes few answers or none.

    python -m benchmarks.tail                          # drawn lengths, 1 and 8 GPUs
    python -m benchmarks.tail --run RUN                # the lengths of a run's sampled completions
    python -m benchmarks.tail --decode-share .35       # decoding's part of a step in which all answers are equally long

A token costs the same whatever the number of rows, because each step reads all weights. So a GPU decodes until its
longest answer ends, and all GPUs wait for the one with the longest answer, because rewards rank over all of them. Each
step draws rows for every GPU. Shares are of the whole step: decoding, and the rest, whose length --decode-share fixes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aes_r1.model.template import load_tokenizer
from aes_r1.runs.folder import RunFolder

ROWS = 64  # answers of one GPU in one step
STEPS = 2000


@dataclass(frozen=True)
class Tail:
    """Hold means over steps: lengths in tokens, and shares of a step's seconds.

    mean, longest: of one step's answers; alone: the share in which a GPU has no answer left and waits for another;
    last_tenth: the share in which it decodes a tenth of its answers or fewer; step_without: the length of a step that
    stopped decoding at the mean length, relative to this one.
    """

    mean: float
    longest: float
    alone: float
    last_tenth: float
    step_without: float


def tail(lengths: np.ndarray, decode_share: float) -> Tail:
    """Compute the tail of [steps, gpus, rows] lengths.

    decode_share: decoding's part of a step when no answer is longer than the mean.
    """
    longest = lengths.max(axis=(1, 2))
    own = lengths.max(axis=2)
    most = np.sort(lengths, axis=2)[:, :, int(np.ceil(0.9 * lengths.shape[2])) - 1]  # when nine tenths have ended
    mean = lengths.mean(axis=(1, 2))
    rest = (1 - decode_share) / decode_share * mean  # the rest of a step, in units of one decoded token
    whole = longest + rest
    return Tail(
        mean=float(mean.mean()),
        longest=float(longest.mean()),
        alone=float(((longest[:, None] - own) / whole[:, None]).mean()),
        last_tenth=float(((own - most) / whole[:, None]).mean()),
        step_without=float(((mean + rest) / whole).mean()),
    )


def drawn(median: float, sigma: float, limit: int, gpus: int, *, steps: int = STEPS, rows: int = ROWS) -> np.ndarray:
    """Return [steps, gpus, rows] lognormal lengths, cut at `limit`."""
    found = np.random.default_rng(0).lognormal(np.log(median), sigma, (steps, gpus, rows))
    return np.clip(np.rint(found), 1, limit)


def lengths_of_run(run: RunFolder) -> list[int]:
    """Return the tokens of a run's sampled RAPO completions, with the end of the turn if it was reached."""
    tokenizer = load_tokenizer(str(run.model))
    return [
        len(tokenizer(row["text"], add_special_tokens=False)["input_ids"]) + (not row["truncated"])
        for row in run.completions("rapo")
    ]


def redrawn(lengths: list[int], gpus: int, *, steps: int = STEPS, rows: int = ROWS) -> np.ndarray:
    """Return [steps, gpus, rows] lengths drawn from `lengths` with replacement."""
    return np.random.default_rng(0).choice(np.array(lengths, dtype=float), (steps, gpus, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="folders of runs whose lengths are drawn from")
    parser.add_argument("--decode-share", type=float, default=0.5, help="of a step whose answers are equally long")
    arguments = parser.parse_args()
    # The limit is trainer.max_new_tokens of the paper's recipe (1,024), and the median is plausible for its answers.
    sources = {
        f"lognormal, median 200, sigma {sigma}, cut at 1,024": lambda gpus, sigma=sigma: drawn(200, sigma, 1024, gpus)
        for sigma in (0.2, 0.35, 0.5, 0.8)
    }
    for path in arguments.run:
        found = lengths_of_run(RunFolder(path))
        sources[f"{path.name}: {len(found)} completions"] = lambda gpus, found=found: redrawn(found, gpus)
    print("| lengths | GPUs | mean | longest | a GPU has none left | a tenth or fewer | step if all were as the mean |")
    print("|" + "---|" * 7)
    for name, source in sources.items():
        for gpus in (1, 8):
            one = tail(source(gpus), arguments.decode_share)
            shares = f"{one.alone:.2f} | {one.last_tenth:.2f} | {one.step_without:.2f}"
            print(f"| {name} | {gpus} | {one.mean:.0f} | {one.longest:.0f} | {shares} |")


if __name__ == "__main__":
    main()

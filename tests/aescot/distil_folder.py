"""`python distil_folder.py PICTURES OUT URL [KEY=VALUE ..]`: run a distillation in a process that a test can kill.

PICTURES holds NAME.png files of fair pictures. KEY=VALUE are expert settings, or judge settings as judge.KEY=VALUE.
Prints the peak memory in MiB when a quarter of the pictures was decided, and at the end.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from aes_r1.aescot.build import build_aescot
from aes_r1.data.sample import Sample
from aes_r1.settings import ExpertSettings, JudgeSettings


def main() -> None:
    pictures, out, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    given = dict(pair.split("=", 1) for pair in sys.argv[4:])
    values = {key: json.loads(value) for key, value in given.items()}
    judge = {key.removeprefix("judge."): values.pop(key) for key in list(values) if key.startswith("judge.")}
    limit = values.pop("limit", None)
    common = {"model": "fake", "api_base": url, "timeout_s": 2.5, "max_concurrency": 32}
    samples = [Sample(path.stem, str(path), 0.5, "folder", "train") for path in sorted(pictures.glob("*.png"))[:limit]]
    peaks: list[int] = []

    def watch(decided: int, kept: int) -> None:
        if decided in (len(samples) // 4, len(samples)):
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

    build_aescot(
        samples,
        expert=ExpertSettings(**{"name": "openai", **common, "max_words": 400, "near_copy": 0.9, **values}),
        judge=JudgeSettings(**{"name": "none", **(common if judge else {}), **judge}),
        seed=0,
        out=out,
        progress=watch,
    )
    print(*peaks)


if __name__ == "__main__":
    main()

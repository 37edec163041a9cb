"""The commands that are disturbed: how each is started in a folder, and the bits that it must end with.

Every command is small enough to end in seconds, and large enough that a random moment falls anywhere in its work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
CHAT_SERVER = HERE.parent / "aescot" / "chat_server.py"

# What is measured of a run and not computed by it, and what names the folder that it lies in.
_MEASURED = ("time/", "perf/", "seconds", "wall_seconds", "mtime_ns", "memory", "origin")

Command = Callable[[Path], list[str]]  # the arguments after `python -m`, module first, for a folder
Result = Callable[[Path], dict[str, Any]]  # what must be the same, by name


@dataclass(frozen=True)
class Subject:
    """A command, its result, and how often it is drawn."""

    name: str
    command: Command
    result: Result
    weight: float
    forkable: bool = True  # whether it may start in a copy of a process that has imported everything
    helped: bool = False  # most of its work is done by processes that it starts


def streams_of(where: Path) -> Path:
    """Where a start's words go: not on the disk that is filled."""
    return where.parent.parent / "said"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def computed(value: Any, where: Path) -> Any:
    """`value` without what is measured, and with the folder's own name taken out of every text."""
    if isinstance(value, dict):
        return {key: computed(item, where) for key, item in value.items() if not key.startswith(_MEASURED)}
    if isinstance(value, list):
        return [computed(item, where) for item in value]
    return value.replace(str(where), "WHERE") if isinstance(value, str) else value


def files(*names: str, json_files: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Result:
    """JSON-lines `names`, `json_files` and the bytes of `whole` files, all by their path below the folder."""

    def result(where: Path) -> dict[str, Any]:
        found: dict[str, Any] = {name: computed(rows(where / name), where) for name in names}
        found |= {name: computed(json.loads((where / name).read_text()), where) for name in json_files}
        return found | {name: (where / name).read_bytes() for name in whole}

    return result


def sweep_result(where: Path) -> dict[str, Any]:
    weights = sorted((where / "points").glob("*/model/model.safetensors"))
    return {path.relative_to(where).as_posix(): path.read_bytes() for path in weights} | {
        path.relative_to(where).as_posix(): computed(rows(path), where)
        for path in sorted((where / "points").glob("*/metrics.jsonl"))
    }


def distilled(where: Path) -> dict[str, Any]:
    """The kept and the rejected records; and no answer may have been paid for twice."""
    found = files("out/aescot.jsonl", "out/rejected.jsonl")(where)
    keys = [row["key"] for row in rows(where / "out/calls.jsonl")]
    return {**found, "answers": len(keys), "answers bought twice": len(keys) - len(set(keys))}


def write_pictures(folder: Path, count: int, *, side: int) -> None:
    """Pictures with labels.csv; a third of them are for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for place in range(count):
        blocks = np.random.default_rng(place).integers(0, 255, (6, 6, 3)).astype(np.uint8)
        blocks = (blocks * (0.4 + 0.6 * place / count)).astype(np.uint8)
        Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST).save(folder / f"{place:04d}.png")
        lines.append(f"{place:04d}.png,{(place + 0.5) / count:.4f},{('train', 'train', 'test')[place % 3]}\n")
    (folder / "labels.csv").write_text("image,mos,split\n" + "".join(lines))


def write_base(folder: Path) -> None:
    """A tiny model with random weights."""
    from aes_r1.model import tiny
    from aes_r1.prompts import RATING_PROMPT, answer

    words = "a dull picture with flat light . a strong picture with deep shadow . "
    corpus = [RATING_PROMPT, answer(words, 0.25), answer(words, 0.87)] * 20
    tiny.build_tiny_model(tiny.build_tokenizer(corpus), max_pixels=9216, seed=0).save(folder)


def write_records(pictures: Path) -> None:
    words = ("flat light", "dull light", "deep shadow", "strong picture")
    paths = sorted(pictures.glob("*.png"))
    (pictures / "aescot.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "id": path.name,
                    "image": str(path),
                    "critique": f"a {words[4 * place // len(paths)]} .",
                    "mos": (place + 0.5) / len(paths),
                }
            )
            + "\n"
            for place, path in enumerate(paths)
        )
    )


def start_server(folder: Path) -> tuple[subprocess.Popen, str]:
    """The chat server of the distillation tests, and its URL."""
    folder.mkdir(exist_ok=True)
    (folder / "port").unlink(missing_ok=True)
    (folder / "requests.jsonl").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, str(CHAT_SERVER), str(folder)])
    while not (folder / "port").exists():
        if process.poll() is not None:
            raise SystemExit("the chat server did not start")
        time.sleep(0.05)
    return process, f"http://127.0.0.1:{(folder / 'port').read_text()}/v1"


def build(home: Path, url: str) -> list[Subject]:
    """Every subject, with pictures and a base model made in `home`; `talking` is the model of the cold start there."""
    many, few, base, talking = home / "many", home / "few", home / "base", home / "talking"
    if not (home / "made").exists():
        write_pictures(many, 900, side=60)
        write_pictures(few, 18, side=60)
        write_records(few)
        write_base(base)
        (home / "made").touch()
    folder = ("data=folder", f"data.root={few}", "data.workers=0")
    train = [
        *("aes_r1.train", *folder, f"model.path={base}", "expert=pixels", "judge=none", "tracker=none"),
        *(f"cold_start.data={few}/aescot.jsonl", "cold_start.epochs=16", "cold_start.batch_size=4"),
        *("cold_start.micro_batch_size=4", "cold_start.lr=3e-3", "cold_start.save_every=7"),
        *("evaluation.protocols=[sample]", "evaluation.n_bootstrap=20", "evaluation.interventions=0"),
        "trainer.max_new_tokens=24",
    ]
    rapo = [
        *(*train, f"trainer.init_from={talking}", "cold_start.epochs=0", "evaluation.stages=[rapo]"),
        *("trainer.num_samples=4", "trainer.images_per_step=4", "trainer.max_steps=6", "trainer.inner_epochs=2"),
        *("trainer.save_every=1", "trainer.eval_every=3", "trainer.completions_every=1", "trainer.start_anyway=true"),
    ]
    asked = [f"{role}.{key}" for role in ("expert", "judge") for key in (f"api_base={url}", "model=fake")]
    logs = ("run/metrics.jsonl", "run/predictions.jsonl")
    weights = ("run/model/model.safetensors",)
    return [
        Subject(
            "prepare",
            lambda where: ["aes_r1.prepare", "data=folder", f"data.root={many}", "data.workers=0", f"out={where}/out"],
            files("out/manifest.jsonl", json_files=("out/prepare_report.json",)),
            1.0,
        ),
        Subject(
            "distill",
            lambda where: [
                *("aes_r1.distill", "data=folder", f"data.root={many}", "data.limit=16", "data.workers=0"),
                *("expert=openai", "judge=openai", *asked, "expert.max_words=400", f"out={where}/out"),
            ],
            distilled,
            2.0,
        ),
        Subject(
            "cold start",
            lambda where: [*train, "trainer=sft", f"out={where}/run", f"store={where}/store"],
            files(*logs, whole=weights),
            2.0,
        ),
        Subject(
            "RAPO",
            lambda where: [*rapo, f"out={where}/run", f"store={where}/store"],
            files(*logs, "run/completions.jsonl", whole=weights),
            3.0,
        ),
        Subject(
            "evaluate",
            lambda where: [
                *("aes_r1.evaluate", f"model.path={talking}", *folder, f"store={where}/store", f"out={where}/out"),
                *("evaluation.protocols=[greedy,mean]", "evaluation.n_bootstrap=50"),
            ],
            files("out/predictions.jsonl", json_files=("out/evaluation.json",)),
            2.0,
        ),
        Subject(
            "score",
            lambda where: ["aes_r1.score", str(few), "--model", str(talking), "--format", "jsonl"],
            lambda where: {"stdout": (streams_of(where) / "stdout").read_text()},
            0.7,
        ),
        Subject(
            "score --shards",
            lambda where: [
                *("aes_r1.score", str(few), "--model", str(talking), "--shards", f"{where}/out"),
                *("--shard-size", "3", "--workers", "1"),
            ],
            lambda where: files(*(f"out/part-{n:05d}.jsonl" for n in range(6)), json_files=("out/plan.json",))(where),
            0.3,
            forkable=False,
            helped=True,
        ),
        Subject(
            "sweep",
            lambda where: [
                *(rapo[0], "--multirun", *rapo[1:], "seed=1,2", "trainer.max_steps=2", f"store={where}/store"),
                "out=" + str(where) + "/points/${seed}",
            ],
            sweep_result,
            0.6,
            helped=True,
        ),
    ]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENAI_API_KEY": "sk-loopback-0123456789abcdef",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "INITIAL_RETRY_DELAY": "0.1",
        "MAX_RETRY_DELAY": "1.0",
        "PYTHONPATH": str(HERE.parents[1]),
    }

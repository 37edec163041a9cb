"""Started by torchrun: a whole run, in which each process writes down which engines of earlier stages are alive.

    torchrun --nproc-per-node=2 -m tests.pipeline.alive SETTINGS.json OUT

SETTINGS.json holds a run's settings; OUT/RANK.json says, for the start of each stage after the first, how many engines
there were before it, and which of their parts live (names) before and after a garbage collection.
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path

from aes_r1.pipeline import cold_start_stage, rapo_stage
from aes_r1.pipeline import run as pipeline
from aes_r1.settings import Settings, build_settings
from aes_r1.trainer.engine import build_engine
from aes_r1.trainer.launch import world


def main() -> None:
    settings, out = build_settings(Settings, json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])
    made: list[dict[str, weakref.ref]] = []
    seen: dict[str, dict] = {}

    def watched(*arguments, **named):
        engine = build_engine(*arguments, **named)
        parts = {"deepspeed": engine.engine, "optimizer": engine.optimizer, "model": engine.model, "engine": engine}
        for number, parameter in enumerate(engine.model.parameters()):
            share = getattr(parameter, "ds_tensor", parameter.data)  # ZeRO-3's, or the bucket that it is a view of
            parts[f"weight {number}"] = share.untyped_storage()
        made.append({name: weakref.ref(part) for name, part in parts.items()})
        return engine

    def looked(name: str, stage):
        def staged(*arguments):
            living = {"engines": len(made), "before": alive(made)}
            gc.collect()
            seen[name] = {**living, "after": alive(made)}
            return stage(*arguments)

        return staged

    cold_start_stage.build_engine = rapo_stage.build_engine = watched
    pipeline.rapo, pipeline.evaluate = looked("rapo", pipeline.rapo), looked("evaluation", pipeline.evaluate)
    pipeline.run(settings)
    (out / f"{world()[0]}.json").write_text(json.dumps(seen))


def alive(made: list[dict[str, weakref.ref]]) -> list[str]:
    return [
        f"{place}: {name}" for place, parts in enumerate(made) for name, part in parts.items() if part() is not None
    ]


if __name__ == "__main__":
    main()

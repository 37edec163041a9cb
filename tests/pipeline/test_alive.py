"""Only one engine exists at a time: each stage of a real run starts without the trained state of the one before."""

from __future__ import annotations

import json

import pytest

from aes_r1.pipeline import cold_start_stage, rapo_stage
from aes_r1.pipeline.run import run
from aes_r1.settings import as_dict
from tests.pipeline.small_job import settings
from tests.processes import run_job
from tests.trainer.distributed_steps import engine_settings


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "place"), [("zero2", "sharded"), ("zero3", "host")])
def test_no_engine_of_the_stages_before_is_alive(base, root, tmp_path, stage, place):
    whole = settings(
        base,
        root,
        tmp_path / "run",
        engine=as_dict(engine_settings(stage)),
        model={"path": str(base), "max_pixels": 9216, "reference": place},
        trainer={"num_samples": 2, "images_per_step": 2, "max_steps": 1, "max_new_tokens": 6, "lr": 1e-3},
        evaluation={"n_bootstrap": 20, "stages": ["rapo"], "protocols": ["sample"], "limit": 2},
    )
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(whole)))
    run_job("tests.pipeline.alive", str(tmp_path / "settings.json"), str(tmp_path))
    for rank in range(2):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (seen["rapo"]["engines"], seen["evaluation"]["engines"]) == (1, 2)
        for name in ("rapo", "evaluation"):
            assert seen[name]["after"] == [], f"{stage}, rank {rank}, at the start of {name}"
            # Module and engine refer to each other by hooks; the memory must be free before the garbage collector runs.
            assert {part.split(": ")[1] for part in seen[name]["before"]} <= {"model", "deepspeed"}


class Broken(Exception):
    """A stage fails."""


@pytest.mark.parametrize(
    ("stage", "loop", "init_from"),
    [(cold_start_stage, "train_sft", "cold_start"), (rapo_stage, "train_rapo", "base")],
    ids=["cold_start", "rapo"],
)
@pytest.mark.slow
def test_a_stage_that_fails_closes_its_engine(base, root, tmp_path, monkeypatch, stage, loop, init_from):
    held = []

    def fails(backbone, *rest, **named):
        held.extend([backbone, *rest])
        raise Broken

    monkeypatch.setattr(stage, loop, fails)
    trainer = {"num_samples": 2, "images_per_step": 2, "max_steps": 1, "init_from": init_from}
    with pytest.raises(Broken):
        run(settings(base, root, tmp_path / "run", trainer=trainer))
    policy = held[0]  # the backbone itself in the cold start
    models = [policy.backbone.model, policy.reference.backbone.model] if stage is rapo_stage else [policy.model]
    assert [sum(parameter.numel() for parameter in model.parameters()) for model in models] == [0] * len(models)
    assert not any(hasattr(one, "optimizer") for one in held)


@pytest.mark.slow
def test_parts_for_one_process_are_refused_before_anything_is_made(base, root, tmp_path):
    from aes_r1.settings import InputError

    with pytest.raises(InputError, match=r"model\.reference=sharded: one process cannot shard"):
        run(settings(base, root, tmp_path / "run", model={"path": str(base), "reference": "sharded"}))
    assert not (tmp_path / "run" / "settings.json").exists()

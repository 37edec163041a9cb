"""The cold start of a small set, and the start of RAPO from a model that does not answer."""

from __future__ import annotations

import re

import pytest

from aes_r1.pipeline.cold_start_stage import TINY_STEPS, recipe_for
from aes_r1.pipeline.readable_start import share_unread, unreadable_message
from aes_r1.pipeline.run import run
from aes_r1.prompts import answer
from aes_r1.runs.identity import run_fingerprint
from aes_r1.settings import ColdStartSettings, InputError
from aes_r1.trainer.sft import sft_epochs, sft_steps
from tests.pipeline.small_job import settings
from tests.recipes import composed


def test_passes_follow_the_number_of_records():
    cold_start = ColdStartSettings(epochs=1, batch_size=32)
    found = {count: sft_epochs(count, cold_start, 86) for count in (1, 34, 551, 2720, 2721, 2725)}
    # 85 full batches and one record more: 2,721 records, of which a set of 2,725 holds enough once.
    assert found == {1: 2721, 34: 81, 551: 5, 2720: 2, 2721: 1, 2725: 1}
    assert sft_epochs(34, ColdStartSettings(epochs=90), 80) == 90  # never fewer than were asked for
    assert sft_epochs(34, ColdStartSettings(epochs=0), 80) == 0


@pytest.mark.parametrize("least", [0, 1, 79, 80, 86])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_passes_are_the_fewest_that_take_the_steps(least, batch):
    for count in range(1, 3 * batch * max(least, 1), 5):
        epochs = sft_epochs(count, ColdStartSettings(epochs=1, batch_size=batch), least)

        def steps(passes, count=count):
            return sft_steps(count, ColdStartSettings(epochs=passes, batch_size=batch))

        assert steps(epochs) >= least
        assert epochs == 1 or steps(epochs - 1) < least, (count, epochs)


@pytest.mark.parametrize(
    ("given", "count", "epochs"),
    [
        ((), 34, 1),  # drawn scenes keep the passes of their recipe
        (("data=folder",), 34, 75),
        (("data=folder",), 3000, 1),
        (("data=folder", "cold_start.epochs=100"), 34, 100),
        (("data=folder", "cold_start.min_steps=0"), 34, 1),
        (("cold_start.min_steps=40",), 34, 37),
        (("data=folder", "model=qwen2_5_vl_3b"), 34, 1),  # a pretrained model reads the format in its question
        (("data=folder", "model=qwen2_5_vl_3b", "cold_start.min_steps=20"), 34, 18),
    ],
)
@pytest.mark.slow
def test_a_small_set_of_photographs_is_passed_over_until_the_format_is_learned(given, count, epochs):
    assert recipe_for(composed(*given), count).epochs == epochs
    assert TINY_STEPS == 80


@pytest.mark.slow
def test_a_run_is_told_from_another_by_its_least_steps():
    assert run_fingerprint(composed("cold_start.min_steps=40")) != run_fingerprint(composed())
    assert run_fingerprint(composed("trainer.start_anyway=true")) == run_fingerprint(composed())


@pytest.mark.slow
def test_rapo_does_not_start_from_a_model_that_does_not_answer(base, root, tmp_path):
    """One line with the cure, before any step; the same command goes on with trainer.start_anyway=true."""
    out = tmp_path / "run"
    asked = settings(base, root, out, trainer={"start_anyway": False}, cold_start={"min_steps": 7})
    with pytest.raises(InputError) as refused:
        run(asked)
    said = str(refused.value)
    assert re.match(r"RAPO does not start: (\d+) of \1 answers of the model .* cannot be read", said)
    assert "cold_start.min_steps=80 say (it took" in said
    assert "trainer.start_anyway=true" in said
    assert "\n" not in said
    why = "because cold_start.epochs=1 is 2 of them and cold_start.min_steps is 7"
    assert f"cold start: 4 critiques, 8 steps in 4 passes, {why}" in (out / "run.log").read_text()
    assert not (out / "stages" / "rapo.json").exists()
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("order", ["critique_first", "score_first"])
def test_a_number_outside_the_scale_is_told_in_either_order(order):
    rows = [{"text": answer("Plain.", 1.5, order), "score": None}]
    assert "(1 gave a number outside 0 to 1)" in unreadable_message(rows, "base", {})


def test_a_refusal_counts_what_the_answers_did():
    texts = [("", None), ("words without end", None), ("words again", None), (answer("Plain.", 0.5), 0.5)]
    rows = [{"text": text, "score": score} for text, score in texts]
    assert share_unread(rows) == 0.75
    said = unreadable_message(rows, "cold_start", {"steps": 60})
    assert said.startswith("RAPO does not start: 3 of 4 answers")
    assert "(2 ended without an answer, 1 said nothing)" in said
    assert "cold_start.min_steps=120 say (it took 60)" in said
    for start in ("base", "/a/model", "owner/name"):
        assert "trainer.init_from=cold_start" in unreadable_message(rows, start, {})


def test_a_refusal_advises_nothing_that_is_already_set():
    """A run without a pass of cold start begins with its base model, though it asks for a cold start."""
    said = unreadable_message([{"text": "words", "score": None}], "cold_start", {})
    assert "; give cold_start.epochs=1, which teaches the format (it is 0), longer answers" in said
    assert "init_from" not in said

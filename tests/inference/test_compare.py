"""Asking about pairs: both orders, one row for each, and the same choices for any batch size."""

from __future__ import annotations

from functools import partial

import pytest

from aes_r1.data.pairs import match_pairs
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.compare import PER_PAIR, compare
from aes_r1.inference.predictions import record_stage
from aes_r1.prompts import PAIR_PROMPT, comparison_answer, parse_answer, parse_choice, question_of
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.settings import InputError
from tests.trainer.twelve import samples

ASKING = AskingConfig(max_new_tokens=12)


class InTurn(Processes):
    """Processes that work one after the other, so that none waits for another."""

    def wait_or_leave(self) -> None:
        pass


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (comparison_answer("flat light", "deep shadow", 2), 2.0),
        ("<think>a</think>\n<answer> 1 </answer>", 1.0),
        *((f"<think>a</think><answer>{said}</answer>", None) for said in ("1.0", "first", "0", "3", "1 2", "١", "")),
        ("<answer>1</answer><think>a</think>", None),
        ("<think>a</think><answer>1", None),
    ],
)
def test_a_choice_is_1_or_2_and_nothing_is_guessed(text, choice):
    assert parse_choice(text) == choice == parse_answer(text, PAIR_PROMPT)


def test_an_answer_is_read_by_its_question():
    text = "<think>a</think><answer>0.5</answer>"
    assert parse_answer(text, PAIR_PROMPT) is None
    assert parse_answer(text, "any other") == 0.5


def test_an_answer_is_read_in_the_order_and_with_the_sub_scores_that_its_question_asks_for():
    asked = question_of("score_first", ["color"])
    assert parse_answer("<answer>0.5; color 0.7</answer><think>calm</think>", asked) == 0.5
    assert parse_answer("<think>calm</think><answer>0.5; color 0.7</answer>", asked) is None
    assert parse_answer("<answer>0.5; color 0.7</answer><think>calm</think>", question_of("score_first")) is None


@pytest.mark.slow
def test_every_pair_is_shown_in_both_orders_whatever_the_batch(backbone, picture_folder):
    pairs = match_pairs(samples(picture_folder), 3, seed=0)
    rows = list(compare(backbone, pairs, ASKING, batch_size=64))
    assert [row["id"] for row in rows] == [pair.id for pair in pairs for _ in range(PER_PAIR)]
    for pair, one, other in zip(pairs, rows[::2], rows[1::2], strict=True):
        assert (one["first"], one["second"]) == (pair.first.id, pair.second.id) == (other["second"], other["first"])
        assert one["mos"] == [pair.first.mos, pair.second.mos] == other["mos"][::-1]
        assert one["text"] != other["text"]  # the model with random weights sees the order
    assert list(compare(backbone, pairs, ASKING, batch_size=2)) == rows
    assert list(compare(backbone, pairs, ASKING, batch_size=64, batch_invariant=True)) == rows


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one_and_a_kill_loses_none(backbone, picture_folder, tmp_path):
    pairs = {"own-test-pairs": match_pairs(samples(picture_folder), 5, seed=0)}
    ask = partial(compare, backbone, asking=ASKING, batch_size=4)

    def rows_of(run, predictor, process):
        record_stage(run, "rapo", pairs, predictor, rows_per_picture=PER_PAIR, process=process, file=run.pairs_file)
        return list(run.pairs())

    whole = rows_of(RunFolder(tmp_path / "one"), ask, Processes())
    assert len(whole) == 10
    assert {row["stage"] for row in whole} == {"rapo"}
    two = RunFolder(tmp_path / "two")
    for rank in (1, 0):
        rows = rows_of(two, ask, InTurn(rank, 2))
    assert rows == whole
    halted = RunFolder(tmp_path / "halted")

    def cut(part):
        for number, row in enumerate(ask(part)):
            if number == 5:  # inside the third pair
                raise KeyboardInterrupt
            yield row

    with pytest.raises(KeyboardInterrupt):
        rows_of(halted, cut, Processes())
    assert rows_of(halted, ask, Processes()) == whole


def test_a_picture_that_cannot_be_read_is_named(backbone, picture_folder):
    pairs = match_pairs(samples(picture_folder), 1, seed=0)
    (picture_folder / pairs[0].second.id).write_bytes(b"no picture")
    with pytest.raises(InputError, match=pairs[0].second.id):
        list(compare(backbone, pairs, ASKING, batch_size=4))

from __future__ import annotations

import pytest

from aes_r1.settings import CONF, CostSettings
from benchmarks import planned
from benchmarks.arithmetic import read


@pytest.fixture(scope="module")
def rows():
    """(workload, what, plan over measured or published) of every line of the table."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in planned.table().splitlines()[2:]]
    return [(workload, what, float(ratio)) for workload, what, _, _, ratio in cells]


@pytest.mark.slow
def test_the_documents_show_this_table():
    assert planned.table() in (CONF.parent / "docs" / "performance.md").read_text()


@pytest.mark.slow
def test_the_plan_is_not_far_from_what_was_measured_and_published(rows):
    """A step within a fifth of those published that compute a prompt once per output, and not below those measured."""
    near = [ratio for workload, what, ratio in rows if what == "step, s" and "prompts shared" not in workload]
    assert len(near) == 7
    assert all(1.0 < ratio < 1.6 for ratio in near[:2])
    assert all(0.5 < ratio < 1.0 for ratio in near[2:4]), "layers that were not compiled decode slower than planned"
    assert all(0.8 < ratio < 1.2 for ratio in near[4:])


def test_published_throughput_gives_the_length_of_answers():
    """1,200 tokens a second on each of 8 GPUs for 180 seconds are 675 for each of 2,560 outputs, 454 of them prompt."""
    assert planned.answer_tokens(planned.EASYR1[0]) == 675 - 454


def test_measured_rows_are_planned_on_their_card_by_default_assumptions():
    for suite, bandwidth in (("gpu_h100_80gb_hbm3", 3350), ("gpu_h200", 4800)):
        settings = planned.measured_settings(read(suite)[0], suite)
        assert (settings.plan.bandwidth_gb_s, settings.plan.longest_answer) == (bandwidth, 1.0)
        default = CostSettings()
        assert (settings.plan.mfu, settings.plan.decode_efficiency) == (default.mfu, default.decode_efficiency)

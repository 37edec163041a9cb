"""What has answered is kept, and what it lacks is said; a set that tells how far people agree ends a check."""

import pytest

from aes_r1.data.sample import Sample
from aes_r1.pipeline import baselines_stage
from aes_r1.pipeline.baselines_stage import answer_baselines
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError


@pytest.mark.parametrize(
    ("name", "more", "lines"), [("mean", {}, 1), ("mean", {"mos_std": None}, 0), ("people", {}, 0)], ids=str
)
def test_a_kept_baseline_without_the_spread_of_opinions_is_said_in_a_line(name, more, lines, tmp_path, monkeypatch):
    run, said = RunFolder(tmp_path), []
    monkeypatch.setattr(baselines_stage.log, "info", lambda message, *of: said.append(message % of))
    row = {"how": "fitted", "id": "a", "dataset": "made", "split": "test", "mos": 0.5, "score": 0.5}
    run.write_baseline(name, [{**row, **more}])
    run.finish_stage(f"baseline_{name}", {"sets": {}})
    given = {"data": None, "fitted": None, "sets": {}, "seed": 0, "backbone": lambda: pytest.fail("all has answered")}
    answer_baselines(run, [name], **given)
    assert said == [f"{name}: its rows lack the spread of opinions, so no distance from them is measured"] * lines


def test_a_check_for_people_ends_at_the_first_set_that_tells():
    untold = [Sample("a", "a.png", 0.5, "untold", "test", 0.1, 9)]
    told = [Sample("a", "a.png", 0.5, "told", "test", 0.1, 10)]

    def lists():
        yield from (untold, told)
        pytest.fail("the next list was read")

    baselines_stage._require_opinions(lists())
    with pytest.raises(
        InputError, match=r"untold/test publish no votes .* 10 raters or more and their number; leave people out"
    ):
        baselines_stage._require_opinions([untold])

"""One stage from pictures to evaluation.json, asked by two processes' shares, on scenes with known factors."""

import json

import numpy as np
import pytest

from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.evaluation.summary import measure_run, summarise
from aes_r1.inference.exchange import exchange_critiques
from aes_r1.inference.predictions import record_stage
from aes_r1.prompts import DIMENSIONS, RATING_PROMPT, SCORE_FIRST_PROMPT, answer
from aes_r1.report.terminal import critiques_line, headline_tables
from aes_r1.runs.files import read_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes


def scenes(name, count, *, known=True):
    for index in range(count):
        rng = np.random.default_rng([index, len(name)])
        factors = dict(zip(DIMENSIONS, rng.random(5).tolist(), strict=True))
        attributes = {"factors": factors} if known else {}
        yield Sample(f"{index}", "", float(np.mean(list(factors.values()))), name, "test", 0.1, attributes=attributes)


def spoken(some):
    """Answer as a truthful critic of scenes would."""
    for one in some:
        factors = next(scene for scene in scenes(one.dataset, 50) if scene.id == one.id).attributes["factors"]
        critique = scenes_critique(factors, {}, one.mos, np.random.default_rng(int(one.id))).critique
        yield {
            "protocol": "sample", "id": one.id, "dataset": one.dataset, "split": "test", "image": "", "mos": one.mos,
            "mos_std": 0.1, "origin": None, "score": round(one.mos, 2), "scores": [round(one.mos, 2)],
            "out_of_range": 0, "critique": critique, "text": "",
        }  # fmt: skip


class OneAfterTheOther(Processes):
    """Processes that are not there at the same time, so that none waits for another."""

    def wait_or_leave(self):
        pass


@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path):
    sets = {"scenes-test": list(scenes("scenes", 21)), "other-test": list(scenes("other", 8, known=False))}
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    assert record_stage(RunFolder(one), "rapo", sets, spoken, rows_per_picture=1) == 29
    assert record_stage(RunFolder(two), "rapo", sets, spoken, rows_per_picture=1, process=OneAfterTheOther(1, 2)) == 0
    assert record_stage(RunFolder(two), "rapo", sets, spoken, rows_per_picture=1, process=OneAfterTheOther(0, 2)) == 29
    assert (one / "predictions.jsonl").read_bytes() == (two / "predictions.jsonl").read_bytes()

    exchanged = one / "interventions" / "rapo" / "scenes-test.jsonl"
    exchanged.parent.mkdir(parents=True)
    kinds = dict.fromkeys(("own", "swapped_critique", "swapped_picture", "blanked", "negated"), 0.5)
    row = {"id": "0", "mos": 0.5, "critique_from": "0", "picture_from": "0", "changed": True, **kinds}
    exchanged.write_text(json.dumps(row) + "\n")
    result = measure_run(
        RunFolder(one), sets, manifests={"scenes/test": "abc"}, n_bootstrap=20, seed=0, seen={"scenes"}
    )
    json.dumps(result, allow_nan=False)
    assert result["stages"]["rapo"]["scenes/test"]["sample"]["n"] == 21
    critiques = result["critiques"]["rapo"]
    assert critiques["scenes/test"]["faithfulness"]["color"]["accuracy"]["value"] == 1.0
    assert critiques["scenes/test"]["interventions"]["blanked"]["n"] == 1
    assert "faithfulness" not in critiques["other/test"]
    assert "interventions" not in critiques["other/test"]
    assert "paper" not in result
    assert result["manifests"] == {"scenes/test": "abc"}
    assert len(list(RunFolder(one).predictions())) == 29


@pytest.mark.slow
def test_every_stage_set_and_protocol_says_how_true_its_critiques_are(tmp_path):
    """The cell's "critiques": all of it where words, factors, exchange and information are known, null where not."""

    def both(some):
        for row in spoken(some):
            yield row
            yield {**row, "protocol": "greedy", "critique": "Light and shadow: flat light, no shadow."}

    sets = {"scenes-test": list(scenes("scenes", 21)), "other-test": list(scenes("other", 8, known=False))}
    record_stage(RunFolder(tmp_path), "rapo", sets, both, rows_per_picture=2)
    kinds = {"own": 0.5, "swapped_critique": 0.3, "swapped_picture": 0.5, "blanked": 0.5, "negated": 0.5}
    for kind, values in (("interventions", kinds), ("information", {"words_nats": 2.0, "score_nats": 3.0})):
        path = tmp_path / kind / "rapo" / "scenes-test.jsonl"
        path.parent.mkdir(parents=True)
        common = {"protocol": "sample", "mos": 0.5, "critique_from": "1", "picture_from": "1", "changed": True}
        rows = [{**common, "id": "0", **values}, {**common, "id": "1", **values, "own": 0.3}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = measure_run(RunFolder(tmp_path), sets, manifests={}, n_bootstrap=20, seed=0, seen=None)
    json.dumps(result, allow_nan=False)
    cells = {name: result["stages"]["rapo"][f"{name}/test"] for name in ("scenes", "other")}
    sampled, greedy = cells["scenes"]["sample"]["critiques"], cells["scenes"]["greedy"]["critiques"]
    assert sampled.keys() == greedy.keys() == {
        *("n", "distinct", "words_srcc", "information_nats", "score_information_nats", "faithfulness"),
        *("follow_critique", "follow_picture"),
    }  # fmt: skip
    assert (sampled["n"], greedy["distinct"]["value"]) == (21, 1)
    assert sampled["distinct"]["value"] > 15
    assert sampled["words_srcc"]["value"] > 0.8
    assert greedy["words_srcc"] is None
    assert (sampled["information_nats"]["value"], sampled["score_information_nats"]["value"]) == (2.0, 3.0)
    assert greedy["information_nats"] is greedy["follow_critique"] is None
    assert sampled["follow_critique"]["value"] == 1.0  # of the way from .5 to .3, all; the second's other is itself
    assert sampled["follow_picture"]["value"] == 0.0
    assert cells["other"]["sample"]["critiques"]["faithfulness"] is None


@pytest.mark.parametrize("known_first", [True, False])
@pytest.mark.slow
def test_a_list_of_several_sets_keeps_the_factors_of_each(tmp_path, known_first):
    known, unknown = list(scenes("scenes", 8)), list(scenes("other", 8, known=False))
    sets = {"manifest-test": known + unknown if known_first else unknown + known}
    record_stage(RunFolder(tmp_path), "rapo", sets, spoken, rows_per_picture=1)
    critiques = measure_run(RunFolder(tmp_path), sets, manifests={}, n_bootstrap=2, seed=0, seen=None)["critiques"][
        "rapo"
    ]
    assert critiques["scenes/test"]["faithfulness"]["color"]["accuracy"]["value"] == 1.0
    assert "faithfulness" not in critiques["other/test"]


def critiques_of_four(picture_folder, run):
    """Write predictions of four pictures by three protocols, the first of them without a critique."""
    rows = []
    for protocol in ("sample", "greedy", "mean"):
        for index, image in enumerate(sorted(picture_folder.glob("*.png"))[:4]):
            critique = f"a dull light {index}"
            rows.append(
                {
                    "stage": "rapo", "protocol": protocol, "id": str(index), "dataset": "made", "split": "test",
                    "image": str(image), "mos": index / 4, "score": 0.5, "critique": critique if index else None,
                    "text": answer(critique, 0.5),
                }
            )  # fmt: skip
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_the_critiques_of_a_model_are_exchanged_and_scored_by_protocol(backbone, picture_folder, tmp_path):
    critiques_of_four(picture_folder, tmp_path)
    how = {"question": RATING_PROMPT, "answer_from": "image", "pictures": 10, "batch_size": 8, "seed": 0}
    exchange_critiques(RunFolder(tmp_path), "rapo", backbone, **how)
    for kind, key in (("interventions", "own"), ("information", "words_nats")):
        path = tmp_path / kind / "rapo" / "made-test.jsonl"
        result = read_rows(path)
        assert [(row["protocol"], row["id"]) for row in result] == [
            (protocol, name) for protocol in ("sample", "greedy") for name in ("1", "2", "3")
        ]
        assert all(key in row for row in result)
        before = path.stat().st_mtime_ns
        exchange_critiques(RunFolder(tmp_path), "rapo", backbone, **how)
        assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("answer_from", ["image", "words"])
@pytest.mark.parametrize("question", [RATING_PROMPT, SCORE_FIRST_PROMPT])
@pytest.mark.slow
def test_what_holds_by_construction_is_not_measured(question, answer_from, backbone, picture_folder, tmp_path):
    """A score that is drawn without the picture follows the critique; one that comes before it does not."""
    run = RunFolder(tmp_path)
    critiques_of_four(picture_folder, tmp_path)
    how = {"question": question, "answer_from": answer_from, "pictures": 10, "batch_size": 8, "seed": 0}
    exchange_critiques(run, "rapo", backbone, **how)
    exchanged = run.examined("interventions", "rapo", "made/test")
    assert bool(exchanged) == (question == RATING_PROMPT and answer_from == "image")
    informed = run.examined("information", "rapo", "made/test")
    assert len(informed) == 6
    assert all(row["words_nats"] is not None for row in informed)
    assert {row["score_nats"] is None for row in informed} == {answer_from == "words"}
    samples = [
        Sample(str(index), str(image), index / 4, "made", "test")
        for index, image in enumerate(sorted(picture_folder.glob("*.png"))[:4])
    ]
    evaluation = measure_run(run, {"made-test": samples}, manifests={}, n_bootstrap=2, seed=0, seen=None)
    measured = evaluation["stages"]["rapo"]["made/test"]["greedy"]["critiques"]
    assert measured["information_nats"] is not None
    assert (measured["score_information_nats"] is None) == (answer_from == "words")
    assert critiques_line(evaluation) is None
    assert all(table.row_count for table in headline_tables(evaluation))


def test_a_model_is_compared_with_every_baseline_but_halves_of_the_raters():
    mos = np.linspace(0, 1, 30)
    rng = np.random.default_rng(0)

    def rows(stage: str, protocol: str, noise: float) -> list[dict]:
        scores = mos + rng.normal(0, noise, 30)
        facts = {"stage": stage, "protocol": protocol, "dataset": "made", "split": "test"}
        return [{**facts, "id": str(i), "mos": mos[i], "score": float(scores[i])} for i in range(30)]

    beside = [*rows("handmade", "fitted", 0.4), *rows("people", "other_group", 0.05), *rows("half", "halves", 0.1)]
    result = summarise(rows("model", "sample", 0.2), n_bootstrap=50, baseline_rows=beside)
    cells = result["baseline_cells"]["made/test"]
    assert {name: cell["how"] for name, cell in cells.items()} == {
        "handmade": "fitted", "people": "other_group", "half": "halves",
    }  # fmt: skip
    for name in ("plcc", "srcc"):
        value = cells["half"][name]["value"]
        assert cells["half"]["whole_group"][name]["value"] == pytest.approx(2 * value / (1 + value))
    assert "whole_group" not in cells["people"]
    against = {one["from"]["stage"]: one for one in result["baselines"]}
    assert set(against) == {"handmade", "people"}  # the opinions hold both halves
    difference = result["stages"]["model"]["made/test"]["sample"]["srcc"]["value"] - cells["handmade"]["srcc"]["value"]
    assert against["handmade"]["srcc"]["difference"] == pytest.approx(difference)
    assert against["handmade"]["to"] == {"stage": "model", "protocol": "sample"}
    assert list(result["stages"]) == ["model"]
    assert summarise([], baseline_rows=beside, n_bootstrap=50)["baselines"] == []


def test_sub_scores_are_measured_against_the_ratings_that_there_are():
    rng = np.random.default_rng(0)
    rows = []
    for index, (rating, wrong) in enumerate(rng.random((30, 2)).tolist()):
        known = rating if index < 20 else None
        sub_scores = {"color": None if index == 0 else 0.5 * rating, "exposure": wrong}
        rows.append(
            {
                "stage": "rapo", "protocol": "sample", "id": str(index), "dataset": "made", "split": "test", "mos": 0.5,
                "score": 0.5, "sub_scores": sub_scores, "ratings": {"color": known, "exposure": None},
            }
        )  # fmt: skip
    cell = summarise(rows, n_bootstrap=20)["stages"]["rapo"]["made/test"]["sample"]
    assert list(cell["sub_scores"]) == ["color"], "nobody rated exposure"
    color = cell["sub_scores"]["color"]
    assert (color["n"], color["n_answered"]) == (20, 19)
    assert color["answered"]["srcc"]["value"] == pytest.approx(1)
    assert color["answered"]["plcc"]["value"] == pytest.approx(1)
    assert color["srcc"]["low"] <= color["srcc"]["value"] <= color["srcc"]["high"]
    without = [{key: value for key, value in row.items() if key not in ("sub_scores", "ratings")} for row in rows]
    assert "sub_scores" not in summarise(without, n_bootstrap=20)["stages"]["rapo"]["made/test"]["sample"]

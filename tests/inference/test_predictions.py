"""Rows on disk: after any kill, no row is lost or repeated."""

import json
import tracemalloc

import pytest

from aes_r1.data.sample import Sample
from aes_r1.evaluation.summary import summarise
from aes_r1.inference.predictions import append_predictions, merge
from aes_r1.runs.files import iter_rows, read_rows
from aes_r1.settings import InputError

PROTOCOLS = ("sample", "greedy")


def samples(count):
    return (Sample(f"{i}", f"{i}.jpg", i / count, "made", "test") for i in range(count))


def rows_of(some):
    for one in some:
        for protocol in PROTOCOLS:
            yield {
                "protocol": protocol,
                "id": one.id,
                "dataset": "made",
                "split": "test",
                "mos": one.mos,
                "score": one.mos,
            }


def ids(path):
    return [(row["id"], row["protocol"]) for row in iter_rows(path)]


WHOLE = [(f"{i}", protocol) for i in range(7) for protocol in PROTOCOLS]


@pytest.mark.slow
def test_every_place_of_a_kill(tmp_path):
    path = tmp_path / "part.jsonl"
    append_predictions(path, samples(7), rows_of, rows_per_picture=2)
    assert ids(path) == WHOLE
    content = path.read_bytes()
    for cut in range(0, len(content), 11):
        path.write_bytes(content[:cut])
        asked = []

        def counted(some, asked=asked):
            for one in some:
                asked.append(one.id)
                yield from rows_of([one])

        done = append_predictions(path, samples(7), counted, rows_per_picture=2)
        assert path.read_bytes() == content
        assert len(asked) == 7 - done
        assert done == content[:cut].count(b"\n") // 2


def test_rows_of_other_pictures_are_refused(tmp_path):
    path = tmp_path / "part.jsonl"
    append_predictions(path, samples(3), rows_of, rows_per_picture=2)
    with pytest.raises(InputError, match="other pictures"):
        append_predictions(
            path, (Sample(f"other-{i}", "", 0.5, "made", "test") for i in range(5)), rows_of, rows_per_picture=2
        )


def test_parts_of_several_processes_come_together_in_order(tmp_path):
    parts = [tmp_path / f"{rank}.jsonl" for rank in range(3)]
    for rank, part in enumerate(parts):
        append_predictions(part, list(samples(7))[rank::3], rows_of, rows_per_picture=2)
    path = tmp_path / "predictions.jsonl"
    path.write_text(
        json.dumps({"stage": "base", "id": "old"}) + "\n" + json.dumps({"stage": "rapo", "id": "old"}) + "\n"
    )
    for _ in range(2):  # a second time changes nothing
        assert merge(path, "rapo", [parts], rows_per_picture=2) == 14
        found = read_rows(path)
        assert found[0] == {"stage": "base", "id": "old"}
        assert [(row["id"], row["protocol"]) for row in found[1:]] == WHOLE
        assert {row["stage"] for row in found[1:]} == {"rapo"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pictures(tmp_path):
    """Recording, merging: flat. Measuring: columns of numbers, under 240 bytes a picture and protocol at its peak."""
    peaks = {}
    for count in (1_000, 6_000):
        part, path = tmp_path / f"{count}.jsonl", tmp_path / f"all-{count}.jsonl"
        tracemalloc.start()
        append_predictions(part, samples(count), rows_of, rows_per_picture=2)
        merge(path, "rapo", [[part]], rows_per_picture=2)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[6_000] < peaks[1_000] + 100_000
    from aes_r1.evaluation.columns import columns_of  # before the count: modules take memory too

    tracemalloc.start()
    columns = columns_of(iter_rows(path))
    assert tracemalloc.get_traced_memory()[1] < 240 * 2 * 6_000
    tracemalloc.stop()
    assert [len(column.ids) for column in columns.values()] == [6_000, 6_000]
    assert summarise(iter_rows(path), n_bootstrap=2)["stages"]["rapo"]["made/test"]["greedy"]["n"] == 6_000

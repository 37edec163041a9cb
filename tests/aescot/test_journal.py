import pytest

from aes_r1.aescot.journal import Journal


def test_rows_come_back_after_reopening(tmp_path):
    with Journal(tmp_path / "calls.jsonl") as journal:
        journal.append("a", {"text": "one\nline"})
        journal.append("b", {"text": "zwei ä"})
        assert journal.get("a")["text"] == "one\nline"
    with Journal(tmp_path / "calls.jsonl") as journal:
        assert [row["text"] for row in journal.rows()] == ["one\nline", "zwei ä"]
        assert journal.get("c") is None
        assert len(journal) == 2


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_half_written_last_line_is_cut_off_and_the_rest_kept(tmp_path, cut):
    path = tmp_path / "calls.jsonl"
    with Journal(path) as journal:
        journal.append("a", {"text": "kept"})
        journal.append("b", {"text": "torn by a kill"})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert len(journal) == 1
        journal.append("b", {"text": "again"})
        assert [row["text"] for row in journal.rows()] == ["kept", "again"]
    with Journal(path) as journal:
        assert journal.get("b")["text"] == "again"

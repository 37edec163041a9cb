import pytest

from aes_r1.aescot.journal import Journal
from aes_r1.settings import InputError


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


def test_a_number_that_is_not_finite_is_kept_as_null(tmp_path):
    """As in every other file of rows: NaN is no JSON, and another reader would refuse the line."""
    path = tmp_path / "calls.jsonl"
    with Journal(path) as journal:
        journal.append("a", {"usd": float("nan"), "parts": [1.5, float("inf")]})
        assert journal.get("a") == {"key": "a", "usd": None, "parts": [1.5, None]}
    assert "NaN" not in path.read_text()


def test_a_line_that_is_damaged_later_is_named_by_its_number_in_the_file(tmp_path):
    path = tmp_path / "calls.jsonl"
    with Journal(path) as journal:
        for key in "abc":
            journal.append(key, {"text": key})
        rows = path.read_text().splitlines()
        path.write_text("\n".join([*rows[:2], "x" * len(rows[2])]) + "\n")
        assert journal.get("b") == {"key": "b", "text": "b"}
        with pytest.raises(InputError, match=r"calls\.jsonl, line 3: "):
            journal.get("c")


@pytest.mark.parametrize("damage", ["no JSON", "[1, 2]", "7", '{"text": "no key"}'])
@pytest.mark.parametrize(("before", "line"), [("", 1), ("ab", 3), ("aa", 3), ("aabab", 6)])
def test_a_damaged_line_is_named_by_its_number(tmp_path, damage, before, line):
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(f'{{"key": "{key}"}}\n' for key in before) + f'{damage}\n{{"key": "c"}}\n')
    with pytest.raises(InputError, match=rf"calls\.jsonl:{line}: not an answer of this program; delete the line"):
        Journal(path)

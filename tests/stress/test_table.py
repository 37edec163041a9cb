import json

from tests.stress.table import BEGIN, END, table_of, write_table

TRIALS = [
    {"subject": "prepare", "disturbed": [{"kind": "kill"}, {"kind": "kill"}, {"kind": "freeze"}], "fault": None},
    {"subject": "RAPO", "disturbed": [{"kind": "kill"}], "fault": "kill: traceback"},
]


def test_every_command_is_counted_and_all_of_them(tmp_path):
    table = table_of(TRIALS)
    assert table.splitlines() == [
        "| command | trials | freeze | kill | faults |",
        "|---|---|---|---|---|",
        "| prepare | 1 | 1 | 2 | 0 |",
        "| RAPO | 1 | 0 | 1 | 1 |",
        "| all | 2 | 1 | 3 | 1 |",
    ]
    page, log = tmp_path / "page.md", tmp_path / "trials.jsonl"
    log.write_text("".join(f"{json.dumps(row)}\n" for row in TRIALS))
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(log, page)
    assert page.read_text() == f"before\n{BEGIN}\n{table}\n{END}\nafter\n"

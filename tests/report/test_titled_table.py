"""A table of the terminal: title, columns, and whether cells are broken into lines."""

from rich.console import Console

from aes_r1.report.titled_table import titled_table


def test_the_first_column_is_left_and_the_others_right():
    table = titled_table("numbers", ["of", "SRCC"])
    table.add_row("a long name", "0.5")
    with (console := Console(width=40)).capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines() if line.strip()]
    assert lines[0] == "numbers"
    assert lines[-1] == " a long name   0.5"


def test_cells_are_broken_into_lines_or_cut():
    for no_wrap, rows in ((False, 2), (True, 1)):
        table = titled_table("numbers", ["of", "n"], no_wrap=no_wrap)
        table.add_row("two words", "1")
        with (console := Console(width=9)).capture() as capture:
            console.print(table)
        lines = [line for line in capture.get().splitlines() if line.strip()]
        assert len(lines) == 3 + rows, no_wrap  # after the title, the head and its rule


def test_names_are_shown_as_they_are_on_every_console():
    table = titled_table("a[/b] of :boom:", ["[red]", "[/x]"])
    table.add_row("my[green]set", "[/y]")
    with (console := Console(width=60)).capture() as capture:
        console.print(table)
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert (lines[0], lines[1], lines[-1]) == (["a[/b]", "of", ":boom:"], ["[red]", "[/x]"], ["my[green]set", "[/y]"])

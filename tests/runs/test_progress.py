"""Progress is a bar in a terminal and a line a minute in a log."""

from __future__ import annotations

import logging

import pytest

from aes_r1.runs import progress


@pytest.fixture
def clock(monkeypatch):
    """Return the list whose only element is the time that progress sees, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("aes_r1"), "propagate", True)
    caplog.set_level(logging.INFO, logger="aes_r1")
    return caplog


def test_a_log_gets_a_line_a_minute(clock, said):
    with progress.progress_bars() as bar:
        update = bar("RAPO")
        for step in range(141):
            update(step, 140, f"reward {step / 140:.2f}")
            clock[0] += 2
    assert said.messages == [
        "RAPO: 30 of 140 after 1:00, about 3:40 left, reward 0.21",
        "RAPO: 60 of 140 after 2:00, about 2:40 left, reward 0.43",
        "RAPO: 90 of 140 after 3:00, about 1:40 left, reward 0.64",
        "RAPO: 120 of 140 after 4:00, about 0:40 left, reward 0.86",
    ]


def test_what_was_done_before_does_not_count_as_speed(clock, said):
    """100 of 140 were there: 10 in 100 seconds leave 30, which take 300."""
    with progress.progress_bars() as bar:
        update = bar("cold start")
        update(100, 140, "")
        clock[0] += 100
        update(110, 140, "")
        clock[0] += 7200
        update(110, 140, "")
    assert said.messages == [
        "cold start: 110 of 140 after 1:40, about 5:00 left",
        "cold start: 110 of 140 after 2:01:40, about 6:05:00 left",
    ]


def test_the_time_before_the_first_step_does_not_count_as_speed(clock, said):
    """A validation of 300 seconds comes first, and the first update after the first of 100 steps of 100 seconds."""
    with progress.progress_bars() as bar:
        update = bar("RAPO")
        clock[0] += 300
        for step in range(1, 4):
            clock[0] += 100
            update(step, 100, "")
    assert said.messages == [
        "RAPO: 1 of 100 after 6:40",
        "RAPO: 2 of 100 after 8:20, about 2:43:20 left",
        "RAPO: 3 of 100 after 10:00, about 2:41:40 left",
    ]


def test_other_processes_say_nothing(clock, said):
    with progress.progress_bars(shown=False) as bar:
        update = bar("RAPO")
        clock[0] += 100
        update(1, 2, "")
    assert not said.messages


def test_a_terminal_gets_a_bar_and_no_lines(clock, said, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.progress_bars() as bar:
        update = bar("RAPO")
        clock[0] += 100
        update(1, 2, "")
    assert not said.messages
    assert "RAPO" in capsys.readouterr().err


def test_a_bar_moves_with_the_rows(clock, said):
    def rows():
        for row in "abc":
            clock[0] += 45
            yield row

    with progress.progress_bars() as bar:
        assert list(progress.with_progress(rows(), bar("interventions"), total=3)) == ["a", "b", "c"]
    assert said.messages == ["interventions: 2 of 3 after 1:30, about 0:45 left"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (1139.7, "19:00"), (3599.7, "1:00:00"), (3725, "1:02:05")],
)
def test_a_duration_never_shows_sixty_seconds(seconds, shown):
    assert progress.clock(seconds) == shown

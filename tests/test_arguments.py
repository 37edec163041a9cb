"""Commands without Hydra: what is typed wrongly is one line."""

from __future__ import annotations

import pytest

from aes_r1.arguments import OneLineParser


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--modle", "RUN"], "--modle: no such option; nearest: --model"),
        (["--modle=RUN"], "--modle: no such option; nearest: --model"),
        (["model=RUN"], "model=RUN: an option has dashes; give --model RUN"),
        (["model=my run"], "model=my run: an option has dashes; give --model 'my run'"),
        (["--colour", "red"], "--colour: no such option"),
        ([], ""),
        (["a=b.jpg"], ""),
        (["--por", "1"], ""),
        (["--port", "model=1"], ""),
        (["--reverse", "model=RUN"], "model=RUN: an option has dashes; give --model RUN"),
    ],
)
def test_a_missing_argument_that_was_misspelled_is_shown_as_typed(typed, says, capsys):
    parser = OneLineParser(prog="aes-r1 score")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port")
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("pictures", nargs="*")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(typed)
    said = f"; {says}" if says else ""
    expected = f"aes_r1: the following arguments are required: --model{said}; aes-r1 score --help lists the arguments\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, expected)


@pytest.mark.parametrize(("typed", "named"), [(["", "x.jpg"], "RUN"), (["run", "x.jpg", " "], "pictures")])
def test_an_empty_name_is_refused_by_its_argument(typed, named, capsys):
    """An unset variable of the shell, as in `aes-r1 export RUN "$OUT"`, would otherwise name the current folder."""
    parser = OneLineParser(prog="aes-r1 score")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--note")
    parser.parse_args(["run", "--note", ""])
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(typed)
    says = f"{named}: an empty name was given; give a name, or . for the current folder; aes-r1 score --help lists"
    assert (ended.value.code, capsys.readouterr().err) == (2, f"aes_r1: {says} the arguments\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--model", "a", "--model", "b"], "note: --model is given 2 times, a, b; the last one counts, b\n"),
        (["--model=a", "x.jpg", "--mod", "b"], "note: --model is given 2 times, a, b; the last one counts, b\n"),
        (["-m", "a", "--model=b"], "note: --model is given 2 times, a, b; the last one counts, b\n"),
        (["--model", "a", "--model=a"], ""),
        (["--model", "a", "--url", "1", "--url", "2", "--reverse", "--reverse"], ""),
        (["--model", "a", "--", "--model", "b"], ""),
        (["--model", "a", "--many", "x", "y", "--many", "x", "z"], ""),
    ],
)
def test_an_option_that_is_given_twice_is_said(typed, said, capsys):
    """Its last value counts, as that of a setting does; an option that gathers values may be repeated."""
    parser = OneLineParser(prog="aes-r1 score")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--url", action="append")
    parser.add_argument("--many", nargs="+")
    parser.add_argument("--reverse", action="store_true")
    parser.add_argument("pictures", nargs="*")
    parser.parse_args(typed)
    assert capsys.readouterr().err == said


def test_an_empty_command_line_is_parsed(capsys):
    OneLineParser(prog="aes-r1 runs").parse_args([])
    assert capsys.readouterr().err == ""

"""Write the report of a run, or one page that compares several: `python -m aes_r1.report RUN [RUN ...]`."""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.run_page import write_report
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, place, require


def run(options: argparse.Namespace) -> int:
    """Write the page of one run or of several; return the exit code."""
    folders = [place(name) for name in options.runs]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the folders of runs (aes-r1 runs lists them)")
    if len(folders) == 1:
        page = RunFolder(folders[0]).report_file
        require(options.out is None, "--out", options.out, f"is for several runs; one run's page is {page}")
        print(write_report(folders[0]))
    else:
        page = place(options.out, "--out") if options.out else folders[0].parent / "comparison.html"
        require(not page.is_dir(), "--out", page, f"is a folder; give a file, as {page / 'comparison.html'}")
        print(write_comparison(folders, page))
    return 0


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 report",
        description=(__doc__ or "").split(":")[0] + ".",
        examples="aes-r1 report RUN\naes-r1 report RUN RUN RUN --out comparison.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; all are compared with the first")
    parser.add_argument("--out", metavar="FILE", help="the comparison (default: comparison.html beside the first run)")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()

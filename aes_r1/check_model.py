"""Say what a folder's model supports: `python -m aes_r1.check_model DIR`, where DIR may be a run.

It loads the model as training does and checks prompt, sampling, training, adapter and saving with generated pictures.
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.inference.asking import find_model
from aes_r1.inference.conformance import FAIL, PASS, TOLERANCE, examine
from aes_r1.model import files
from aes_r1.runs.folder import RunFolder, is_model, model_in, run_of, runs_below
from aes_r1.settings import InputError, place, require


def run(parsed: argparse.Namespace) -> int:
    """Print the findings about the model that the command line names; return 1 if it cannot be used, otherwise 0."""
    scratch_folder = None if parsed.scratch is None else place(parsed.scratch, "--scratch")
    if scratch_folder is not None and not scratch_folder.is_dir():
        raise InputError(f"--scratch {parsed.scratch}: no such folder; make it, or give another")
    require(parsed.max_pixels >= 256, "--max-pixels", parsed.max_pixels, "must be at least 256, a picture of 16 x 16")
    model = _model(parsed.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = Table("check", "result", "measured, or why not", title=model)
    findings = []
    with tempfile.TemporaryDirectory(dir=scratch_folder) as scratch:
        draft = Path(scratch) / "copy"
        for finding in examine(model, dtype=parsed.dtype, max_pixels=parsed.max_pixels, device=device, draft=draft):
            findings.append(finding)
            table.add_row(finding.check, finding.result, finding.reason)
    Console(markup=False, emoji=False).print(table)
    return int(findings[0].result != PASS or any(finding.result == FAIL for finding in findings))


def _model(path: str) -> str:
    """Return the model folder or hub name that `path` means; InputError for what is neither, nor a run with a model."""
    folder = place(path)
    model = model_in(folder)
    if is_model(model):
        return str(model)
    is_of_run = RunFolder(folder).exists or run_of(folder) is not None
    if is_of_run or any(runs_below(folder, pattern) for pattern in ("*", "*/*")):
        return find_model(path)[0]  # which says what the run lacks, or which run to give
    path = str(folder) if folder.is_dir() else path  # a hub name is no path
    files.find(path, None)
    return path


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 check-model",
        description="Check what a vision-language model supports, with made pictures. Exit code 1 if a check fails.",
        examples="aes-r1 check-model DIR\naes-r1 check-model RUN\naes-r1 check-model OWNER/NAME --dtype bfloat16",
    )
    add = parser.add_argument
    add("model", metavar="DIR", help="a run's folder, a model folder or a hub name (OWNER/NAME)")
    add("--dtype", choices=sorted(TOLERANCE), default="float32", help="of weights and activations (default: float32)")
    add("--max-pixels", type=int, default=9216, metavar="N", help="largest area of a picture (default: 9216)")
    add("--scratch", metavar="DIR", help="folder for a copy of the model (default: the system's temporary folder)")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()

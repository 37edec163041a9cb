"""Score pictures with a trained model: `python -m aes_r1.score photo.jpg folder/ --model DIR --format table`.

Results go to stdout. Progress goes to stderr, and at the end so do the files that could not be read (exit code 1) and a
summary.
In Python:

    from aes_r1.score import Critic
    print(Critic.load(DIR).score("photo.jpg").score)
"""

from __future__ import annotations

import sys
import time

from aes_r1.runs.stopping import (
    StopRequest,
    leave_when_interrupted,
    leave_when_told,
    stop_requests,
    take_signals_for_interrupts,
)
from aes_r1.wrong_input import require_conf

if __name__ == "__main__":  # before the imports, which take seconds
    leave_when_interrupted()
    if any(argument.startswith("--shards") for argument in sys.argv):
        leave_when_told()
    else:
        take_signals_for_interrupts()  # rows are shown, and nothing is kept that could be gone on from
    require_conf()

import argparse
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.data.check import perceptual_hash
from aes_r1.data.copies import SAME_SCENE_BITS
from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import PictureError
from aes_r1.inference.asking import find_model
from aes_r1.scoring.bursts import MEANING, group_takes, kept_summary
from aes_r1.scoring.critic import Critic, load_any
from aes_r1.scoring.inputs import UrlLimits, find_pictures, named_once, read_picture, skipped_line, some_readable
from aes_r1.scoring.rows import FORMATS, SORTS, Row, count_of, sorted_rows, write_verdict_rows
from aes_r1.scoring.scorer import Scorer, is_scorer, stated
from aes_r1.settings import address_rule, place, printable, require

AT_ONCE = 32  # pictures that one server is asked about
_SORT_HELP = (
    "order of the rows: score (highest first), agreement (words and score furthest apart first) or path (by name)"
)
_MAX_REASONS = 5  # reasons in the summary; every file's own stands above it


class Scored(NamedTuple):
    """Hold what was scored.

    counts: of rows.count_of, and whether the scoring was "interrupted"; chosen: the rows of --best-of; listed: the
    pictures that were to be scored.
    """

    counts: Counter[str]
    unreadable: list[PictureError]
    chosen: Sequence[Row] = ()
    listed: int = 0


def run(options: argparse.Namespace) -> int:
    """Score the pictures of the command line; return 1 when one could not be read or Ctrl-C ended it, else 0."""
    _check(options)
    limits = UrlLimits(round(options.url_mb * 1e6), options.url_seconds) if options.urls else None
    began, skipped = time.monotonic(), Counter[str]()
    pictures = some_readable(find_pictures(options.inputs, urls=options.urls, skipped=skipped))
    for note in _notes(options.model):
        print(f"note: {note}", file=sys.stderr)
    score = _score_here if options.shards is None else _score_shards
    return _close(score(options, pictures, limits), skipped, began)


def _notes(model: str) -> list[str]:
    """Return the notes to print first: how a scorer compares with its model's answers, or a model's warning."""
    if is_scorer(model):
        return stated(model)
    warning = find_model(model, "--model")[1].warning()
    return [warning] if warning else []


def _check(options: argparse.Namespace) -> None:
    """Raise InputError for options that are impossible or do not go together."""
    require(options.samples is None or options.samples >= 1, "--samples", options.samples, "must be at least 1")
    require(0 < options.url_mb < 1e6, "--url-mb", options.url_mb, "must be above 0 and below 1000000")
    require(0 < options.url_seconds < 1e6, "--url-seconds", options.url_seconds, "must be above 0 and below 1000000")
    sorted_or_not = options.sort is not None or not options.reverse
    require(sorted_or_not, "--reverse", "true", "turns --sort round; give --sort, too")
    used = options.best_of or options.alike == SAME_SCENE_BITS
    require(used, "--alike", options.alike, "is for --best-of; give --best-of, too")
    require(0 <= options.alike < 32, "--alike", options.alike, "must be a number of bits in 0..31")
    for url in options.url:
        address_rule("--url", url, "give the server's address, as --url http://127.0.0.1:8100")
    require(options.shards != "", "--shards", "", "must name a folder; . is the current one")
    if is_scorer(options.model):
        rule = "a scorer has no words and samples nothing; leave it out"
        for key, unused in (("samples", None), ("seed", 0), ("url", [])):
            value = getattr(options, key)
            require(value == unused, f"--{key}", value, rule)
        require(options.sort != "agreement", "--sort", "agreement", "a scorer has no words; give score or path")
    for key in ("sort", "shards") if options.best_of else ():
        value = getattr(options, key)
        require(value is None, f"--{key}", value, f"cannot be combined with --best-of; leave --{key} out")
    if options.shards is not None:
        require(not options.url, "--url", options.url, "Ray's workers have models of their own; leave --shards out")
        require(options.format in (None, "jsonl"), "--format", options.format, "shards are jsonl; leave it out")
        require(options.sort is None, "--sort", options.sort, "shards keep the order of their list; leave it out")
        require(options.shard_size >= 1, "--shard-size", options.shard_size, "must be at least 1")
        require(options.workers >= 1, "--workers", options.workers, "must be at least 1")


def _score_shards(options: argparse.Namespace, paths: Iterable[str | PictureError], limits: UrlLimits | None) -> Scored:
    """Score `found` through Ray into the folder --shards, and print its name."""
    from aes_r1.scoring.shards import score_shards

    out = place(options.shards, "--shards")
    counts, unreadable = score_shards(
        paths,
        out,
        model=options.model,
        samples=options.samples,
        seed=options.seed,
        limits=limits,
        shard_size=options.shard_size,
        workers=options.workers,
    )
    print(out)
    return Scored(counts, unreadable)


def _score_here(options: argparse.Namespace, paths: Iterable[str | PictureError], limits: UrlLimits | None) -> Scored:
    """Score `paths` in this process, or with the servers --url, and write the rows to stdout."""
    # With --best-of a picture that is named twice counts once, because it is no second take of itself. The pictures are
    # listed before the model is loaded, which is slow.
    listed = list(named_once(paths) if options.best_of else paths)
    sampling = {"samples": options.samples, "seed": options.seed}
    critic = Critic.at(options.url, options.model, **sampling) if options.url else load_any(options.model, **sampling)
    counts, unreadable, chosen = Counter[str](), list[PictureError](), list[Row]()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # file names may be any bytes
    at_once = AT_ONCE * len(options.url) or 1
    form = options.format or "table"
    with stop_requests() as stop:
        verdicts = _verdicts(listed, critic, limits, unreadable, at_once=at_once, hashed=options.best_of)
        rows: Iterable[Row] = _counted(_until_stopped(verdicts, stop, counts), counts)
        if options.best_of:
            rows = chosen = group_takes(list(rows), within=options.alike)
        elif options.sort is not None:
            rows = sorted_rows(rows, options.sort, reverse=options.reverse)
        write_verdict_rows(rows, form, sys.stdout, chosen=options.best_of, **critic.shown)
    if form == "table" and any(row["best"] is not None for row in chosen):
        print(MEANING)
    return Scored(counts, unreadable, chosen, len(listed))


def _close(scored: Scored, skipped: Counter[str], began: float) -> int:
    """Print what could not be read and the closing lines to stderr; return the exit code.

    began: the value of time.monotonic() when the command began.
    """
    counts, unreadable, chosen, listed = scored
    for error in unreadable:
        print(f"aes_r1: {printable(str(error))}", file=sys.stderr)
    closing = [*summary(counts, unreadable, skipped, time.monotonic() - began), *kept_summary(chosen)]
    for line in closing:
        print(line, file=sys.stderr)
    if counts["interrupted"]:
        print(f"aes_r1: interrupted; {counts['pictures']} of {listed} scored", file=sys.stderr)
    return 1 if unreadable or counts["interrupted"] else 0


def _until_stopped(rows: Iterable[Row], stop: StopRequest, counts: Counter[str]) -> Iterator[Row]:
    """Yield `rows` up to a stop signal, which is counted as "interrupted": what was scored before it is not lost."""
    for row in rows:
        yield row
        if stop:
            counts["interrupted"] += 1
            return


def _counted(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    """Yield `rows` and count them in `counts`: all as "pictures", those without a score as "unanswered"."""
    for row in rows:
        counts.update(count_of(row))
        yield row


def summary(
    counts: Mapping[str, int], unreadable: Sequence[PictureError], skipped: Counter[str], seconds: float
) -> Iterator[str]:
    """Yield the closing lines: what was scored, in how long, what could not be read and why, what was skipped."""
    pictures, unanswered = counts["pictures"], counts["unanswered"]
    without_answer = f", {unanswered} of them without an answer that can be read" if unanswered else ""
    yield f"scored: {pictures} picture{'s' * (pictures != 1)} in {seconds:.0f} s{without_answer}"
    if unreadable:
        reasons = Counter(error.reason.partition(";")[0] for error in unreadable).most_common()
        most_common = ", ".join(f"{reason} ({count})" for reason, count in reasons[:_MAX_REASONS])
        further = f" and {len(reasons) - _MAX_REASONS} other reasons" if len(reasons) > _MAX_REASONS else ""
        yield f"not scored: {len(unreadable)}, listed above: {most_common}{further}"
    if skipped:
        yield f"passed over: {skipped_line(skipped)}"


def _verdicts(
    pictures: list[str | PictureError],
    critic: Critic | Scorer,
    limits: UrlLimits | None,
    unreadable: list[PictureError],
    *,
    at_once: int,
    hashed: bool,
) -> Iterator[dict]:
    """Yield the rows of what can be read, in order; at_once: pictures that are asked about at the same time.

    hashed: whether rows have the key "hash", the picture's perceptual hash.
    """

    def judged(picture: str | PictureError) -> dict | PictureError:
        if isinstance(picture, PictureError):
            return picture
        try:
            opened = read_picture(picture, limits)
            row = critic.row(picture, opened)
            return {**row, "hash": perceptual_hash(opened)} if hashed else row
        except PictureError as error:
            return error

    time_columns = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), MofNCompleteColumn(), *time_columns)
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False), transient=True) as bar:
        rows = map(judged, pictures) if at_once == 1 else prefetch(pictures, judged, workers=at_once, ahead=at_once)
        for row in bar.track(rows, total=len(pictures), description="scoring"):
            if isinstance(row, PictureError):
                unreadable.append(row)
            else:
                yield row


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 score",
        usage="aes-r1 score PICTURE [PICTURE ...] --model DIR [options]",
        description="Score pictures with a trained model. Results go to stdout, progress to stderr.",
        examples=(
            "aes-r1 score photo.jpg folder/ --model RUN\n"
            "aes-r1 score folder/ --model RUN --format jsonl > scores.jsonl\n"
            "aes-r1 score burst/ --model RUN --best-of --format csv\n"
            "aes-r1 score folder/ --model RUN --shards OUT --workers 8"
        ),
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="PICTURE", help="a file, a folder, a quoted glob, or with --urls a URL")
    add("--model", required=True, metavar="DIR", help="a run, a model folder, an exported folder, a scorer or hub name")
    add("--url", action="append", default=[], metavar="URL", help="of a vLLM server of DIR (aes_r1.serve); repeatable")
    add("--format", choices=FORMATS, help="what stdout gets (default: table)")
    add("--sort", choices=SORTS, help=_SORT_HELP)
    add("--reverse", action="store_true", help="give the rows in the opposite order of --sort")
    add("--best-of", action="store_true", help="say which of alike pictures to keep, such as those of a burst")
    add(
        "--alike",
        type=int,
        default=SAME_SCENE_BITS,
        metavar="B",
        help="with --best-of: pictures whose hashes differ in at most B of 64 bits are alike "
        f"(default: {SAME_SCENE_BITS})",
    )
    add("--samples", type=int, metavar="N", help="completions per picture; 1: the likeliest (default: as evaluated)")
    add("--seed", type=int, default=0, help="of the sampling; the same seed gives the same scores (default: 0)")
    add("--urls", action="store_true", help="fetch http and https URLs; off by default")
    add("--url-mb", type=float, default=20.0, metavar="MB", help="largest download (default: 20)")
    add("--url-seconds", type=float, default=20.0, metavar="S", help="longest download (default: 20)")
    add("--shards", metavar="OUT", help="for millions: score through Ray into OUT/part-*.jsonl; resumable")
    add("--shard-size", type=int, default=1000, metavar="N", help="pictures in a shard (default: 1000)")
    add("--workers", type=int, default=2, metavar="N", help="Ray workers, each with a model (default: 2)")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()

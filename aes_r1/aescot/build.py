"""Build AesCoT: turn pictures with scores into critiques, each kept or rejected with reasons (method, stage 0).

Every decided picture is either in OUT/aescot.jsonl or in OUT/rejected.jsonl, in the order of the draw. These files are
replaced whole and together, at the end. OUT/calls.jsonl holds every answer of a model from the moment of its arrival. A
restart replays this journal, which costs nothing and gives the same decisions, and pays only for missing answers. A
start that a server or a price ceiling ends still decides every picture whose answers are in the journal, and never
leaves fewer decided pictures than before.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aes_r1.aescot.budget import CeilingReached
from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.decided import DECIDED, DecidedFiles
from aes_r1.aescot.expert import AttributesExpert, ChatExpert, Expert, PixelsExpert, ScenesExpert, known_mos
from aes_r1.aescot.failures import NoAnswer, ServerGone
from aes_r1.aescot.filters import FORM_FILTERS, form_reasons
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.judge import ChatJudge, Judge, ScenesJudge, misaligned
from aes_r1.aescot.near_copy import NearCopies
from aes_r1.aescot.quotas import Cell, QuotaSampler, read_quotas
from aes_r1.aescot.record import Reply, make_record
from aes_r1.aescot.report import Tally, calls_summary
from aes_r1.aescot.start import Recipe, check_roles, claim_output_folder, prompts_of
from aes_r1.data.sample import PictureError, Sample
from aes_r1.runs.files import iter_rows, read_json, write_json
from aes_r1.settings import PAPER_PIXELS, ExpertSettings, JudgeSettings

Progress = Callable[[int, int], None]  # takes the numbers of pictures decided and kept


@dataclass(frozen=True)
class Outcome:
    """Hold the result of examining a picture.

    reasons: {code: what was found} of every filter that rejects it. passed: the filters that ran and found nothing.
    text: the model's answer, where no reply could be read from it. planted: the error that the scenes expert made on
    purpose.
    """

    sample: Sample
    reply: Reply | None
    reasons: dict[str, str] = field(default_factory=dict)
    passed: tuple[str, ...] = ()
    text: str | None = None
    planted: str | None = None


def build_aescot(
    samples: Sequence[Sample],
    *,
    expert: ExpertSettings,
    judge: JudgeSettings,
    seed: int,
    out: Path,
    quotas: Mapping[str, Any] | None = None,
    max_pixels: int = PAPER_PIXELS,
    progress: Progress | None = None,
    listed: Sequence[Sample] | None = None,
) -> Path:
    """Write `out`/aescot.jsonl, rejected.jsonl and distill_report.json; returns the first.

    samples: pictures with mos, asked about once each, or until `quotas` ({level: n} or {data set: {level: n}}) are
    full. max_pixels: area of a picture as an API model sees it. listed: `samples` and the pictures that were left out
    because they cannot be read; a later start that can read them continues in the same folder. Raises InputError for
    impossible settings or the folder of another distillation, ServerGone when a server stops answering. The report says
    when a price ceiling was reached.
    """
    cells = read_quotas(quotas or {})
    check_roles(samples, expert, judge)
    started = time.monotonic()
    with ExitStack() as stack:
        begun = claim_output_folder(
            out,
            samples if listed is None else listed,
            Recipe(expert, judge, seed, quotas or {}, max_pixels),
            stack=stack,
            readable=samples,
        )
        paid = [settings for settings in (expert, judge) if settings.name == "openai"]
        journal = stack.enter_context(Journal(out / "calls.jsonl")) if paid else None
        chats = {} if journal is None else {settings.group: ChatModel(settings, journal) for settings in paid}
        job = _Distillation(
            expert=_expert(expert, begun, seed, max_pixels, chats.get("expert")),
            judge=_judge(judge, max_pixels, chats.get("judge")),
            settings=expert,
            tolerance=judge.tolerance,
            draw=QuotaSampler(samples, cells, seed, listed=begun),
            tally=Tally(seed),
            copies=NearCopies(expert.near_copy),
            window=4 * max(expert.max_concurrency, judge.max_concurrency),
            files=DecidedFiles(out, (*DECIDED, "plants.jsonl") if expert.name == "scenes" else DECIDED),
            journal=journal,
            chats=chats,
            progress=progress,
        )
        asyncio.run(job.run())
        report = {
            **job.tally.summary(),
            **_report_of_run(job, samples),
            "wall_seconds": round(time.monotonic() - started, 3),
            "expert": expert.model or expert.name,
            "judge": judge.model or judge.name,
            "prompts": prompts_of(expert, judge),
        }
        if expert.name == "scenes":
            report["plants"] = job.tally.plants()
        if job.stopped is None or job.files.hold_as_many_as_before():
            job.files.put_in_place(report)
        else:
            job.files.drop()
            report = {**_report_before(out, report, job, cells), "stopped": job.stopped, "calls": report["calls"]}
            write_json(out / "distill_report.json", report)
        if job.failure is not None:
            raise job.failure
    return out / "aescot.jsonl"


@dataclass
class _Distillation:
    expert: Expert
    judge: Judge | None
    settings: ExpertSettings
    tolerance: float
    draw: QuotaSampler
    tally: Tally
    copies: NearCopies
    window: int  # pictures examined at once; decisions keep the order of the pictures
    files: DecidedFiles
    journal: Journal | None
    chats: Mapping[str, ChatModel]  # by group: expert, judge
    progress: Progress | None
    stopped: str | None = None
    failure: ServerGone | None = None
    examined: set[tuple[str, str]] = field(default_factory=set)  # (data set, id) of the pictures in flight
    unread: set[tuple[str, str]] = field(init=False)  # pictures with answers of an earlier start, not yet examined
    first_reasons: dict[str, str] = field(default_factory=dict)  # for each code, what was found the first time

    def __post_init__(self) -> None:
        self.unread = set(self.journal.pictures) if self.journal is not None else set()

    async def run(self) -> None:
        """Decide pictures until none is left to draw; once stopped, only those with answers from an earlier start."""
        while self._goes_on() and (drawn := self.draw.next_round()):
            await self._round(drawn)

    def _goes_on(self) -> bool:
        return self.stopped is None or bool(self.unread)

    def _next(self, remaining: Iterator[Sample]) -> Sample | None:
        """Return the next picture to examine, or None if the draw has none left."""
        if not self._goes_on():
            return None
        return next((one for one in remaining if self.stopped is None or (one.dataset, one.id) in self.unread), None)

    def _stop(self, error: CeilingReached | ServerGone) -> None:
        """Make no paid calls for further pictures; at a price ceiling the judge may still finish those in flight.

        The expert begins no calls for those either.
        """
        if isinstance(error, ServerGone):
            self.failure = self.failure or error
            self.stopped = str(self.failure)
            for chat in self.chats.values():
                chat.close(error, cancel=True)
        elif self.stopped is None:
            self.stopped = f"price ceiling: {error}"
            for group, chat in self.chats.items():
                chat.close(error, cancel=False, finishing=self.examined if group == "judge" else ())

    async def _round(self, drawn: Iterable[Sample]) -> None:
        """Examine pictures concurrently and decide them in order; those that can no longer be decided are left out."""
        waiting = deque[asyncio.Task[Outcome]]()
        remaining = iter(drawn)

        def note_failure(task: asyncio.Task[Outcome]) -> None:
            # Any task may learn that the server is gone, while the first one still waits for its next try.
            if not task.cancelled() and isinstance(error := task.exception(), ServerGone):
                self._stop(error)

        try:
            while True:
                while len(waiting) < self.window and (sample := self._next(remaining)) is not None:
                    self.unread.discard((sample.dataset, sample.id))
                    waiting.append(asyncio.create_task(self._examine(sample)))
                    waiting[-1].add_done_callback(note_failure)
                if not waiting:
                    return
                try:
                    outcome = await waiting.popleft()
                except (CeilingReached, ServerGone) as error:
                    self._stop(error)
                else:
                    self._decide(outcome)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _examine(self, sample: Sample) -> Outcome:
        """Ask the expert, then apply every filter; a judge is asked only about a reply that no other filter rejects."""
        self.examined.add((sample.dataset, sample.id))
        try:
            return await self._outcome(sample)
        finally:
            self.examined.discard((sample.dataset, sample.id))

    async def _outcome(self, sample: Sample) -> Outcome:
        try:
            attempt = await self.expert.attempt(sample)
        except NoAnswer as error:
            return Outcome(sample, None, {"no_answer": str(error)})
        except PictureError as error:
            return Outcome(sample, None, {"picture": str(error)})
        reply = attempt.reply
        if reply is None:
            return Outcome(sample, None, attempt.reasons, text=attempt.text)
        mos = known_mos(sample)
        reasons = form_reasons(reply, mos, min_words=self.settings.min_words, max_words=self.settings.max_words)
        passed = tuple(name for name in FORM_FILTERS if name not in reasons)
        if not reasons and self.judge is not None:
            reasons, checked = await self._judged(sample, reply, mos, self.judge)
            passed += checked
        return Outcome(sample, reply, reasons, passed, planted=attempt.planted)

    async def _judged(
        self, sample: Sample, reply: Reply, mos: float, judge: Judge
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return why the judge rejects a reply, and which of its checks found nothing."""
        passed: tuple[str, ...] = ()
        try:
            alignment = await judge.align(sample, reply)
            if alignment is None:
                return {"no_verdict": "align"}, passed
            contradiction = misaligned(alignment, mos, self.tolerance)
            if contradiction is not None:
                return {"align": contradiction}, passed
            passed = ("align",)
            facts = await judge.fact(sample, reply)
        except NoAnswer as error:
            return {"no_answer": f"judge: {error}"}, passed
        except PictureError as error:
            return {"picture": str(error)}, passed
        if facts is None:
            return {"no_verdict": "fact"}, passed
        if facts.unsupported_claims:
            return {"fact": "; ".join(facts.unsupported_claims)}, passed
        return {}, ("align", "fact")

    def _decide(self, outcome: Outcome) -> None:
        """Keep or reject an examined picture, by one write to its file."""
        sample, reply, reasons, passed = outcome.sample, outcome.reply, dict(outcome.reasons), outcome.passed
        row = make_record(sample, reply, expert=self.expert.name, prompt_sha256=self.expert.prompt_sha256)
        if reply is not None and not reasons and self.settings.near_copy is not None:
            near_copy = self.copies.find(reply.critique)
            if near_copy is not None:
                reasons["near_copy"] = f"{near_copy[1]:.2f} like {near_copy[0]}"
            else:
                passed += ("near_copy",)
        for code, finding in reasons.items():
            self.first_reasons.setdefault(code, finding[:200])
        if reasons:
            answer = {} if outcome.text is None else {"answer": outcome.text}
            found = {"reasons": list(reasons), "details": reasons, "passed": list(passed)}
            self.files.append("rejected.jsonl", {**row, **found, **answer})
        else:
            assert reply is not None
            self.files.append("aescot.jsonl", row)
            self.copies.add(sample.id, reply.critique)
            self.draw.keep(sample)
        if outcome.planted is not None:
            self.files.append("plants.jsonl", {"id": sample.id, "planted": outcome.planted, "reasons": list(reasons)})
        self.tally.add(row, reasons, passed, outcome.planted)
        if self.progress is not None:
            decided = self.tally.kept["pictures"] + self.tally.rejected["pictures"]
            self.progress(decided, self.tally.kept["pictures"])


def _report_of_run(job: _Distillation, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the entries of distill_report.json about pictures, quotas and calls."""
    decided = job.tally.kept["pictures"] + job.tally.rejected["pictures"]
    return {
        "pictures": {"given": len(samples), "decided": decided},
        "shortfalls": job.draw.shortfalls(),
        "stopped": job.stopped,
        "calls": calls_summary(job.journal.rows()) if job.journal else {},
        "mended": {group: dict(sorted(chat.mended.items())) for group, chat in job.chats.items()},
        "first_reasons": job.first_reasons,
    }


def _report_before(
    out: Path, report: Mapping[str, Any], job: _Distillation, cells: Mapping[Cell, int]
) -> dict[str, Any]:
    """Return the report on the files that stay in `out`.

    The earlier report may be missing after a kill, or may lack entries that its program version did not write. Missing
    entries are counted from the files or, if the files do not hold them, taken from the `report` of this start.
    """
    path = out / "distill_report.json"
    before = read_json(path) if path.exists() else {}
    if report.keys() <= before.keys():
        return before
    tally, draw, first_reasons = Tally(job.tally.seed), QuotaSampler((), cells, job.tally.seed), dict[str, str]()
    planted = {row["id"]: row["planted"] for row in iter_rows(out / "plants.jsonl")}
    checked = (*FORM_FILTERS, *(("align", "fact") if job.judge is not None else ()))
    checked += ("near_copy",) if job.settings.near_copy is not None else ()
    for row in iter_rows(out / "aescot.jsonl"):
        tally.add(row, (), checked, planted.get(row["id"]))
        draw.keep(Sample(row["id"], row["image"], row["mos"], row["dataset"], "train"))
    for row in iter_rows(out / "rejected.jsonl"):
        tally.add(row, row["reasons"], row.get("passed", ()), planted.get(row["id"]))
        for code, finding in row.get("details", {}).items():
            first_reasons.setdefault(code, finding[:200])
    counted = {
        **tally.summary(),
        **({"plants": tally.plants()} if "plants" in report else {}),
        "pictures": {**report["pictures"], "decided": tally.kept["pictures"] + tally.rejected["pictures"]},
        "shortfalls": draw.shortfalls(),
        "first_reasons": first_reasons,
    }
    return {**report, **counted, **before}


def _expert(
    settings: ExpertSettings, samples: Sequence[Sample], seed: int, max_pixels: int, chat: ChatModel | None
) -> Expert:
    if settings.name == "scenes":
        return ScenesExpert(settings, seed)
    if settings.name == "pixels":
        return PixelsExpert(seed)
    if settings.name == "attributes":
        return AttributesExpert(samples, seed)
    assert chat is not None
    return ChatExpert(chat, max_pixels)


def _judge(settings: JudgeSettings, max_pixels: int, chat: ChatModel | None) -> Judge | None:
    if settings.name == "none":
        return None
    if settings.name == "scenes":
        return ScenesJudge()
    assert chat is not None
    return ChatJudge(chat, max_pixels)

"""Call a model through litellm, with limits, retries, prices, and a journal of every answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

from aes_r1.aescot.answers import Answer, AnswerText, ReadAnswer, answer_text, permanent_failure
from aes_r1.aescot.budget import Budget, TokenBucket
from aes_r1.aescot.failures import AccessRefused, NoAnswer, ServerGone
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.provider import (
    affordable_price,
    bypass_proxy_for_loopback,
    check_certificates,
    key_of,
    litellm_library,
    litellm_name,
    without_keys,
)
from aes_r1.aescot.question import data_url, picture_tokens, tokens_in
from aes_r1.data.contents import sha256_of_picture
from aes_r1.data.sample import Sample
from aes_r1.runs.identity import fingerprint
from aes_r1.settings import ChatSettings

FAILURES_IN_A_ROW = 20  # after this many failed calls in a row the server counts as gone
UNREADABLE_IN_A_ROW = 20  # after this many unreadable answers in a row, no question is repeated
# The row that the journal gets in place of a further answer, when the question is given up.
GIVEN_UP = {"given_up": True, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0, "seconds": 0.0}


class ChatModel:
    """Ask the model of an expert or judge. Calls beyond its limits wait; answers in the journal cost nothing."""

    def __init__(self, settings: ChatSettings, journal: Journal) -> None:
        self.settings, self.journal = settings, journal
        self.model = litellm_name(settings)
        self.price = affordable_price(settings)
        spent, longest = 0.0, dict[str, int]()
        for row in journal.rows():
            if row["group"] == settings.group:
                spent += self._usd_of(row)
                if row["prompt_tokens"]:
                    longest[row["role"]] = max(longest.get(row["role"], 0), row["prompt_tokens"])
        self.budget = Budget(settings.max_usd, self.price, spent=spent, max_tokens=settings.max_tokens, longest=longest)
        self._requests = TokenBucket(settings.requests_per_minute)
        self._tokens = TokenBucket(settings.tokens_per_minute)
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._reading = asyncio.Lock()  # pictures are read one after the other, so that calls keep their order
        self._failures = 0
        self._unreadable = 0
        self._router: Any = None
        self._closed: Exception | None = None
        self._finishing: Collection[tuple[str, str]] = ()  # pictures that may be asked about even after close()
        self._in_flight = set[asyncio.Task[dict[str, Any]]]()
        self.mended = Counter[str]()

    def close(self, reason: Exception, *, cancel: bool, finishing: Collection[tuple[str, str]] = ()) -> None:
        """Make no further paid calls: a question without an answer in the journal raises `reason`.

        cancel: end the calls in flight. finishing: (data set, id) of pictures for which calls are still made.
        """
        self._closed, self._finishing = self._closed or reason, frozenset(finishing)
        for call in list(self._in_flight) if cancel else ():
            call.cancel()

    def _usd_of(self, row: dict[str, Any]) -> float:
        """Return the cost of an answer in US dollars; without a recorded cost, that of the current price."""
        if row["usd"] is not None:
            return row["usd"]
        return 0.0 if self.price is None else self.price.of(row["prompt_tokens"], row.get("completion_tokens") or 0)

    async def ask(
        self,
        role: str,
        sample: Sample,
        prompt: str,
        *,
        picture: bool,
        max_pixels: int,
        schema: dict[str, Any],
        read: ReadAnswer = lambda _: (),
    ) -> Answer:
        """Return the model's answer to `prompt` about a sample.

        If `read` cannot use an answer, the model is asked again, up to `retries` times, and no longer after
        UNREADABLE_IN_A_ROW such answers of any questions; the last answer is returned. The journal notes that the
        question was given up, so that a later start does not ask it again. The journal's key holds everything that
        decides the answer, so that nothing is bought twice: also the content of the picture's file, not its path. In
        journals of older versions the key has no content, so their answers are used whatever the file holds now.
        Raises NoAnswer, PictureError, CeilingReached, ServerGone or InputError.
        """
        settings = self.settings
        asked = (role, sample.dataset, sample.id, self.model, settings.api_base)
        limits = (max_pixels, settings.temperature, settings.max_tokens)
        # Older versions put one of these into the journal's key in place of the picture's contents.
        older, contents = (True, sample.image) if picture else (None,), None

        def key_of_try(number: int, picture_named: object) -> str:
            return fingerprint(*asked, (prompt, picture_named, *limits), *((number,) if number else ()))

        for attempt in range(settings.retries + 1):
            known = next(filter(None, (self.journal.get(key_of_try(attempt, one)) for one in older)), None)
            if known is None and picture and contents is None:
                async with self._reading:
                    contents = await asyncio.to_thread(sha256_of_picture, sample.image)
            key = key_of_try(attempt, contents if picture else False)
            known = known or self.journal.get(key)
            if known is None:
                async with self._slots:
                    if self._closed is not None and (sample.dataset, sample.id) not in self._finishing:
                        raise self._closed.with_traceback(None)  # one instance would collect the frames of all calls
                    if attempt and self._unreadable >= UNREADABLE_IN_A_ROW:
                        self.journal.append(key, {**self._subject(role, sample), **GIVEN_UP})
                        break
                    known = await self._bought(self._buy(key, role, sample, prompt, picture, max_pixels, schema))
            if known.get("given_up"):
                break
            source = known.get("source", "content")
            answer = Answer(known["text"], known["refused"], known.get("finish") == "length", source)
            mended = read(answer)
            if mended is not None:
                self._unreadable = 0
                self.mended.update((*mended, *(() if source == "content" else (source,))))
                self.mended.update(("asked again",) if attempt else ())
                return answer
            self._unreadable += 1
        self.mended["unreadable"] += 1
        return answer

    async def _bought(self, buying: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """Await a call that `close` can end, which then raises the reason."""
        call = asyncio.ensure_future(buying)
        self._in_flight.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed is None or (task is not None and task.cancelling()):
                raise
            raise self._closed.with_traceback(None) from None
        finally:
            self._in_flight.discard(call)

    async def _buy(
        self, key: str, role: str, sample: Sample, prompt: str, picture: bool, max_pixels: int, schema: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask the server; return the journal's row, which is written as soon as the answer has arrived."""
        import openai  # litellm's exceptions are its subclasses

        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        estimate = tokens_in(prompt)
        if picture:
            url, size = await asyncio.to_thread(data_url, sample.image, max_pixels)
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
            estimate += picture_tokens(*size)
        reserved = await self.budget.hold(role, estimate)
        try:
            await self._tokens.take(estimate + self.settings.max_tokens / 2)
            started = time.monotonic()
            try:
                response = await self._complete([{"role": "user", "content": content}], schema)
            finally:
                seconds = time.monotonic() - started
        except openai.OpenAIError as error:
            if type(error).__name__ != "ContentPolicyViolationError":
                await self.budget.settle(role, reserved)
                raise self._failure(error) from error
            row = self._row(role, sample, AnswerText("", True), 0, 0, seconds)
        except BaseException:
            await self.budget.settle(role, reserved)
            raise
        else:
            row = self._row_of_response(role, sample, response, seconds, estimate)
        self._failures = 0
        self.journal.append(key, row)
        await self.budget.settle(role, reserved, prompt_tokens=row["prompt_tokens"], usd=row["usd"] or 0.0)
        return row

    async def _complete(self, messages: list[dict[str, Any]], schema: dict[str, Any]) -> Any:
        settings = self.settings
        extra = {"response_format": schema} if self._wants_schema() else {}
        response = await self._litellm_router().acompletion(
            model=settings.group,
            messages=messages,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            **extra,
        )
        if response is None:
            import openai

            raise openai.OpenAIError("neither answer nor error, as litellm makes of status 422; see the server's log")
        return response

    def _litellm_router(self) -> Any:
        if self._router is None:
            litellm = litellm_library()
            settings = self.settings
            check_certificates()
            bypass_proxy_for_loopback(settings.api_base)
            target: dict[str, Any] = {"model": self.model, "api_key": key_of(settings), "max_retries": 0}
            if settings.api_base:
                target["api_base"] = settings.api_base
            self._router = litellm.Router(
                model_list=[{"model_name": settings.group, "litellm_params": target}],
                num_retries=settings.retries,
                timeout=settings.timeout_s,
                disable_cooldowns=True,  # with one deployment a cooldown would fail every call in flight
            )
            self._router.make_call = partial(self._paced_call, self._router.make_call)
        return self._router

    async def _paced_call(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Await one request of the router within the rate limit; a permanent failure ends all further calls."""
        import openai

        await self._requests.take()  # retries count as requests too
        try:
            return await call(*args, **kwargs)
        except openai.OpenAIError as error:
            reason = permanent_failure(error)
            if reason is None:
                raise
            self._closed = refusal = self._refused(reason, error)
            self._finishing = ()
            raise refusal from error

    def _wants_schema(self) -> bool:
        if self.settings.response_format != "auto":
            return self.settings.response_format == "always"
        return bool(litellm_library().supports_response_schema(model=self.model))

    def _row_of_response(
        self, role: str, sample: Sample, response: Any, seconds: float, estimate: int
    ) -> dict[str, Any]:
        choice = response.choices[0] if response.choices else None
        text = answer_text(choice)
        usage = getattr(response, "usage", None)
        prompt_tokens = _counted(usage, "prompt_tokens") or estimate
        completion_tokens = _counted(usage, "completion_tokens") or tokens_in(text.text)
        return self._row(role, sample, text, prompt_tokens, completion_tokens, seconds)

    def _row(
        self, role: str, sample: Sample, text: AnswerText, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> dict[str, Any]:
        usd = None if self.price is None else self.price.of(prompt_tokens, completion_tokens)
        return {
            **self._subject(role, sample),
            "text": text.text,
            "refused": text.refused,
            "source": text.source,
            "finish": text.finish,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "usd": usd,
            "seconds": round(seconds, 3),
        }

    def _subject(self, role: str, sample: Sample) -> dict[str, Any]:
        return {
            "group": self.settings.group,
            "role": role,
            "dataset": sample.dataset,
            "id": sample.id,
            "model": self.settings.model,
        }

    def _failure(self, error: Exception) -> Exception:
        """Return NoAnswer for a single failed call, ServerGone after FAILURES_IN_A_ROW of them."""
        self._failures += 1
        reason = f"{type(error).__name__}: {self._error_line(error)}"
        if self._failures >= FAILURES_IN_A_ROW:
            where = self.settings.api_base or self.settings.model
            return ServerGone(f"{where} gave no answer {self._failures} times in a row (last: {reason})")
        return NoAnswer(reason)

    def _refused(self, reason: str, error: Exception) -> AccessRefused:
        settings = self.settings
        where = settings.api_base or settings.model
        return AccessRefused(f"{settings.group}.model={settings.model}: {where} {reason} ({self._error_line(error)})")

    def _error_line(self, error: Exception) -> str:
        """Return the first line of an error, without keys and without the prefix litellm."""
        text = without_keys(str(error), self.settings).split("Traceback (most")[0].strip()
        return (text.splitlines() or [""])[0].replace("litellm.", "")[:200]


def _counted(usage: Any, name: str) -> int:
    """Return the number of tokens that a server reported; 0 if it reported none or an impossible number."""
    count = getattr(usage, name, 0)
    return count if isinstance(count, int) and count > 0 else 0

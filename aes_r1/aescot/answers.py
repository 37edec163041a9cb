"""Extract the text of a server's answer, and distinguish permanent failures from temporary ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Hold a model's answer.

    text: empty when the model refused. cut: whether it ran out of tokens. source: as in AnswerText.
    """

    text: str
    refused: bool
    cut: bool
    source: str = "content"

    @property
    def decided_text(self) -> str:
        """Return the text; empty if the model ran out of tokens in its reasoning, before it decided anything."""
        return "" if self.cut and self.source == "reasoning" else self.text


# A function that returns the repairs by which an answer could be read, as names, or None where it cannot be read.
ReadAnswer = Callable[[Answer], tuple[str, ...] | None]


@dataclass(frozen=True)
class AnswerText:
    """Hold the text of a server's answer, and the field that held it (source: content, tool_call or reasoning)."""

    text: str
    refused: bool = False
    source: str = "content"
    finish: str | None = None


def answer_text(choice: Any) -> AnswerText:
    """Return the text of `choice`, the first one of a server's response, wherever the server put it.

    The server of a reasoning model may leave `content` empty and answer inside its reasoning; another may call a tool
    whose arguments are the requested object.
    """
    message = choice.message if choice else None
    if message is None:
        return AnswerText("")
    finish = str(choice.finish_reason) if choice.finish_reason else None
    fields = getattr(message, "provider_specific_fields", None) or {}
    calls = [call.function for call in message.tool_calls or []] or [message.function_call]
    texts = {
        "content": message.content,
        "tool_call": next((call.arguments for call in calls if call is not None), None),
        "reasoning": getattr(message, "reasoning_content", None) or fields.get("reasoning"),
    }
    refused = not texts["content"] and bool(fields.get("refusal") or finish == "content_filter")
    for source, text in texts.items():
        if isinstance(text, str) and text.strip() and not refused:
            return AnswerText(text, False, source, finish)
    return AnswerText("", refused, "content", finish)


_NO_MONEY = re.compile(
    r"insufficient[ _](?:quota|balance|funds|credits?)|credit balance is too low|payment required|out of credits?"
    r"|billing_(?:hard_limit|not_active)",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|no such model|unknown model|invalid model|model[^.]{0,80}(?:not found|does not exist|not exist)"
    r"|not a valid model",
    re.IGNORECASE,
)
_PAGE = re.compile(r"<!doctype html|<html", re.IGNORECASE)
_NO_JSON = "Empty or invalid response from LLM endpoint"  # litellm's message for a reply 200 that is no JSON


def permanent_failure(error: Exception) -> str | None:
    """Return why every further call would fail too, with advice; None if another try may help."""
    code, text = getattr(error, "status_code", None), str(error)
    cause: BaseException | None = error
    while cause is not None:  # the server's own status code is not in litellm's text
        text += f" {getattr(cause, 'code', None)} {getattr(cause, 'type', None)}"
        cause = cause.__cause__ or cause.__context__
    page = _PAGE.search(text) is not None
    if page and (_NO_JSON in text or (isinstance(code, int) and code < 500)):
        return "answers with a web page, a proxy's or a login's; give the address of the API, or set NO_PROXY"
    if code == 402 or (code in (400, 403, 429) and _NO_MONEY.search(text)):
        return "has no money left for this key; top it up"
    if code == 404 or (code == 400 and _NO_MODEL.search(text)):
        return "knows no such model or address; mend model or api_base"
    if code in (401, 403, 407):
        return "refused the call; give the right key in the environment"
    return None

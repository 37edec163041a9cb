"""Read the messages of a row of reasoning data: which one is the answer, whether it is the only one, what it shows."""

from __future__ import annotations

import re
from typing import Any

from aes_r1.data.label_columns import SPLITS
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.settings import InputError

TURNS = ("messages", "conversations", "conversation")
_QUESTIONS = ("prompt", "query", "question", "instruction", "input")
ANSWERS = ("completion", "response", "output", "answer")
IMAGES = ("images", "image", "image_path", "image_url")
_INSIDE = ("base64", "bytes", "source", "inline_data")  # of a part of a message that holds the picture itself
# Keys by which other tools take a row, or a message of it, out of training: by a false or 0, and by a true or 1.
_LEARNED = ("label", "kto_tag", "loss", "loss_scale", "weight", "train", "training")
_WEIGHTS = ("loss", "loss_scale", "weight")
_NOT_LEARNED = ("mask", "masked")
_SCORE = re.compile(r"<answer>\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.IGNORECASE)


def require_learned(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a row, or the message that is its answer, is marked as not to be learned, or in part.

    Every row is taught in whole as a good answer, and so would one be that is kept as a bad example (KTO), for its
    question, or with a weight of its own. A row of another split than train would be measured later.
    """
    split = row.get("split")
    if isinstance(split, str) and SPLITS.get(split.strip().lower(), "train") != "train":
        raise InputError(f"{where}: split={split[:40]} keeps it out of training; take the row out, or rename the key")
    ends = [row[key][-1] for key in (*TURNS, *ANSWERS) if isinstance(row.get(key), list) and row[key]]
    for part in (row, *(end for end in ends if isinstance(end, dict))):
        marks = [key for key in _LEARNED if _means_no(part.get(key))]
        marks += [key for key in _NOT_LEARNED if _means_yes(part.get(key))]
        if marks:
            raise InputError(
                f"{where}: {marks[0]}={repr(part[marks[0]])[:40]} marks it as not to be learned; take the row out, or "
                "rename the key if it means something else"
            )
        weights = [key for key in _WEIGHTS if _is_part(part.get(key))]
        if weights:
            raise InputError(
                f"{where}: {weights[0]}={repr(part[weights[0]])[:40]} is a weight, but every row is taught in whole; "
                "set it to 1 or take the row out, or rename the key if it means something else"
            )


_OURS = "write the row as {'image': its path, 'completion': the answer}"


def way_to_ours(row: dict[str, Any]) -> str:
    """Return what a row of another tool's format is and how to write it in ours; nothing for any other row."""
    inside = next((row[key] for key in ("response", "result", "body") if isinstance(row.get(key), dict)), row)
    pairs = {"chosen", "rejected"} & row.keys()
    several = [key for key in row if re.fullmatch(r"(?:response|completion|answer)(?:s|_?[0-9a-f])", key)]
    if pairs:
        return f"; {' and '.join(sorted(pairs))} are of a pair of preferences (TRL); {_OURS} that was chosen"
    if "method" in row and "url" in row:
        return f"; it is a request of a batch, without an answer; {_OURS} to it"
    if inside is not row or {"choices", "candidates"} & row.keys():
        key = next((key for key, value in row.items() if value is inside), None)
        named = f"{key} is" if key else "it is"
        return f"; {named} a server's reply, which names no picture; {_OURS}, the text of the reply"
    if "contents" in row:
        return "; contents are messages of Gemini; write messages of role user and assistant, and the picture as image"
    if several:
        return f"; {' and '.join(several[:3])} are several answers; {_OURS} to be learned"
    if {"solution", "ground_truth"} & row.keys():
        return f"; it has a solution to be compared with, and no answer to learn; {_OURS}"
    return ""


def require_one_answer(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a conversation and another one, or an answer beside it, end in different answers.

    Only what is in the format of an answer counts: a bare score, say, may stand beside a conversation.
    """
    answers = {key: (parse_score(text), parse_critique(text)) for key, text in _ends(row).items()}
    whole = {key: said for key, said in answers.items() if None not in said}
    if len(set(whole.values())) > 1 and any(key in row for key in TURNS):
        raise InputError(f"{where}: two answers ({', '.join(whole)}); keep one")


def require_its_answer(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a conversation or an answer beside a record says another score or critique than it.

    The score counts wherever it stands in its tags, and may be rounded to two decimals.
    """
    for key, text in _ends(row).items():
        score, critique = _SCORE.search(text), parse_critique(text)
        other_score = score is not None and abs(float(score[1]) - row["mos"]) > 0.005 + 1e-9
        if other_score or (critique is not None and critique.split() != row["critique"].split()):
            raise InputError(f"{where}: two answers (mos and critique, {key}); keep one")


def _ends(row: dict[str, Any]) -> dict[str, str]:
    """Return the last text of every conversation and answer of a row, by its key."""
    return {
        key: text_of(row[key][-1]) if isinstance(row[key], list) else row[key]
        for key in (*TURNS, *ANSWERS)
        if isinstance(row.get(key), str | list) and row[key]
    }


def _means_no(mark: Any) -> bool:
    if isinstance(mark, str):
        return mark.strip().lower() in ("false", "no", "0", "0.0")
    return isinstance(mark, int | float) and mark <= 0


def _is_part(mark: Any) -> bool:
    try:
        weight = float(mark) if isinstance(mark, int | float | str) else 1.0
    except ValueError:  # a word
        return False
    return weight != 1 and weight > 0


def _means_yes(mark: Any) -> bool:
    if isinstance(mark, str):
        return mark.strip().lower() in ("true", "yes", "1", "1.0")
    return isinstance(mark, int | float) and mark > 0


def only_answer(row: dict[str, Any], where: str) -> list[Any] | None:
    """Return the messages of a row of prompt and answer, None where it has no answer; InputError where it has two."""
    answers = {key: row[key] for key in ANSWERS if isinstance(row.get(key), str | list)}
    filled = [key for key, value in answers.items() if (value.strip() if isinstance(value, str) else value)]
    if len({_answer_text(answers[key]) for key in filled}) > 1:
        raise InputError(f"{where}: two answers ({', '.join(filled)}); keep one")
    if not answers:
        return None
    key = (filled or list(answers))[0]
    turns = answers[key] if isinstance(answers[key], list) else [answers[key]]
    texts = sum(isinstance(turn, str) and bool(turn.strip()) for turn in turns)
    if texts > 1:
        raise InputError(f"{where}: two answers ({key} is a list of {texts} texts); keep one")
    return turns


def _answer_text(answer: str | list[Any]) -> str:
    """Return the text of an answer: itself, or that of the last of its messages."""
    return (answer if isinstance(answer, str) else text_of(answer[-1])).strip()


def read_answer(answer: str, where: str) -> tuple[float, str]:
    """Return score and critique of the answer; InputError where it is not in the format."""
    score, critique = parse_score(answer), parse_critique(answer)
    if score is None or critique is None:
        ending = " ".join(answer.split())[-60:]
        raise InputError(
            f"{where}: the last message is not <think>..</think><answer>score</answer> with a score in [0, 1]; "
            f"it ends in {ending!r}"
        )
    return score, critique


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, nothing for None, and anything else as a list of one."""
    return [] if value is None else value if isinstance(value, list) else [value]


def text_of(turn: Any) -> str:
    """Return the text of a message, whether its content is a string or a list of parts."""
    content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else turn
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def pictures_in(row: dict[str, Any]) -> list[Any]:
    """Return the pictures in the messages of a row, of its question too, each once.

    They are parts of a message, {"type": "image", "image": ..} or {"type": "image_url", ..}, or stand beside its text.
    """
    turns = (turn for key in (*TURNS, *_QUESTIONS, *ANSWERS) for turn in as_list(row.get(key)))
    pictures: list[Any] = []
    for turn in turns:
        for part in (*as_list(turn.get("content")), turn) if isinstance(turn, dict) else ():
            if isinstance(part, dict) and str(part.get("type", "image")).startswith(("image", "input_image")):
                reference = next((part[key] for key in (*IMAGES, "path", "url", *_INSIDE) if part.get(key)), None)
                pictures += [picture for picture in as_list(reference) if picture not in pictures]
    return pictures

"""Apply a model's chat template to a question about pictures, and find how the template begins the answer."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from aes_r1.model import families
from aes_r1.prompts import answer
from aes_r1.runs.files import read_json
from aes_r1.settings import InputError

log = logging.getLogger("aes_r1")

_OPENED = re.compile(r"<think>\s*\Z")
_EMPTY_PAIR = re.compile(r"<think>\s*</think>\s*\Z")
_TAGS = re.compile(r"</?(?:think|answer)>")


def load_tokenizer(path: str | Path) -> Any:
    """Load the tokenizer of a folder or hub name with the chat template for questions about pictures.

    Older repositories keep that template in chat_template.json, which transformers reads only when it loads a
    processor.
    """
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    def cached(name: str) -> str | None:
        return cached_file(
            path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )

    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    older = None if cached("chat_template.jinja") else cached("chat_template.json")
    if older is not None:
        tokenizer.chat_template = read_json(Path(older))["chat_template"]
    return tokenizer


def checked(tokenizer: Any, config: Any) -> Any:
    """Return the tokenizer ready for a model of `config`.

    Raises InputError if it does not fit the model, cannot write the answer's tags, or has no usable chat template. A
    template that ends a prompt with an empty think block would close the critique before it is written. That ending is
    removed from the template itself, so that a saved copy of the model gets the same prompts.
    """
    where = tokenizer.name_or_path
    rows = config.get_text_config().vocab_size
    if tokenizer.convert_ids_to_tokens(config.image_token_id) is None:
        raise InputError(f"{where}: its tokenizer lacks token {config.image_token_id}, which stands for a picture")
    end = families.end_of_turn(config, tokenizer)
    if end is None or not 0 <= end < rows:
        raise InputError(f"{where}: its tokenizer names no end of a turn (eos_token) among the model's {rows} tokens")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # any token will do: padding is never attended to
    text = answer("", 0.5)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    if max(tokens) >= rows:
        raise InputError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, the model {rows}; take both from one repository"
        )
    if _TAGS.findall(tokenizer.decode(tokens, skip_special_tokens=True)) != _TAGS.findall(text):
        raise InputError(f"{where}: its tokenizer cannot write {text}: the tags are special tokens there")
    prompt = prompt_text(tokenizer, "")
    with_pictures(tokenizer, prompt, placeholder=families.template_placeholder(config, tokenizer), pictures=[""])
    closing = _EMPTY_PAIR.search(prompt)
    if closing is not None:
        log.info("%s: the chat template's empty think block is left out of prompts", where)
        tokenizer.chat_template = _without_ending(tokenizer.get_chat_template(), closing.group())
    return tokenizer


def _without_ending(template: str, ending: str) -> str:
    """Wrap `template` so that none of its prompts ends with `ending`."""
    text = json.dumps(ending)
    return (
        f"{{% set whole +%}}{template}{{%+ endset %}}"  # the plus signs keep the template's white space
        f"{{{{ whole[:-{len(ending)}] if add_generation_prompt and whole.endswith({text}) else whole }}}}"
    )


def prompt_text(tokenizer: Any, question: str, *, pictures: int = 1) -> str:
    """Put `question` about `pictures` into the chat template, up to the answer, with one placeholder for each picture.

    Raises InputError if there is no template or it cannot put such a question.
    """
    picture_items = [{"type": "image"}] * pictures
    messages = [{"role": "user", "content": [*picture_items, {"type": "text", "text": question}]}]
    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: has no chat template (chat_template.jinja or chat_template.json); "
            "copy that of the model's own repository into it"
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:  # raised by the template's own code
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template cannot put a question about a picture ({reason}); "
            "copy that of the model's own repository into it"
        ) from error


def opening(tokenizer: Any) -> str:
    """Return the part of the answer with which the template ends a prompt: `<think>` and white space, or nothing."""
    match = _OPENED.search(prompt_text(tokenizer, ""))
    return match.group() if match else ""


def with_pictures(tokenizer: Any, text: str, *, placeholder: str, pictures: Sequence[str]) -> str:
    """Replace each `placeholder` in the prompt `text` by one of `pictures`, the text of all tokens of that picture.

    Raises InputError if `text` does not contain as many placeholders as there are pictures.
    """
    count, needed = text.count(placeholder), len(pictures)
    if count != needed:
        cause = "it is a template for text alone" if count == 0 else "it would show a picture more than once"
        if 0 < count < needed:
            cause = "it shows fewer pictures than it is given"
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template puts {count} placeholders {placeholder} for "
            f"{'one picture' if needed == 1 else f'{needed} pictures'}: {cause}; "
            "copy the template of the model's own repository into it"
        )
    beginning, *parts = text.split(placeholder)
    return beginning + "".join(picture + following for picture, following in zip(pictures, parts, strict=True))

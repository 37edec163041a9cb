"""The chat template of a model: how a question about one picture is put, and what of the answer it already says."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from aes_r1.prompts import answer
from aes_r1.settings import InputError

log = logging.getLogger("aes_r1")

_OPENED = re.compile(r"<think>\s*\Z")
_EMPTY_PAIR = re.compile(r"<think>\s*</think>\s*\Z")
_TAGS = re.compile(r"</?(?:think|answer)>")


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a folder or hub name with the chat template that asks about pictures.

    Older repositories keep that template in chat_template.json, where transformers looks for it only with a processor.
    """
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    def there(name: str) -> str | None:
        return cached_file(
            path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )

    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    older = None if there("chat_template.jinja") else there("chat_template.json")
    if older is not None:
        tokenizer.chat_template = json.loads(Path(older).read_text(encoding="utf-8"))["chat_template"]
    return tokenizer


def checked(tokenizer: Any, config: Any) -> Any:
    """The tokenizer, ready for use with a model of `config`; InputError where it does not go with it or cannot ask.

    A template that ends a prompt with an empty think block closes the critique before it is written. That ending is
    taken out, in the template itself, so that a saved copy of the model is asked in the same words.
    """
    where = tokenizer.name_or_path
    rows = config.get_text_config().vocab_size
    if tokenizer.convert_ids_to_tokens(config.image_token_id) is None:
        raise InputError(f"{where}: its tokenizer lacks token {config.image_token_id}, which stands for a picture")
    if tokenizer.eos_token_id is None or not 0 <= tokenizer.eos_token_id < rows:
        raise InputError(f"{where}: its tokenizer names no end of a turn (eos_token) among the model's {rows} tokens")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # no padding is ever attended to
    said = answer("", 0.5)
    tokens = tokenizer(said, add_special_tokens=False)["input_ids"]
    if max(tokens) >= rows:
        raise InputError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens, the model {rows}; take both from one repository"
        )
    if _TAGS.findall(tokenizer.decode(tokens, skip_special_tokens=True)) != _TAGS.findall(said):
        raise InputError(f"{where}: its tokenizer cannot write {said}: the tags are special tokens there")
    asked = prompt_text(tokenizer, "")
    with_picture(tokenizer, asked, one=tokenizer.convert_ids_to_tokens(config.image_token_id), picture="")
    closing = _EMPTY_PAIR.search(asked)
    if closing is not None:
        log.info("%s: the chat template's empty think block is left out of prompts", where)
        tokenizer.chat_template = _without_ending(tokenizer.get_chat_template(), closing.group())
    return tokenizer


def _without_ending(template: str, ending: str) -> str:
    """`template`, whose prompts end before `ending`."""
    text = json.dumps(ending)
    return (
        f"{{% set whole +%}}{template}{{%+ endset %}}"  # plus: no white space of the template is lost
        f"{{{{ whole[:-{len(ending)}] if add_generation_prompt and whole.endswith({text}) else whole }}}}"
    )


def prompt_text(tokenizer: Any, question: str) -> str:
    """`question` about one picture in the chat template, one placeholder for the picture, up to the answer."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path}: has no chat template (chat_template.jinja or chat_template.json); "
            "copy that of the model's own repository into it"
        )
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:  # what code in a template may come to
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template cannot put a question about a picture ({said}); "
            "copy that of the model's own repository into it"
        ) from error


def opening(tokenizer: Any) -> str:
    """What a prompt already says of the answer: `<think>` and white space where the template opens it, else nothing."""
    found = _OPENED.search(prompt_text(tokenizer, ""))
    return found.group() if found else ""


def with_picture(tokenizer: Any, text: str, *, one: str, picture: str) -> str:
    """The prompt `text` with `picture`, all tokens of the picture, in place of its one placeholder `one`."""
    count = text.count(one)
    if count != 1:
        cause = "it is a template for text alone" if count == 0 else "it would show the picture more than once"
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template puts {count} placeholders {one} for one picture: {cause}; "
            "copy the template of the model's own repository into it"
        )
    return text.replace(one, picture)

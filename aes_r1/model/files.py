"""Check a model's folder before anything is loaded: it must hold the whole files of a model that can be trained here.

Only the header of a weight file is read, so a folder of any size is checked in a moment.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aes_r1.model import families
from aes_r1.runs.files import read_json
from aes_r1.settings import InputError

log = logging.getLogger("aes_r1")

SCORER = "scorer.json"  # the file by which a scorer (a model without language) is recognised
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WAY_OUT = "give a model folder or hub name (OWNER/NAME)"
_NOT_ASKED, _NOT_THERE = "the hub could not be asked", "the hub has no such model"


def prefix(key: str | None) -> str:
    """Return the text before a path in a message: `key=`, its setting or option, or nothing for an argument."""
    return "" if key is None else f"{key}="


def check_model_files(path: str | Path, key: str | None) -> None:
    """Raise InputError, naming `key`, unless `path` is a hub name or a folder with a whole model of families.FAMILIES.

    For a hub name only config.json is fetched, because files from the hub are complete.
    """
    folder = Path(path)
    config_of(path, key)
    if not folder.is_dir():
        return
    _check_weights(folder, key)
    tokenizers = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
    if not any(all((folder / name).exists() for name in names) for names in tokenizers):
        raise InputError(
            f"{prefix(key)}{path}: holds no tokenizer (tokenizer.json, or vocab.json and merges.txt); "
            "copy the files of the model's own repository into it"
        )
    if not any((folder / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
        raise InputError(
            f"{prefix(key)}{path}: holds no preprocessor_config.json; copy that of the model's own repository into it"
        )


def refuse_scorer(path: str | Path, key: str | None) -> None:
    """Raise InputError, naming `key`, if `path` is a scorer (scoring.scorer), which writes no answers."""
    if (Path(path) / SCORER).is_file():
        raise InputError(f"{prefix(key)}{path}: a scorer, which has no words; aes-r1 score reads it. Give a model")


def config_of(path: str | Path, key: str | None) -> dict[str, Any]:
    """Return the config.json of a hub name or a folder; InputError, naming `key`, unless it is one of FAMILIES.

    The folder may lack the weights.
    """
    folder, config = Path(path), find(path, key)
    if config is None:
        if not (folder / "config.json").exists():
            refuse_scorer(path, key)
            raise InputError(f"{prefix(key)}{path}: holds no config.json; {_near(folder)}")
        for file in sorted(folder.glob("*.json")):
            fault = _json_fault(file)
            if fault:
                raise InputError(f"{prefix(key)}{path}: {file.name} {fault}; download it again")
        config = read_json(folder / "config.json")
    _check_kind(config, path, key)
    return config


def find(path: str | Path, key: str | None) -> dict[str, Any] | None:
    """Return the config.json of a hub name, or None for a folder; InputError, naming `key`, if `path` is neither.

    The hub is not asked about a name whose first part is a folder here, such as runs/, unless it was downloaded before.
    """
    folder, name = Path(path), str(path)
    if folder.is_dir():
        return None
    if folder.exists():
        raise InputError(f"{prefix(key)}{path}: is a file; {_WAY_OUT}")
    if not _HUB_NAME.fullmatch(name):
        raise InputError(f"{prefix(key)}{path}: no such folder; {_WAY_OUT}")
    if folder.parent.is_dir() and not _is_downloaded(name):
        raise InputError(f"{prefix(key)}{path}: no such folder in {folder.parent}/, which is here; {_WAY_OUT}")
    return _hub_config(name, key)


def hub_file(name: str, file: str, key: str | None = None) -> Path | None:
    """Return `file` of the hub model `name`; None if its repository lacks it or `name` cannot be a hub name.

    If the hub cannot be reached, only the cached files are used: None for a file that is not among them, with a warning
    unless the hub said earlier that the repository lacks it. InputError, naming `key`, if nothing of the model is in
    the cache.
    """
    from httpx import HTTPError
    from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.file_download import _CACHED_NO_EXIST

    if not _HUB_NAME.fullmatch(name) or (Path(name).parent.is_dir() and not _is_downloaded(name)):
        return None  # `find` says what is wrong with it
    cached = None
    try:
        cached = try_to_load_from_cache(name, file)
        if not isinstance(cached, str):
            get_session().head(constants.ENDPOINT, timeout=5)  # fails fast, as in _hub_config
        return Path(hf_hub_download(name, file))
    except RemoteEntryNotFoundError:
        return None
    except (OSError, ValueError, HTTPError) as error:
        if not _is_downloaded(name):
            raise _no_model(name, error, key) from error
        if cached is not _CACHED_NO_EXIST:
            _warn_once(f"{name}: {file} could not be asked for ({_first_line(error)}); without it the defaults hold")
        return None


@functools.cache
def _warn_once(line: str) -> None:
    """Log a warning once, even if a command looks for its model several times."""
    log.warning("%s", line)


def _no_model(name: str, error: Exception, key: str | None) -> InputError:
    """Return the error to raise when the hub gave no file of the model `name`."""
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError

    model = f"{prefix(key)}{name}"
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{model}: its owner must grant you access; ask for it on the model's page of the hub, then hf auth login"
        )
    cause = _NOT_THERE if isinstance(error, RepositoryNotFoundError | RemoteEntryNotFoundError) else _NOT_ASKED
    return InputError(f"{model}: no such folder, and {cause} ({_first_line(error)}); {_WAY_OUT}")


def _near(folder: Path) -> str:
    """Return advice for a folder that does not hold a model."""
    if (folder / "adapter_config.json").exists():
        return "it is an adapter; merge it into its base model (peft: merge_and_unload) and save that"
    inside = sorted(file.parent for file in folder.glob("*/config.json"))
    return f"give {inside[0]}" if inside else _WAY_OUT


def _is_downloaded(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # the hub has no such names, say those with --
        return False


def _hub_config(name: str, key: str | None) -> Any:
    from httpx import HTTPError
    from huggingface_hub import constants, get_session, hf_hub_download
    from transformers.utils.hub import cached_file

    try:
        if not _is_downloaded(name):
            get_session().head(constants.ENDPOINT, timeout=5)  # fails fast: a download would retry for half a minute
            hf_hub_download(name, "config.json")  # says what is missing, which cached_file does not
        file = Path(str(cached_file(name, "config.json")))
    except (OSError, ValueError, HTTPError) as error:
        raise _no_model(name, error, key) from error
    fault = _json_fault(file)
    if fault:
        raise InputError(f"{prefix(key)}{name}: {file.name} {fault}; download it again")
    return read_json(file)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_kind(config: dict[str, Any], path: str | Path, key: str | None) -> None:
    kind = config.get("model_type")
    if kind not in families.FAMILIES:
        names = ", ".join(families.FAMILIES)
        if "auto_map" in config:
            raise InputError(
                f"{prefix(key)}{path}: a {kind} model that brings its own code, which is never run; give the "
                f"repository in transformers' own format (for InternVL the one whose name ends in -hf), one of {names}"
            )
        reason = "config.json names no model_type" if kind is None else f"a {kind} model"
        raise InputError(f"{prefix(key)}{path}: {reason}; give one of {names}")
    quantised = config.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else quantised
        raise InputError(
            f"{prefix(key)}{path}: its weights are quantised ({method}) and cannot be trained; give the 16-bit model"
        )


def _check_weights(folder: Path, key: str | None) -> None:
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if not files and not index.exists():
        index = folder / "pytorch_model.bin.index.json"
    if index.exists():
        shards = read_json(index).get("weight_map", {})
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise InputError(f"{prefix(key)}{folder}: {index.name} names no weight files; download it again")
        names = sorted(set(shards.values()))
        outside = [name for name in names if Path(name).name != name or "\\" in name]
        if outside:
            raise InputError(
                f"{prefix(key)}{folder}: {index.name} names a weight file outside of the folder ({outside[0]}); "
                "get the model from its own repository"
            )
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise InputError(
                f"{prefix(key)}{folder}: {len(missing)} of {len(names)} weight files are missing ({missing[0]}, ..); "
                "download them again"
            )
    files = files or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise InputError(f"{prefix(key)}{folder}: holds no weights (*.safetensors); download them")
    for file in files:
        fault = _safetensors_fault(file) if file.suffix == ".safetensors" else _torch_fault(file)
        if fault:
            raise InputError(f"{prefix(key)}{folder}: {file.name} {fault}; download it again")


def _json_fault(file: Path) -> str | None:
    """Return what is wrong with a file that should hold a JSON object, or None."""
    fault = _download_fault(file)
    if fault:
        return fault
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"is not whole JSON ({error})"
    # Only the model's own files must be objects: people keep JSON lists beside their models.
    return None if isinstance(content, dict) or file.name not in _OBJECTS else "is not a JSON object"


_OBJECTS = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.json"),
    *("model.safetensors.index.json", "vocab.json", "generation_config.json"),
)


_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how Rust writes the errno of an error


@contextlib.contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """Raise OSError if a library that is written in Rust cannot write into `folder`, for example on a full disk.

    In this case safetensors raises its own error class, and tokenizers a bare Exception.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        match = _OS_ERROR.search(str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(folder)) from error


def _safetensors_fault(file: Path) -> str | None:
    """Return what is wrong with a safetensors file by its header, or None.

    The file is eight bytes that give the header's length, a JSON header of that length, and the numbers. Format:
    https://huggingface.co/docs/safetensors
    """
    fault = _download_fault(file)
    if fault:
        return fault
    size = os.path.getsize(file)
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        head = opened.read(length) if length <= size - 8 else b""
    if len(head) != length or not head:
        return f"is cut or damaged ({size:,} bytes)"
    try:
        rows = json.loads(head)
        end = max((row["data_offsets"][1] for name, row in rows.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "is not a safetensors file"
    expected = 8 + length + end
    return None if size == expected else f"is cut: {size:,} of {expected:,} bytes"


def _torch_fault(file: Path) -> str | None:
    """Return what is wrong with a file of torch.save, a zip archive whose table of contents is at its end, or None."""
    return _download_fault(file) or (None if zipfile.is_zipfile(file) else "is cut or damaged")


def _download_fault(file: Path) -> str | None:
    """Return how a download failed (an empty file, a pointer of Git LFS, a web page in its stead), or None."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not start:
        return "is empty"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself (git lfs pull)"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page"
    return None

"""Say in one line which file of a recipe Hydra could not read, and where in it."""

from __future__ import annotations

import traceback

import yaml


def fault_in_config_file(error: BaseException) -> str | None:
    """Return the line on an error that Hydra raised while it read a YAML file; None for an error raised elsewhere.

    Hydra's exceptions do not say which file it is, so the name comes from the frame that opened it.
    """
    if isinstance(error, ValueError) and str(error).startswith("Invalid defaults list in "):
        return f"{error}; a defaults list has lines like `  - /reward: rank`"
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "load_config")
    path = next((frame.f_locals["full_path"] for frame in frames if "full_path" in frame.f_locals), None)
    if path is None:
        return None
    fault = fault_in_yaml(error, path)
    if fault is None and isinstance(error, ValueError):  # in the lines before its first key, as # @package _global_
        return f"{path}: {error}; mend its first lines"
    return fault


def fault_in_yaml(error: BaseException, path: object) -> str | None:
    """Return the line on an error that reading the YAML file `path` raised; None where the YAML is not at fault."""
    match error:
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            return f"{path}:{mark.line + 1}:{mark.column + 1}: not YAML ({error.problem}); mend that line"
        case yaml.YAMLError():
            return f"{path}: not YAML ({' '.join(str(error).split())}); mend it"
        case UnicodeDecodeError():
            return f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8"
    return None

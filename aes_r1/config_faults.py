"""Say in one line which file of a recipe Hydra could not read, and where in it."""

from __future__ import annotations

import re
import traceback

import yaml


def fault_in_config_file(error: BaseException) -> str | None:
    """Return the line on an error that Hydra raised while it read a YAML file; None: it is an error of another kind.

    Hydra's exceptions do not say which file it is, so the name comes from the frame that opened it.
    """
    path = next(
        (
            frame.f_locals["full_path"]
            for frame, _ in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_name == "load_config" and "full_path" in frame.f_locals
        ),
        None,
    )
    match error:
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            return f"{path or mark.name}:{mark.line + 1}: not YAML ({error.problem}); mend that line"
        case yaml.YAMLError():
            return f"{path or 'a file of the recipe'}: not YAML ({' '.join(str(error).split())}); mend it"
        case UnicodeDecodeError():
            return f"{path or 'a file of the recipe'}: not UTF-8 (byte {error.start}); save it as UTF-8"
        case ValueError() if path is not None:  # the lines before its first key, as # @package _global_
            return f"{path}: {error}; mend its first lines"
        case ValueError() if re.match("Invalid defaults list in ", str(error)):
            return f"{error}; a defaults list has lines like `  - /reward: rank`"
    return None

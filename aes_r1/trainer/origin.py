"""What a run was made by: the code's commit and the content of the base model, in RUN/stages/origin.json."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

import aes_r1
from aes_r1.trainer.run_folder import finish_stage, sha256_of, stage_done


def record_origin(folder: Path, base: str) -> None:
    """Leave {"commits", "base"}: every commit that worked on the run, in order, and the digest of its base model.

    A run that goes on under newer code names both. The model is read once per run; a hub name that is not yet in the
    cache has no digest (null) until the run is gone on with.
    """
    found: dict = {"commits": [], "base": None}
    if stage_done(folder, "origin"):
        found = json.loads((folder / "stages" / "origin.json").read_text())
    commit = code_version(Path(aes_r1.__file__).parent)
    commits = found["commits"] + [commit] * (commit not in found["commits"])
    finish_stage(folder, "origin", {"commits": commits, "base": found["base"] or model_digest(base)})


def code_version(package: Path) -> str:
    """`git describe` of the tree that `package` is tracked in, "-dirty" where files were changed; else its version.

    An installed copy that merely lies inside of some other project's tree is not that project's commit.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no tree
        return f"version {aes_r1.__version__}"


def model_digest(model: str) -> str | None:
    """SHA-256 over the weights and the configuration of a model's folder, or of a hub name's copy in the cache."""
    folder = Path(model)
    if not folder.is_dir():
        cached = try_to_load_from_cache(model, "config.json")
        if not isinstance(cached, str):
            return None
        folder = Path(cached).parent
    files = sorted(path for kind in ("*.safetensors", "*.bin", "config.json") for path in folder.glob(kind))
    lines = [f"{path.name} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else None

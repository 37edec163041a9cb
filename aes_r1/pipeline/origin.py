"""Record what made a run, in RUN/stages/origin.json: the code's commit and the base model's name by content."""

from __future__ import annotations

import subprocess
from pathlib import Path

import aes_r1
from aes_r1.model.digest import content_of, digest_of, revision_of
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.store import made_once
from aes_r1.settings import InputError, Settings, reward_file

_ANEW = "give another out=, or trainer.resume=never to begin anew"


def record_origin(run: RunFolder, base: str, store: Path) -> None:
    """Write {"commits", "base"}: every commit that worked on the run, in order, and the content name of its base model.

    A run that was resumed with newer code names both commits. The model is read once per run.
    """
    origin = run.origin or {"commits": [], "base": None}
    commit = code_version(Path(aes_r1.__file__).parent)
    commits = origin["commits"] + [commit] * (commit not in origin["commits"])
    run.finish_stage("origin", {"commits": commits, "base": origin["base"] or content_name(base, store)})


def require_same_files(run: RunFolder, settings: Settings) -> None:
    """Raise InputError where a file that the run has used holds something else, though its name is the same.

    The file of reward.custom is compared with the copy in the run, and the folder model.path by its content. A missing
    file is not compared: a stage that needs it reports that itself, and finished stages do not need it.
    """
    custom, copy_in_run, model = settings.reward.custom, run.custom_reward_file, settings.model.path
    if custom is not None and copy_in_run.exists():
        file = reward_file(custom)
        if file.exists() and copy_in_run.read_bytes() != file.read_bytes():
            raise InputError(
                f"reward.custom={custom}: {file} was changed after this run began with {copy_in_run}; {_ANEW}"
            )
    base = run.origin.get("base")
    if base is not None and model is not None and Path(model).is_dir():
        base_name = content_name(model, Path(settings.store))
        if base_name not in (base, None):
            raise InputError(f"model.path={model}: it holds another model than when this run began; {_ANEW}")


def code_version(package: Path) -> str:
    """Return `git describe` of the tree that tracks `package` ("-dirty" where files were changed), else its version.

    The commit of another project's tree, in which the package is merely installed, does not count.
    """

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True, check=True)
        return result.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or no tree
        return f"version {aes_r1.__version__}"


def content_name(model: str, store: Path) -> str | None:
    """Name a model by its content; None for a hub name that is not in the cache or a folder without a whole model.

    A hub name becomes OWNER/NAME@COMMIT. Of a folder weights, configuration, tokenizer, template and processor are
    hashed (SHA-256); the hash does not depend on the folder. It is kept in store/digests under the files' paths, sizes
    and modification times, so that gigabytes are not read at each start; a store that cannot be written keeps nothing.
    """
    if not Path(model).is_dir():
        revision = revision_of(model)
        return revision and f"{model}@{revision}"
    files = content_of(Path(model))
    if not files:
        return None
    try:
        stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    except FileNotFoundError:  # a link into a cache that was emptied
        return None
    try:
        entry = made_once(store, "digests", fingerprint(stamps), lambda target: _write_digest(files, target / "sha256"))
    except InputError:  # the store cannot be written, as that of a finished run that is only looked at
        return digest_of(files)
    return (entry / "sha256").read_text()


def _write_digest(files: list[Path], target: Path) -> None:
    target.write_text(digest_of(files))

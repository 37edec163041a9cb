"""Check before the first call that expert and judge can handle the pictures, and that the output folder is free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aes_r1.aescot.decided import DECIDED, decided_pictures
from aes_r1.aescot.expert import known_mos
from aes_r1.aescot.phrases import BOOK_SHA256
from aes_r1.data.attributes import is_made_scene
from aes_r1.data.ratings import known_ratings, ratings_hint
from aes_r1.data.sample import Sample
from aes_r1.prompts import prompt_sha256
from aes_r1.runs.files import make_folder, read_json, write_json
from aes_r1.settings import ChatSettings, ExpertSettings, InputError, JudgeSettings

# Settings that change how answers are bought, but not what is asked.
_BUYING = (
    *("max_concurrency", "requests_per_minute", "tokens_per_minute", "retries", "timeout_s", "max_usd"),
    *("input_usd_per_million", "output_usd_per_million", "response_format", "api_key_env"),
)
# Settings that change which answers are kept; they too may change between two starts in one folder.
_FILTERING = ("min_words", "max_words", "near_copy", "tolerance")


def check_roles(samples: Sequence[Sample], expert: ExpertSettings, judge: JudgeSettings) -> None:
    """Raise InputError when a picture has no score, or when expert or judge cannot handle it."""
    if judge.name == "scenes" and expert.name == "openai":
        raise InputError(
            "judge=scenes only understands the words of the offline experts; with expert=openai give judge=openai "
            "or judge=none"
        )
    if expert.name == "attributes":
        require_ratings(samples, "expert=attributes")
    for sample in samples:
        known_mos(sample)
        if is_made_scene(sample):
            continue
        if expert.name == "scenes":
            raise InputError(f"expert=scenes needs known factors, which {sample.id} lacks; use expert=pixels")
        if judge.name == "scenes":
            raise InputError(f"judge=scenes only judges made scenes, not {sample.id}; use judge=none or judge=openai")


def require_ratings(samples: Sequence[Sample], setting: str) -> None:
    """Raise InputError, naming `setting`, where no picture has a rating of a single dimension."""
    if samples and not any(known_ratings(sample) for sample in samples):
        name = samples[0].dataset
        raise InputError(
            f"{setting}: data={name} has no ratings of single dimensions; {ratings_hint(name)}, or another expert"
        )


def deciding_settings(settings: ChatSettings) -> dict[str, Any]:
    """Return the settings of an expert or judge that decide its answers; price and speed settings are left out."""
    return {key: value for key, value in asdict(settings).items() if key not in _BUYING}


def prompts_of(expert: ExpertSettings, judge: JudgeSettings) -> dict[str, str]:
    """Hash every prompt file that is used, or the phrase book for the offline experts."""
    used = {"expert": prompt_sha256("expert") if expert.name == "openai" else BOOK_SHA256}
    checks = ("judge_align", "judge_fact") if judge.name == "openai" else ()
    return {**used, **{name: prompt_sha256(name) for name in checks}}


@dataclass(frozen=True)
class Recipe:
    """Hold what decides the answers of a distillation, except its pictures."""

    expert: ExpertSettings
    judge: JudgeSettings
    seed: int
    quotas: Mapping[str, Any]
    max_pixels: int

    def identity(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the settings, pictures and prompts that decide the answers of a distillation of `samples`."""
        expert, judge = self.expert, self.judge
        identity: dict[str, Any] = {
            role: {key: value for key, value in deciding_settings(settings).items() if key not in _FILTERING}
            for role, settings in (("expert", expert), ("judge", judge))
        }
        if "openai" in (expert.name, judge.name):
            identity["max_pixels"] = self.max_pixels
        if expert.name == "attributes":
            ratings = json.dumps([known_ratings(sample) for sample in samples])
            identity["ratings"] = hashlib.sha256(ratings.encode()).hexdigest()
        return {
            **identity,
            "seed": self.seed,
            "quotas": self.quotas,
            "pictures": _digest(samples),
            "prompts": prompts_of(expert, judge),
        }


def claim_output_folder(
    out: Path,
    samples: Sequence[Sample],
    recipe: Recipe,
    *,
    stack: ExitStack,
    readable: Sequence[Sample] | None = None,
) -> Sequence[Sample]:
    """Lock `out` until `stack` closes; InputError when it holds another distillation or another process writes there.

    A changed prompt or picture size would buy every answer again, so it needs another folder. `samples` also holds
    pictures that cannot be read at the moment, so that these change nothing; `readable` is the list without them.
    distill.json holds the identity of the distillation, and the names of the pictures that are not a part of it.
    Returns the list of pictures that the identity is made of.
    """
    path = out / "distill.json"
    try:
        _lock(out, stack)
        named_by = _naming_list(path, samples, recipe, readable) if path.exists() else samples
        listed = set(map(_name_of, named_by))
        left_out = [name for name in map(_name_of, samples) if name not in listed]
        # Atomic, because a damaged file would make the answers that were paid for unusable.
        write_json(path, {**recipe.identity(named_by), "left_out": left_out})
    except OSError as error:
        raise InputError(f"out={out}: {error.strerror}; give a folder that can be written") from error
    return named_by


def _lock(out: Path, stack: ExitStack) -> None:
    from filelock import FileLock, Timeout

    make_folder(out)
    try:
        stack.enter_context(FileLock(out / ".lock", timeout=0))
    except Timeout as error:
        raise InputError(
            f"out={out}: another distillation is writing there; wait for it or give another out="
        ) from error


def _naming_list(
    path: Path, samples: Sequence[Sample], recipe: Recipe, readable: Sequence[Sample] | None
) -> Sequence[Sample]:
    """Return the list of pictures that gives the identity in distill.json at `path`; InputError where none does.

    Older versions made the identity of the pictures that could be read then: of `readable`, or, if further pictures can
    be read by now, of those that the folder has decided.
    """
    existing = _named_by(path)
    differing = _differing(recipe.identity(samples), existing)
    if not differing:
        return samples
    for shorter in _shorter_lists(samples, readable, existing, path.parent):
        if not _differing(recipe.identity(shorter), existing):
            return shorter
    way_out = (
        "give the original list of pictures (an older version left out those that it could not read), or "
        if "pictures" in differing
        else ""
    )
    raise InputError(
        f"{path.parent} holds a distillation with other {', '.join(differing)}; {way_out}give another out="
    )


def _named_by(path: Path) -> dict[str, Any]:
    """Return the identity that distill.json holds; InputError where it is damaged."""
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}, or give another out=") from error


def _shorter_lists(
    samples: Sequence[Sample], readable: Sequence[Sample] | None, existing: Mapping[str, Any], out: Path
) -> Iterator[Sequence[Sample]]:
    """Yield the lists of which an older version may have made the identity of `out`, cheap ones first."""
    left_out = {(dataset, name) for dataset, name in existing.get("left_out", ())}
    if left_out:
        yield [sample for sample in samples if _name_of(sample) not in left_out]
    if readable is not None:
        yield readable
    if "left_out" not in existing:  # else a set that has grown would pass for one with pictures left out
        decided = decided_pictures(out / name for name in DECIDED)
        yield [sample for sample in samples if _name_of(sample) in decided]


def _name_of(sample: Sample) -> tuple[str, str]:
    return sample.dataset, sample.id


def _differing(identity: Mapping[str, Any], existing: Mapping[str, Any]) -> list[str]:
    return [key for key in identity if existing.get(key) != json.loads(json.dumps(identity[key]))]


def _digest(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.dataset}\t{sample.id}\t{sample.mos}\n".encode())
    return digest.hexdigest()

"""Turn a recipe that Hydra has composed from conf/ and the command line into validated settings."""

from __future__ import annotations

from typing import Any

from aes_r1 import config_names
from aes_r1.runs.identity import fingerprint, run_fingerprint
from aes_r1.settings import CONF, InputError, Settings, build_settings, place, values_of


def to_settings(config: Any, schema: type = Settings) -> Any:
    """Return the validated settings of a composed config."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if schema is Settings:
        values.pop("plan", None)  # recipes for one kind of card hold what aes_r1.plan assumes of it
    _refuse_home_sign(values)
    _expand_sets(values)  # first, because it moves the short key `also` to its place
    config_names.check_keys(values, schema, CONF)
    return build_settings(schema, values)


def _refuse_home_sign(values: dict) -> None:
    """Raise InputError for a folder of the command's own whose name begins with ~, which would be made as it stands."""
    for key in ("out", "store", "runs", "analyses", "audit"):
        given = values.get(key)
        for name in given if isinstance(given, list) else [given]:
            if isinstance(name, str) and name.startswith("~"):
                raise InputError(
                    f"{key}={name}: must be a whole path, {place(name, key)}, or ./{name} where the name begins with ~"
                )


def _expand_sets(values: dict) -> None:
    """Replace the names in data.unseen, evaluation.also and `also` with the settings of those sets."""
    if values.get("also"):
        values["also"] = [_data_set(entry) for entry in _listed("also", values["also"])]
    evaluation, data = values.get("evaluation"), values.get("data")
    if isinstance(evaluation, dict) and isinstance(data, dict):
        unseen = data.get("unseen") if "trainer" in values else None  # a run is also evaluated on unseen sets
        names = [*_listed("data.unseen", unseen), *_listed("evaluation.also", evaluation.get("also"))]
        names += values.pop("also", None) or []
        evaluation["also"] = [_data_set(entry) for entry in names]


def _listed(key: str, entries: Any) -> list:
    """Return the further sets that `key` names, [] for null; InputError where they are no list of sets."""
    entries = [] if entries is None else entries
    if not isinstance(entries, list):
        raise InputError(f"{key}={entries}: must be a list of data sets, as {key}=[scenes_harsh]")
    for entry in entries:
        if not isinstance(entry, str | dict):
            raise InputError(f"{key}={entry}: must be the name of a data set, or its settings, {{name: .., root: ..}}")
    return entries


def _data_set(entry: Any) -> dict:
    """Return the settings of a further set: a file of conf/data by name, or a mapping with that name and its keys."""
    values = {"name": entry} if isinstance(entry, str) else dict(entry)
    known = config_names.choices(CONF / "data")
    if values.get("name") not in known:
        raise InputError(f"also={values.get('name')}: no such data set; there are {', '.join(known)}")
    return {**group_values("data", values["name"]), **values}


def group_values(group: str, option: str) -> dict:
    """Return the values of conf/GROUP/OPTION.yaml on top of the files of its group that it extends.

    Hydra composes one file of a group; this reads a second one of the same group.
    """
    from omegaconf import OmegaConf

    config = OmegaConf.create(values_of(CONF / group / f"{option}.yaml"))
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


def _run_hash(*, _root_: Any) -> str:
    from omegaconf import OmegaConf

    values = {
        key: OmegaConf.to_container(_root_[key], resolve=True, throw_on_missing=True)
        if OmegaConf.is_config(_root_[key])
        else _root_[key]
        for key in _root_
        if key not in ("hydra", "out", "experiment", "plan")
    }
    try:
        config_names.check_keys(values, Settings, CONF)
        _expand_sets(values)
        return run_fingerprint(build_settings(Settings, values))
    except InputError:
        if not _in_multirun():
            raise
        return f"invalid-{fingerprint(values)}"  # Hydra needs the folder before the settings are checked


def _in_multirun() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def register_resolvers() -> None:
    """Register ${run_hash:} with OmegaConf."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("run_hash", _run_hash, replace=True)


# Called on import, because a launcher's worker processes resolve run folders before they call a command.
register_resolvers()

"""Define RunFolder, the only place in the code that spells the names of the files of a run.

RUN/settings.json          the resolved, validated settings
RUN/resumed.json           the settings without influence on results that later starts changed (model.kernels, ..)
RUN/stages/NAME.json       the done-marker of a stage, with its results; origin.json: the commits and the base model;
                           labels.json: digests of the labels from which the run made its lists of pictures
RUN/manifests/             the lists of pictures, and of critiques that can be read; left_out-LIST: what LIST leaves
                           out, where that is much
RUN/metrics.jsonl          one row per logged step; completions.jsonl: completions sampled in training
RUN/entropy.jsonl          token entropy of validation answers during the cold start
RUN/checkpoints/step_N/    everything needed to resume; best/: the best model by validation; model/: the final model
RUN/parts/                 predictions of unfinished stages; predictions.jsonl: those of finished stages
RUN/pairs.jsonl            the choices between two pictures (evaluation.protocols=[.., pair])
RUN/baselines/NAME.jsonl   scores of a baseline (aes_r1.evaluate baselines=[..])
RUN/interventions/         scores after exchanged critiques; information/: log-probabilities given other pictures
RUN/sensitivity/           scores of pictures as they are and after edits
RUN/judge.jsonl            the answers of a judge that reads critiques, kept so that none is paid for twice
RUN/judge_rewards.jsonl    the answers of the judge that rewards completions, kept for the same reason
RUN/custom_reward.py       the file of reward.custom as the run uses it
RUN/evaluation.json        the measurements; report.html: the page that shows them
RUN/traces/step_N.json.gz  the operations of step N over time, where trainer.profile is N
RUN/run.log                the printed log; failure.txt: the one-line reason of a failure; wandb/: the W&B files
RUN/tensorboard/           the event files of tracker=tensorboard

A cold start in the store, and the folder `out` of aes_r1.evaluate, hold some of these files under the same names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, cast, get_type_hints

from aes_r1.runs.cells import Evaluation
from aes_r1.runs.files import foreign, iter_rows, read_json, rows_backwards, write_json, write_rows
from aes_r1.runs.identity import use_present_names
from aes_r1.runs.kinds import (
    ALL,
    COMPLETION,
    ENTROPY,
    EXAMINATION,
    METRICS,
    PAIR,
    PREDICTION,
    RESUMED,
    REWARDS,
    RUN,
    SETTINGS,
    VALIDATION,
    require_kinds,
    require_measurements,
    require_stage,
    typed,
)
from aes_r1.settings import EvaluateSettings, InputError, Settings, models_of

MODEL = "model"  # the folder in Hugging Face form of a run, of a checkpoint or of the best step
# The settings of a run that are groups, with or without a value.
_GROUPS = {
    name
    for schema in (Settings, EvaluateSettings)
    for name, kind in get_type_hints(schema).items()
    if is_dataclass(kind)
}
EXAMINED = ("interventions", "information", "sensitivity")  # the kinds of tests that follow the predictions


class RunFolder:
    """Represent the folder of a run at `path`; the content of a missing file is empty.

    Reading a damaged JSON file raises InputError, which names the file and, as far as known, line and key.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.settings_file = self.path / "settings.json"
        self.resumed_file = self.path / "resumed.json"
        self.evaluation_file = self.path / "evaluation.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.completions_file = self.path / "completions.jsonl"
        self.predictions_file = self.path / "predictions.jsonl"
        self.pairs_file = self.path / "pairs.jsonl"
        self.entropy_file = self.path / "entropy.jsonl"
        self.verdicts_file = self.path / "judge.jsonl"
        self.judge_rewards_file = self.path / "judge_rewards.jsonl"
        self.report_file = self.path / "report.html"
        self.log_file = self.path / "run.log"
        self.failure_file = self.path / "failure.txt"
        self.custom_reward_file = self.path / "custom_reward.py"
        self.lock_file = self.path / ".lock"
        self.model = self.path / MODEL
        self.checkpoints = self.path / "checkpoints"
        self.best = best_beside(self.checkpoints)
        self.best_model = self.best / MODEL
        self.manifests = self.path / "manifests"
        self.wandb = self.path / "wandb"
        self.tensorboard = self.path / "tensorboard"
        self.traces = self.path / "traces"
        self.stages = self.path / "stages"
        self.all_parts = self.path / "parts"
        self.all_baselines = self.path / "baselines"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        """Return whether this is the folder of a run: whether it holds settings."""
        return self.settings_file.exists()

    # -- contents ------------------------------------------------------------------------------------------------------
    @property
    def settings(self) -> dict[str, Any]:
        """Return the run's settings as plain values."""
        settings = _content(self.settings_file)
        use_present_names(settings)
        for group in _GROUPS & settings.keys():
            if not isinstance(settings[group], dict):
                raise InputError(foreign(f"{group} is no group of settings", self.settings_file))
        require_kinds(settings, RUN, self.settings_file)
        for group in SETTINGS.keys() & settings.keys():
            require_kinds(settings[group], SETTINGS[group], self.settings_file, before=f"{group}.")
        return settings

    @property
    def resumed(self) -> list[dict[str, Any]]:
        """Return, for each later start that changed settings, {dotted key: value} of those that it changed."""
        values = _content(self.resumed_file)
        require_kinds(values, RESUMED, self.resumed_file)
        starts: list[dict[str, Any]] = values.get("starts", [])
        return starts

    @property
    def latest_settings(self) -> dict[str, Any]:
        """Return the settings of the latest start; `settings` are those of the first."""
        settings = self.settings
        for key, value in (item for start in self.resumed for item in start.items()):
            *groups, name = key.split(".")
            inner = settings
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[name] = value
        return settings

    @property
    def evaluation(self) -> Evaluation:
        """Return the measurements; docs/evaluation.md explains their keys."""
        measurements = cast("Evaluation", _content(self.evaluation_file))  # evaluation.summary writes its keys
        require_measurements(measurements, self.evaluation_file)
        for stage, sets in measurements.get("stages", {}).items():
            if not sets or not all(sets.values()):
                raise InputError(foreign(f"no measurement of {stage}", self.evaluation_file))
        return measurements

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Return the logged rows, of one stage ("sft" or "rapo") or of both."""
        rows = typed(iter_rows(self.metrics_file), METRICS, ALL)
        return [row for row in rows if stage is None or row["stage"] == stage]

    def completions(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Return the completions sampled in training, of one stage or of both."""
        rows = typed(iter_rows(self.completions_file), COMPLETION, REWARDS)
        return [row for row in rows if stage is None or row["stage"] == stage]

    def last_completions(self) -> list[dict[str, Any]]:
        """Return the completions of the last step that was logged; the rest of the file is not parsed."""
        rows: list[dict[str, Any]] = []
        for row in typed(rows_backwards(self.completions_file), COMPLETION, REWARDS):
            if rows and (row["stage"], row["step"]) != (rows[-1]["stage"], rows[-1]["step"]):
                break
            rows.append(row)
        return rows[::-1]

    def predictions(self, stage: str | None = None, protocol: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield prediction rows, of one stage and protocol or of all."""
        for row in typed(iter_rows(self.predictions_file), PREDICTION):
            if (stage is None or row["stage"] == stage) and (protocol is None or row["protocol"] == protocol):
                yield row

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Yield the choices between two pictures, two rows for each pair."""
        yield from typed(iter_rows(self.pairs_file), PAIR)

    def examined(self, kind: str, stage: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of `examined_file`."""
        return list(typed(iter_rows(self.examined_file(kind, stage, name)), EXAMINATION))

    @property
    def baselines(self) -> list[str]:
        """Return the names of the baselines whose scores are there."""
        return sorted(path.stem for path in self.all_baselines.glob("*.jsonl"))

    def baseline(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of the baseline `name`."""
        return list(typed(iter_rows(self.all_baselines / f"{name}.jsonl"), PREDICTION))

    def write_baseline(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace the rows of the baseline `name`."""
        self.all_baselines.mkdir(exist_ok=True)
        write_rows(self.all_baselines / f"{name}.jsonl", rows)

    @property
    def entropy(self) -> list[dict[str, Any]]:
        """Return the token entropy of validation answers, one row per step at which the cold start measured it."""
        return list(typed(iter_rows(self.entropy_file), ENTROPY))

    @property
    def origin(self) -> dict[str, Any]:
        """Return the origin of the run: {"commits", "base"}."""
        return self.stage_values("origin")

    @property
    def cold_start_model(self) -> Path | None:
        """Return the folder of the finished cold start's model in the store; None where it is not there."""
        model = self.stage_values("cold_start").get("model")
        return Path(model) if model and is_model(Path(model)) else None

    @property
    def failure(self) -> str | None:
        """Return the one-line reason of the last failure."""
        return _text(self.failure_file).strip() if self.failure_file.exists() else None

    @property
    def log(self) -> str:
        """Return the printed log of the run."""
        return _text(self.log_file) if self.log_file.exists() else ""

    @property
    def state(self) -> str:
        """Return `done`, `failed: REASON` or `not finished`.

        A run is done with its report; a folder of aes_r1.evaluate, which writes no such stage, with its evaluation.
        """
        if self.stage_done("report"):
            return "done"
        if self.evaluation_file.exists() and self.exists and "trainer" not in self.settings:
            return "done"
        return "not finished" if self.failure is None else f"failed: {self.failure}"

    @property
    def state_in_words(self) -> str:
        """Return the state as the start of a sentence: `the run is not finished`, `the run failed (REASON)`."""
        if self.state == "done":
            return "the run is done"
        return "the run is not finished" if self.failure is None else f"the run failed ({self.failure})"

    # -- stages --------------------------------------------------------------------------------------------------------
    def stage_done(self, name: str) -> bool:
        """Return whether the stage `name` is done."""
        return self._stage(name).exists()

    def stage_values(self, name: str) -> dict[str, Any]:
        """Return the values in the done-marker of the stage; empty while the stage is not done."""
        values, path = _content(self._stage(name)), self._stage(name)
        require_stage(name, values, path)
        return values

    def finish_stage(self, name: str, values: dict[str, Any]) -> None:
        """Write the done-marker RUN/stages/NAME.json with `values`."""
        self.stages.mkdir(exist_ok=True)
        write_json(self._stage(name), values)

    def _stage(self, name: str) -> Path:
        return self.stages / f"{name}.json"

    # -- files with a name of their own per stage or set ---------------------------------------------------------------
    def trace(self, step: int) -> Path:
        """Return RUN/traces/step_N.json.gz, which ui.perfetto.dev shows."""
        return self.traces / f"step_{step}.json.gz"

    def manifest(self, name: str) -> Path:
        """Return RUN/manifests/NAME.jsonl; `name` is DATASET-SPLIT for a list of pictures."""
        return self.manifests / f"{name}.jsonl"

    def parts(self, stage: str) -> Path:
        """Return the folder in which each process writes its prediction rows of the unfinished `stage`."""
        return self.all_parts / stage

    def part(self, stage: str, name: str, rank: int, size: int) -> Path:
        """Return the file of prediction rows of `stage` on the set `name` that process `rank` of `size` writes."""
        return self.parts(stage) / f"{name}.{rank}-of-{size}.jsonl"

    def examined_file(self, kind: str, stage: str, name: str) -> Path:
        """Return RUN/KIND/STAGE/DATASET-SPLIT.jsonl for a `kind` of EXAMINED and a `name` DATASET/SPLIT."""
        return self.path / kind / stage / f"{name.replace('/', '-')}.jsonl"

    # -- models --------------------------------------------------------------------------------------------------------
    @property
    def last_stage(self) -> str | None:
        """Return the stage under which an evaluation lists RUN/model, even if evaluation.stages leaves it out.

        In a folder of aes_r1.evaluate it is the name of the model at model.path. None without settings, and where only
        baselines and other models were asked (model.path=null).
        """
        settings = self.settings
        if "trainer" in settings:
            return models_of(settings["trainer"], settings["cold_start"])[-1]
        return settings.get("name") if settings.get("model", {}).get("path") is not None else None

    @property
    def best_validation(self) -> dict[str, Any]:
        """Return the step of the best model and its SRCC in validation, {"step", "srcc"}; empty without one."""
        values, path = _content(validation_file(self.best)), validation_file(self.best)
        require_kinds(values, VALIDATION, path)
        return values

    def models(self) -> dict[str, Path]:
        """Return the folders of the run's models under the keys "best", "last" and the numbers of RAPO's steps.

        The best model and those of checkpoints have bfloat16 weights, the last one has the dtype of training. So the
        last step is the key of the last model, also where its checkpoint is kept.
        """
        checkpoints = checkpoints_in(self.checkpoints)
        numbered = {step: folder / MODEL for step, folder in checkpoints.items() if (folder / MODEL).exists()}
        named = {}
        if is_model(self.best_model):
            named["best"] = self.best_model
            numbered[self.best_validation["step"]] = self.best_model
        if is_model(self.model):
            named["last"] = self.model
            if finished := self.stage_values("rapo"):
                numbered[finished["steps"]] = self.model
        return {**named, **{str(number): numbered[number] for number in sorted(numbered)}}


def run_of(model: Path) -> RunFolder | None:
    """Return the run that made the model in the folder `model`, None when it belongs to no run."""
    home = run_folder_of(model)
    run = None if home is None else RunFolder(home)
    return run if run is not None and run.exists else None


def run_folder_of(model: Path) -> Path | None:
    """Return RUN for RUN/model, RUN/best/model or RUN/checkpoints/step_N/model; else None. Nothing has to exist."""
    if model.name != MODEL:
        return None
    home = model.parent
    if home.parent.name == "checkpoints":
        return home.parent.parent
    return home.parent if home.name == "best" else home


def model_in(folder: Path) -> Path:
    """Return the folder of the model that `folder` names: itself, or model/ inside it."""
    return folder if is_model(folder) else folder / MODEL


def is_model(folder: Path) -> bool:
    """Return whether `folder` holds a model in Hugging Face form."""
    return model_file(folder).exists()


def model_file(folder: Path) -> Path:
    """Return the file that every model's folder holds."""
    return folder / "config.json"


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return the folders step_N in `folder` by N; a copy under another name, as step_10.bak, is not the run's."""
    return {int(path.name[5:]): path for path in folder.glob("step_*") if re.fullmatch("step_[0-9]+", path.name)}


def best_beside(checkpoints: Path) -> Path:
    """Return the folder of the best model, which is stored beside the folder `checkpoints`."""
    return checkpoints.with_name("best")


def validation_file(best: Path) -> Path:
    """Return the file beside the best model that holds the step and the score of its validation."""
    return best / "validation.json"


def require_run(folder: Path | str) -> RunFolder:
    """Return the run in `folder`; InputError where there is none."""
    run = RunFolder(folder)
    if not run.exists:
        if not run.path.is_dir():
            raise InputError(f"{run}: no such folder; give the folder of a run (aes-r1 runs lists them)")
        raise InputError(f"{run}: no run ({run.settings_file.name} is missing); {runs_inside(run.path)}")
    return run


def no_final_model(run: RunFolder) -> str:
    """Say why the run has no final model, and how to get the model of its last checkpoint, where there is one."""
    if run.state == "done":
        return f"the run is done, but its folder {MODEL} is missing; give the run's whole folder"
    steps = [name for name in run.models() if name.isdigit()]
    way = f"; aes-r1 export {run} OUT --step {steps[-1]} exports the model of step {steps[-1]}" if steps else ""
    return f"{run.state_in_words} and has no final model yet; the command that started it goes on{way}"


def runs_inside(
    folder: Path, what: str = "", file: Callable[[RunFolder], Path | None] = lambda run: run.settings_file
) -> str:
    """Return advice for a user who gave `folder`, which is not a run: to give the run in it with the latest `what`.

    file: returns the file that holds `what` in a run, by whose modification time the latest is found. Where it returns
    None or a missing file, the run has no `what`.
    """
    inside = [run for pattern in ("*", "*/*") for run in runs_below(folder, pattern)]
    if not inside:
        return "give the folder of a run (aes-r1 runs lists them)"
    count_of_runs = f"it is the folder of {len(inside)} run{'s' * (len(inside) != 1)}"
    times = {run: path.stat().st_mtime for run in inside if (path := file(run)) is not None and path.exists()}
    if not times:
        return f"{count_of_runs}, none of which has {what} yet"
    latest = max(times, key=lambda run: times[run])
    return f"{count_of_runs}; give one of them, the latest{f' with {what}' if what else ''} is {latest}"


def runs_below(folder: Path, pattern: str = "*") -> list[RunFolder]:
    """Return the runs in `folder`, in the order of their paths; `pattern` "*/*" looks one folder deeper."""
    return [RunFolder(path.parent) for path in sorted(folder.glob(f"{pattern}/settings.json"))]


def _content(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _text(path: Path) -> str:
    """Read a text file; a character that a full disk or a kill cut short is replaced with U+FFFD."""
    return path.read_text(encoding="utf-8", errors="replace")

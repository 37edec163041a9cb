"""`hydra/sweeper=optuna`: ask Optuna for points, run them with any launcher, report their scores to it.

The published plugin, hydra-optuna-sweeper, needs Optuna below 3, whose storage does not work with current versions of
SQLAlchemy; it also runs points again that a study already holds.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from aes_r1.recipe import to_settings
from aes_r1.runs.identity import fingerprint, run_fingerprint
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import InputError, require


class OptunaSweeper(Sweeper):
    """Run points that TPE proposes, each once, until `n_trials` have a score or failed; higher is better.

    A space of fewer points ends the search earlier. The study is kept in the SQLite file `storage`. Its name is a hash
    of the search space and of all settings that its points share, so other settings are another study. A point without
    a score is a failed trial. The same command first repeats points that failed or were interrupted, with the same
    values and so in the same run folders.
    """

    def __init__(
        self,
        storage: str,
        n_trials: int,
        n_jobs: int,
        n_startup_trials: int,
        seed: int,
        params: Mapping[str, Any] | None,
    ) -> None:
        require(n_trials >= 1, "hydra.sweeper.n_trials", n_trials, "must be at least 1")
        require(n_jobs >= 1, "hydra.sweeper.n_jobs", n_jobs, "must be at least 1")
        self.storage, self.n_trials, self.n_jobs = Path(storage), n_trials, n_jobs
        self.n_startup_trials, self.seed = n_startup_trials, seed
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes to a sweeper."""
        self.composed, self.loader = config, hydra_context.config_loader
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launch = launcher.launch

    def sweep(self, arguments: list[str]) -> None:
        """Search with the overrides of the command line."""
        space, fixed = self._space([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        shared = self.loader.load_sweep_config(self.composed, list(fixed))
        with open_dict(shared):
            del shared["hydra"]
        name = fingerprint(run_fingerprint(to_settings(shared)), sorted((key, str(one)) for key, one in space.items()))
        with self._held(name):
            self._search(self._study(name), space, fixed)

    def _search(self, study: Any, space: Mapping[str, Any], fixed: Sequence[str]) -> None:
        """Run points until the study has its n_trials; those of an earlier command without a score come first."""
        again = _without_score(study)
        missing = self.n_trials - len(_scores(study))
        answers: list[JobReturn] = []
        taken = set(_scores(study))
        while len(answers) < missing:
            trials: list[Any] = []
            for _ in range(min(self.n_jobs, missing - len(answers))):
                if again:
                    study.enqueue_trial(again.pop(0))
                trial = self._ask(study, space, taken)
                if trial is not None:
                    trials.append(trial)
                    taken.add(_point(trial))
            if not trials:
                break
            points = [[*fixed, *(f"{name}={value}" for name, value in trial.params.items())] for trial in trials]
            returned = self.launch(points, initial_job_idx=len(answers))
            answers += returned
            stopped = [isinstance(answer._return_value, Stopped) for answer in returned]
            for trial, answer, cut in zip(trials, returned, stopped, strict=True):
                if not cut:  # an interrupted point stays open for the next command
                    _tell(study, trial, answer)
            if any(stopped):
                break
        _say_best(study, self.n_trials)
        for answer in answers:
            _ = answer.return_value  # raises the exception that a point raised outside of its own process

    def _space(self, arguments: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the searched keys with their distributions, and the other overrides.

        A later argument replaces an earlier one of its key.
        """
        parsed = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(list(arguments))}
        space = {key: _distribution(one) for key, one in parsed.items() if one.is_sweep_override()}
        fixed = [str(override.input_line) for override in parsed.values() if not override.is_sweep_override()]
        if not space:
            raise InputError("hydra/sweeper=optuna: nothing to search; give a key an interval(low, high) or a list a,b")
        return space, fixed

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Hold the study `name` for the block. InputError where another command searches in it.

        That one's points would look like those of a command that was interrupted, which are run again.
        """
        lock = FileLock(self.storage.with_name(f".{self.storage.name}.{name}.lock"))
        try:
            self.storage.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"hydra.sweeper.storage={self.storage}: another command works on this search; wait for its end, after "
                "which the same command runs what is missing, or stop it"
            ) from None
        except OSError as error:
            raise self._cannot_use(error.strerror) from error
        try:
            yield
        finally:
            lock.release()

    def _study(self, name: str) -> Any:
        """Return the study `name` in the file: a new one, or what an earlier command left."""
        optuna = _optuna()
        from sqlalchemy.engine import URL, make_url
        from sqlalchemy.exc import DatabaseError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        url = URL.create("sqlite", database=str(self.storage)).render_as_string()
        if make_url(url).database != str(self.storage) or "{" in url:  # SQLAlchemy before 2.1 quotes nothing in it
            raise self._cannot_use("a path with one of ?#%{} in it")
        try:
            return optuna.create_study(study_name=name, storage=url, direction="maximize", load_if_exists=True)
        except DatabaseError as error:
            raise self._cannot_use(error.orig) from error

    def _cannot_use(self, reason: Any) -> InputError:
        return InputError(f"hydra.sweeper.storage={self.storage}: {reason}; give another file")

    def _ask(self, study: Any, space: Mapping[str, Any], taken: set[tuple]) -> Any:
        """Return a trial of a point outside `taken`; None where the space has no other.

        Where axes are lists, TPE may propose a point again, which would get the score that the study has. Such a trial
        is closed as failed, and the first point of the space that is not taken replaces it.
        """
        study.sampler = self._sampler(study)
        trial = study.ask(space)
        if _point(trial) not in taken:
            return trial
        study.tell(trial, state=_optuna().trial.TrialState.FAIL)
        left = next((point for point in _points(space) if tuple(sorted(point.items())) not in taken), None)
        if left is None:
            return None
        study.enqueue_trial(left)
        return study.ask(space)

    def _sampler(self, study: Any) -> Any:
        """Return TPE, seeded by the seed and the number of points, so that a resumed study proposes the same points."""
        points = {_point(trial) for trial in study.get_trials(deepcopy=False)}
        return _optuna().samplers.TPESampler(
            seed=self.seed + len(points), n_startup_trials=self.n_startup_trials, constant_liar=self.n_jobs > 1
        )


def _points(space: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Iterate over the points of lists and whole numbers; of a space with an interval of fractions, over none."""
    axes = []
    for one in space.values():
        if hasattr(one, "choices"):
            axes.append(list(one.choices))
        elif isinstance(one, _optuna().distributions.IntDistribution):
            axes.append(list(range(one.low, one.high + 1, one.step)))
        else:
            return
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise InputError("hydra/sweeper=optuna needs Optuna; pip install -e '.[launchers]'") from error
    return optuna


def _distribution(override: Override) -> Any:
    """Return the distribution of an axis: an interval is a number between its ends, log-scaled where tagged.

    A list or range is a choice.
    """
    distributions = _optuna().distributions
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    try:
        return kind(value.start, value.end, log="log" in value.tags)
    except ValueError as error:
        raise InputError(f"{override.input_line}: {error}") from error


def _point(trial: Any) -> tuple:
    """Return a point's overrides as one key."""
    return tuple(sorted(trial.params.items()))


def _scores(study: Any) -> dict[tuple, float]:
    """Return the score of every point that has one."""
    complete = _optuna().trial.TrialState.COMPLETE
    return {_point(trial): trial.value for trial in study.get_trials(deepcopy=False, states=(complete,))}


def _without_score(study: Any) -> list[dict[str, Any]]:
    """Return the points of earlier commands that failed or were interrupted, each once."""
    state = _optuna().trial.TrialState
    scored, found = _scores(study), {}
    for trial in study.get_trials(deepcopy=False, states=(state.RUNNING, state.FAIL)):
        if trial.state == state.RUNNING:  # no process reports it any more: this one holds the study
            study.tell(trial.number, state=state.FAIL)
        if _point(trial) not in scored:
            found[_point(trial)] = dict(trial.params)
    return list(found.values())


def _tell(study: Any, trial: Any, answer: JobReturn) -> None:
    """Report a point to the study.

    One that failed, or gave equal answers to all, has no SRCC: a failed trial, not a score of 0.
    """
    score = answer.return_value if answer.status == JobStatus.COMPLETED else None
    state = _optuna().trial.TrialState
    study.tell(trial, score, state=state.FAIL if score is None else state.COMPLETE)
    said = "no score" if score is None else f"SRCC {score:.4f}"
    print(f"aes_r1: trial {trial.number}: {said}: {_overrides(trial.params)}", file=sys.stderr)


def _say_best(study: Any, n_trials: int) -> None:
    scores = _scores(study)
    if not scores:
        print("aes_r1: no trial has a score", file=sys.stderr)
        return
    best = study.best_trial
    print(
        f"aes_r1: best of {len(scores)} scored points of {n_trials}: SRCC {best.value:.4f}: {_overrides(best.params)}",
        file=sys.stderr,
    )


def _overrides(params: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in params.items())

"""Record metrics and completions while a run trains: in its two files always, and in W&B as the settings say.

Every metric name has one line in GLOSSARY; a name without one is refused, so any curve can be looked up. The two files
are the record, and W&B is a view of it. Resuming cuts the files back to the checkpoint, so no step appears twice.
"""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aes_r1.runs.cells import Evaluation, MetricName
from aes_r1.runs.files import append_rows, read_rows, write_rows, write_text_atomically
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, TrackerSettings

STAGES = ("sft", "rapo")
HEADLINE_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "mae")
SUMMARY_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "krcc", "mae")

GLOSSARY = {
    "reward/total": "mean over outputs of w_rank r_rank + w_error r_error + w_binary r_binary + w_format r_format",
    "reward/rank": "mean over outputs of mean_j sqrt(p_c p_ik) + sqrt((1 - p_c)(1 - p_ik)); 0 where the parse failed",
    "reward/error": "mean over outputs of exp(-1/2 (|o_ik - s_i| / sigma)^2) + epsilon; 0 where the parse failed",
    "reward/binary": "share of outputs with |o_ik - s_i| < threshold",
    "reward/format": "share of outputs that parse_score can read",
    "reward/overlong": "mean over outputs of -(length - soft limit) / (limit - soft limit) in [-1, 0], where it is on",
    "reward/faithfulness": "mean over outputs of the agreement of the critique with known ratings of the dimensions",
    "reward/read_back": "reward/error of the reference model's score after the words, with the picture blanked",
    "reward/information": "mean over outputs of log pi_ref(critique | own picture) - that under others, bounded, nats",
    "policy/loss": "the minimised objective: -surrogate + kl_coef KL_k3, aggregated as trainer.aggregation says",
    "policy/entropy": "mean over completion tokens of -sum_v pi(v) log pi(v), nats, at the sampling temperature",
    "policy/kl_k1": "mean over the loss's tokens of log pi - log pi_ref",
    "policy/kl_k3": "mean over the loss's tokens of exp(d) - d - 1, d = log pi_ref - log pi, taken as 20 where above",
    "policy/clip_low_fraction": "share of the loss's tokens with ratio < 1 - clip_low and advantage < 0",
    "policy/clip_high_fraction": "share of the loss's tokens with ratio > 1 + clip_high and advantage > 0",
    "policy/grad_norm": "L2 norm of the whole gradient before clipping",
    "policy/skipped_steps": "optimizer steps that were skipped because loss or gradient was not finite",
    "policy/ratio_max": "maximum over the loss's tokens of exp(log pi - log pi_old)",
    "rollout/parse_failure_rate": "share of outputs that parse_score cannot read",
    "rollout/truncated_rate": "share of outputs cut at trainer.max_new_tokens",
    "rollout/zero_spread_groups": "share of pictures whose K rewards are all equal, so that their advantage is 0",
    "rollout/length_mean": "mean completion length, tokens",
    "rollout/mismatch_mean": "mean over completion tokens of |log pi of the sampler - log pi of the trainer|, nats",
    "rollout/mismatch_max": "maximum of the same; both are over the first minibatch, before the first update",
    "rollout/mismatch_k3": "mean of exp(d) - 1 - d, d = log pi of the trainer - log pi of the sampler (vLLM rollouts)",
    "rollout/capped_fraction": "share of completion tokens whose importance weight exp(d) is cut to rollout.cap",
    "rollout/effective_sample_size": "(sum of exp(d))^2 / (tokens * sum of exp(d)^2), before anything is cut",
    "rollout/score_mean": "mean of the scores that could be read",
    "rollout/score_std": "standard deviation of the scores that could be read",
    "sft/loss": "mean over target tokens of -log pi(token), nats",
    "sft/skipped_steps": "1 when the optimizer step was skipped because loss or gradient was not finite, else 0",
    "sft/entropy": "mean over tokens of sampled validation answers of -sum_v pi(v) log pi(v), nats, at temperature 1",
    "sft/answered": "share of sampled validation answers that parse_score can read",
    "eval/<dataset>/srcc": "Spearman correlation of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/plcc": "Pearson correlation of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/krcc": "Kendall tau-b of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/mae": "mean of |predicted - MOS| on the 0..1 scale; failed parses count as the mean answer",
    "eval/<dataset>/parse_failure_rate": "share of pictures whose answer parse_score cannot read",
    "critique/distinct": "different greedy critiques of the first 100 validation pictures (step 0: before RAPO)",
    "critique/words_srcc": "Spearman correlation of MOS and how favourable the words of those critiques are",
    "critique/information_nats": "log pi(critique | own picture) - its mean under two others, nats; of 50 critiques",
    "critique/score_information_nats": "the same for the answer's tokens after the same critique",
    "time/wait_s": "seconds of the step spent waiting for pictures to be read",
    "time/rollout_s": "seconds sampling the K outputs of the step",
    "time/push_s": "seconds in which vLLM servers are given the weights of the step",
    "time/critique_s": "seconds rewarding the critiques of the step (trainer.credit=parts)",
    "time/reference_s": "seconds computing old and reference log-probabilities of the step",
    "time/update_s": "seconds of forward, backward and optimizer of the step",
    "time/evaluate_s": "seconds of the validation of the step",
    "time/step_s": "seconds of the whole step without validation and saving",
    "perf/tokens_per_s": "completion tokens of the step / its seconds (cold start: target tokens / update seconds)",
    "perf/peak_memory_gb": "peak memory of rank 0 since the run started, 10^9 bytes: its GPU's, or the resident set",
    "perf/mfu": "operations of the update, without repeated ones, / (its seconds x all cards' dense 16-bit peak)",
    "lr": "learning rate of the optimizer step",
}

_SECRET = re.compile(
    r"(?:^|_)(?:api_?key|secret|password|passwd|token|credentials?|authorization|bearer)$", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def definition(name: str) -> str:
    """Return the glossary line of a metric name ("eval/para/srcc" has that of "eval/<dataset>/srcc").

    Raises KeyError where there is none.
    """
    return GLOSSARY[re.sub(r"^eval/.+/", "eval/<dataset>/", name)]


def without_secrets(value: Any) -> Any:
    """Return `value` without keys that name a secret and with user:password@ cut from addresses, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items() if not _SECRET.search(str(key))}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _USERINFO.sub("", value) if isinstance(value, str) else value


class Tracker:
    """Writes one run's metrics and completions into its folder and, as the settings say, to W&B.

    With `folder` None the tracker writes nothing, as on every rank but 0. `config` holds the run's settings as plain
    values; `run_id` is the W&B run of a checkpoint, which is resumed when the folder has lost its own. Use it as a
    context manager: leaving on an exception marks the W&B run as failed.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: TrackerSettings,
        config: Mapping[str, Any],
        *,
        run_name: str = "run",
        run_id: str | None = None,
    ) -> None:
        self._run = None if folder is None else RunFolder(folder)
        self._completions_per_table = settings.completions
        self._rows = 0
        self._last: tuple[str, int] | None = None
        self._wandb: Any = None
        if self._run is None:
            return
        self._run.path.mkdir(parents=True, exist_ok=True)
        for path in (self._run.completions_file, self._run.metrics_file):
            rows = read_rows(path)
            if rows:
                write_rows(path, rows)
        self._rows = len(rows)
        if settings.name != "none" and not _switched_off():
            self._wandb = _start_wandb(self._run, settings, without_secrets(config), run_name, run_id)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def notes(self) -> dict[str, str]:
        """Return what a checkpoint remembers of the log: the id of the W&B run."""
        return {} if self._wandb is None else {"wandb_run_id": self._wandb.id}

    def resume(self, stage: str, step: int) -> None:
        """Delete what was logged after `step` of `stage`, from which training resumes, and by later stages."""
        if self._run is None:
            return
        for path in (self._run.metrics_file, self._run.completions_file):
            rows = read_rows(path)
            kept = [row for row in rows if (STAGES.index(row["stage"]), row["step"]) <= (STAGES.index(stage), step)]
            if rows:
                write_rows(path, kept)
            if path == self._run.metrics_file:
                self._rows = len(kept)

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row: stage, step, metrics by glossary name (numbers or 0-d tensors; not finite becomes null)."""
        if self._run is None:
            return
        for name in metrics:
            definition(name)
        values = {name: float(value) for name, value in metrics.items()}
        append_rows(self._run.metrics_file, [{"stage": stage, "step": step, **values}])
        if self._wandb is not None:
            known = {name: value for name, value in values.items() if math.isfinite(value)}
            # W&B's step is the row number: rows that are repeated after a resume have known numbers and are dropped.
            self._wandb.log({**_on_axis(stage, known), f"{stage}/step": step}, step=self._rows)
        self._rows, self._last = self._rows + 1, (stage, step)

    def completions(self, stage: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append sampled critiques {id, image, k, text, score|null, rewards.., advantage, truncated}.

        W&B gets a table of the `tracker.completions` rows that err most, with the picture of the file `image`.
        """
        if self._run is None or not rows:
            return
        append_rows(self._run.completions_file, [{"stage": stage, "step": step, **row} for row in rows])
        if self._wandb is not None:
            table = _completions_table(worst_first(rows, self._completions_per_table))
            # The table belongs to the row of its step, whether that is logged before or after it.
            at = self._rows - 1 if self._last == (stage, step) else self._rows
            self._wandb.log({f"{stage}/completions": table}, step=at)

    def checkpoint(self, stage: str, step: int, folder: Path, **metadata: float) -> None:
        """Record a checkpoint as an artifact that refers to its folder: nothing is copied or uploaded."""
        if self._wandb is None:
            return
        import wandb

        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        artifact = wandb.Artifact(
            f"{stage}-checkpoint", type="model", metadata={"stage": stage, "step": step, "bytes": size, **metadata}
        )
        artifact.add_reference(folder.resolve().as_uri(), checksum=False)
        self._wandb.log_artifact(artifact, aliases=["latest", f"step_{step}"])

    def manifest(self, dataset: str, split: str, path: Path, sha256: str) -> None:
        """Record the list of pictures of a set and split as an artifact."""
        if self._wandb is None:
            return
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{dataset}-{split}")
        artifact = wandb.Artifact(name, type="dataset", metadata={"dataset": dataset, "split": split, "sha256": sha256})
        artifact.add_file(str(path), policy="immutable")
        self._wandb.log_artifact(artifact)

    def summarise(self, evaluation: Evaluation) -> None:
        """Write the evaluation to the W&B summary: STAGE/DATASET/SPLIT/PROTOCOL/metric, and headline/*.

        The headline is the last stage on the first set under the first protocol, with its interval. A table of runs can
        be sorted by these columns.
        """
        if self._wandb is None:
            return
        for name, value in headline(evaluation).items():
            self._wandb.summary[f"headline/{name}"] = value
        for stage, sets in evaluation["stages"].items():
            for dataset, protocols in sets.items():
                for protocol, cell in protocols.items():
                    for metric in SUMMARY_METRICS:
                        if cell[metric]["value"] is not None:
                            self._wandb.summary[f"{stage}/{dataset}/{protocol}/{metric}"] = cell[metric]["value"]
                    for name, found in cell.get("critiques", {}).items():
                        if isinstance(found, Mapping) and found["value"] is not None:
                            self._wandb.summary[f"{stage}/{dataset}/{protocol}/critiques/{name}"] = found["value"]

    def alert(self, title: str, text: str) -> None:
        """Send a W&B alert, for example about parse failures; offline it is recorded."""
        if self._wandb is not None:
            self._wandb.alert(title=title, text=text)

    def finish(self, *, failed: bool = False, stopped: bool = False) -> None:
        """Close the W&B run; the two files need no closing. `stopped`: the run was asked to stop, to resume later."""
        if self._wandb is not None:
            if stopped:
                self._wandb.mark_preempting()
            self._wandb.finish(exit_code=1 if failed else 0)
            self._wandb = None


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Return srcc, plcc and mae with _low and _high, and parse_failure_rate, of the headline cell.

    That is the last stage, first set, first protocol. It is empty without an evaluated stage.
    """
    stages = evaluation.get("stages")
    if not stages:
        return {}
    sets = list(stages.values())[-1]
    cell = next(iter(next(iter(sets.values())).values()))
    named: dict[str, float | None] = {}
    for metric in HEADLINE_METRICS:
        interval = cell[metric]
        named |= {metric: interval["value"], f"{metric}_low": interval["low"], f"{metric}_high": interval["high"]}
    named["parse_failure_rate"] = cell.get("parse_failure_rate")
    return {name: value for name, value in named.items() if value is not None}


def group_of(config: Mapping[str, Any]) -> str | None:
    """Return the W&B group of a run with these settings (plain values): tracker.group, or else its run_name."""
    return config.get("tracker", {}).get("group") or config.get("run_name")


@contextmanager
def refusals(key: str, way_out: str, *, requests: bool = False) -> Iterator[None]:
    """Turn refusals of W&B's client in the block (no login, no connection) into a one-line InputError.

    requests: also those of single requests by the server (another team's project).
    """
    import wandb

    refused: tuple[type[Exception], ...] = (wandb.errors.UsageError, wandb.errors.CommError)
    if requests:  # this error has no public name, so runs do not depend on it
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        refused += (WandbApiFailedError,)
    try:
        yield
    except refused as error:
        raise InputError(f"{key}: {str(error).splitlines()[0].rstrip('.')}; {way_out}") from error


def _on_axis(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics for W&B: RAPO's keep their names, the cold start's go under sft/, so each has one axis."""
    if stage == "rapo":
        return dict(metrics)
    return {name if name.startswith(f"{stage}/") else f"{stage}/{name}": value for name, value in metrics.items()}


# Variables that the settings and the run folder override; docs/tracking.md explains each.
_OURS = (
    *("WANDB_MODE", "WANDB_DISABLED", "WANDB_SILENT", "WANDB_CONSOLE", "WANDB_DIR", "WANDB_NAME", "WANDB_RUN_GROUP"),
    *("WANDB_JOB_TYPE", "WANDB_TAGS", "WANDB_RESUME", "WANDB_SAVE_CODE"),
)
_OF_A_SWEEP = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID", "WANDB_PROJECT")
_OFFLINE = ("offline", "dryrun")


def _switched_off() -> bool:
    """Return whether the environment switches W&B off altogether; InputError for a mode that W&B does not know."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in (*_OFFLINE, "online", "run", "shared", "disabled", ""):
        raise InputError(f"WANDB_MODE={mode}: W&B knows online, offline and disabled; mend or unset it")
    return mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")


@contextmanager
def _environment(folder: Path, in_sweep: bool) -> Iterator[None]:
    """Set W&B's variables for its start: those that the run decides are removed, and folders are writable.

    Pictures of tables are kept in `folder` until they are sent, so that the run can be synced from elsewhere.
    """
    import wandb

    before = dict(os.environ)
    try:
        for name in _OURS if in_sweep else (*_OURS, *_OF_A_SWEEP):
            os.environ.pop(name, None)
        for name, value in os.environ.items():
            if name.startswith("WANDB_"):
                try:
                    wandb.Settings().update_from_env_vars({name: value})
                except ValueError as error:
                    shown = "..." if _SECRET.search(name) else value
                    raise InputError(f"{name}={shown}: W&B cannot use it; mend or unset it") from error
        for name, place in (("WANDB_CACHE_DIR", "~/.cache"), ("WANDB_CONFIG_DIR", "~/.config")):
            if name not in os.environ and not _writable(Path(place).expanduser()):
                os.environ[name] = str((folder / ".home").resolve())
        os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
        yield
    finally:
        kept = {name: os.environ[name] for name in _FOLDERS if name in os.environ}  # W&B reads these again later
        os.environ.clear()
        os.environ.update({**before, **kept})


_FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")


def _writable(folder: Path) -> bool:
    """Return whether `folder`, or its nearest existing parent, can be written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _start_wandb(
    run_folder: RunFolder, settings: TrackerSettings, config: Mapping[str, Any], run_name: str, run_id: str | None
) -> Any:
    import wandb

    online = settings.name == "wandb" and os.environ.get("WANDB_MODE") not in _OFFLINE
    # The run folder keeps one id, so that a resumed run continues the same W&B run.
    id_file = run_folder.wandb / "run_id"
    id_file.parent.mkdir(exist_ok=True)
    known = id_file.read_text().strip() if id_file.exists() else ""
    agents = os.environ.get("WANDB_RUN_ID")
    ident = known or run_id or agents or secrets.token_hex(4)
    in_sweep = bool(os.environ.get("WANDB_SWEEP_ID")) and ident == agents
    with (
        refusals("tracker=wandb", "run `wandb login`, or keep tracker=offline and sync later"),
        _environment(run_folder.wandb, in_sweep),
    ):
        run = wandb.init(
            dir=str(run_folder),
            project=None if in_sweep else settings.project,
            entity=None if in_sweep else settings.entity,
            group=group_of(config),
            name=run_name,
            tags=settings.tags or None,
            job_type=config.get("trainer", {}).get("name", "train"),
            config=dict(config),
            id=None if in_sweep else ident,
            resume="allow" if online else None,
            mode="online" if online else "offline",
            settings=wandb.Settings(console="off", silent=not online, save_code=False, x_save_requirements=False),
        )
    write_text_atomically(id_file, run.id)
    for stage in STAGES:
        run.define_metric(f"{stage}/step", hidden=True)
    run.define_metric("sft/*", step_metric="sft/step")
    for name in sorted({name.split("/")[0] + "/*" for name in GLOSSARY if "/" in name} - {"sft/*"}):
        run.define_metric(name, step_metric="rapo/step")
    run.define_metric("lr", step_metric="rapo/step")
    return run


def worst_first(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Return the up to `most` rows with the largest error |score - MOS|, which is added as `error` where MOS is known.

    Each picture has one row, its worst answer. Unreadable answers (error null) come first but take at most half of the
    places, so that a run that fails often still shows its worst scores. Free places go to further answers.
    """
    known = [
        {**row, "error": None if row.get("score") is None else abs(row["score"] - row["mos"])} if "mos" in row else row
        for row in rows
    ]
    readable = [place for place, row in enumerate(known) if row.get("score") is not None]
    readable.sort(key=lambda place: known[place].get("error", 0), reverse=True)
    unreadable = [place for place, row in enumerate(known) if row.get("score") is None]
    shown: list[int] = []
    pictures = set()  # by file, because two sets may share ids
    for places, limit in ((unreadable, most // 2), (readable, most)):
        for place in places:
            picture = (known[place].get("image"), known[place]["id"])
            if len(shown) < limit and picture not in pictures:
                shown.append(place)
                pictures.add(picture)
    shown += [place for place in readable + unreadable if place not in shown][: most - len(shown)]
    return [known[place] for place in sorted(shown, key=(unreadable + readable).index)]


def _completions_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb
    from PIL import Image

    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "image"]
    table = wandb.Table(columns=["picture", *columns])
    for row in rows:
        picture = None
        if "image" in row:
            # Plain Pillow reads almost everything that training reads; for example a raw file has no picture here.
            with suppress(OSError), Image.open(row["image"]) as image:
                image.thumbnail((256, 256))
                picture = wandb.Image(image.convert("RGB"))
        table.add_data(picture, *(row.get(key) for key in columns))
    return table

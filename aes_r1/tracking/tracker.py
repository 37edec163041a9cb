"""Record metrics and completions while a run trains: always in two files, and in a tracker as the settings say.

The record is metrics.jsonl and completions.jsonl; W&B or TensorBoard is a view of it. Resuming cuts the two files back
to the checkpoint, so that no step appears twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from aes_r1.runs.cells import Evaluation
from aes_r1.runs.files import append_rows, read_rows, write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import TrackerSettings
from aes_r1.tracking.board import Board
from aes_r1.tracking.glossary import definition, on_axis
from aes_r1.tracking.headline import headline_metrics
from aes_r1.tracking.secrets import without_secrets
from aes_r1.tracking.wandb_run import STAGES, start_wandb, switched_off
from aes_r1.tracking.worst import completions_table, worst_first


class Tracker:
    """Write one run's metrics and completions into its folder and, as the settings say, to W&B or for TensorBoard.

    With `folder` None the tracker writes nothing, as on every rank but 0. `config` holds the run's settings as plain
    values; `run_id` is the W&B run of a checkpoint, which is resumed when the folder has lost its own; `job_type` says
    what W&B lists the run as (None: the trainer's name). Use it as a context manager: leaving on an exception marks the
    W&B run as failed.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: TrackerSettings,
        config: Mapping[str, Any],
        *,
        run_name: str = "run",
        run_id: str | None = None,
        job_type: str | None = None,
    ) -> None:
        self._run = None if folder is None else RunFolder(folder)
        self._completions_per_table = settings.completions
        self._rows = 0
        self._last: tuple[str, int] | None = None
        self._wandb: Any = None
        self._board: Board | None = None
        if self._run is None:
            return
        self._run.path.mkdir(parents=True, exist_ok=True)
        self._rows = _mended(self._run.metrics_file)
        _mended(self._run.completions_file)
        if settings.name == "tensorboard":
            self._board = self._new_board()
        elif settings.name != "none" and not switched_off():
            self._wandb = start_wandb(self._run, settings, without_secrets(config), run_name, run_id, job_type)

    def _new_board(self) -> Board:
        """Write TensorBoard's files anew from the run's two files."""
        assert self._run is not None
        board = Board(self._run.tensorboard, self._run.metrics())
        for (stage, step), rows in groupby(self._run.completions(), key=lambda row: (row["stage"], row["step"])):
            board.completions(stage, step, worst_first(list(rows), self._completions_per_table))
        return board

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(failed=kind is not None)

    def extra_state(self) -> dict[str, str]:
        """Return what a checkpoint keeps of the tracker: the id of the W&B run."""
        return {} if self._wandb is None else {"wandb_run_id": self._wandb.id}

    def resume(self, stage: str, step: int) -> None:
        """Delete what was logged after `step` of `stage`, from which training resumes, and by later stages."""
        if self._run is None:
            return
        logged = {self._run.metrics_file: self._run.metrics(), self._run.completions_file: self._run.completions()}
        for path, rows in logged.items():
            kept = [row for row in rows if (STAGES.index(row["stage"]), row["step"]) <= (STAGES.index(stage), step)]
            if rows:
                write_rows(path, kept)
            if path == self._run.metrics_file:
                self._rows = len(kept)
        if self._board is not None:
            self._board.close()
            self._board = self._new_board()

    def log(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row: stage, step, metrics by name (numbers or 0-d tensors; not finite becomes null).

        KeyError for a name that the glossary lacks.
        """
        if self._run is None:
            return
        for name in metrics:
            definition(name)
        values = {name: float(value) for name, value in metrics.items()}
        append_rows(self._run.metrics_file, [{"stage": stage, "step": step, **values}])
        if self._wandb is not None:
            known = {name: value for name, value in values.items() if math.isfinite(value)}
            # The row number is W&B's step, so that W&B drops rows that are repeated after a resume.
            self._wandb.log({**on_axis(stage, known), f"{stage}/step": step}, step=self._rows)
        if self._board is not None:
            self._board.log(stage, step, values)
        self._rows, self._last = self._rows + 1, (stage, step)

    def completions(self, stage: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append sampled completions {id, image, k, text, score|null, rewards.., advantage, truncated}.

        The tracker gets a table of `tracker.completions` of them (`worst_first`), in W&B with the picture `image`.
        """
        if self._run is None or not rows:
            return
        append_rows(self._run.completions_file, [{"stage": stage, "step": step, **row} for row in rows])
        if self._wandb is not None:
            table = completions_table(worst_first(rows, self._completions_per_table))
            # The table belongs to the row of its step, which may be logged before or after the table.
            row_number = self._rows - 1 if self._last == (stage, step) else self._rows
            self._wandb.log({f"{stage}/completions": table}, step=row_number)
        if self._board is not None:
            self._board.completions(stage, step, worst_first(rows, self._completions_per_table))

    def checkpoint(self, stage: str, step: int, folder: Path, **metadata: float) -> None:
        """Record a checkpoint as a W&B artifact that refers to its folder: nothing is copied or uploaded."""
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
        """Record the list of pictures of a set and split as a W&B artifact."""
        if self._wandb is None:
            return
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{dataset}-{split}")
        artifact = wandb.Artifact(name, type="dataset", metadata={"dataset": dataset, "split": split, "sha256": sha256})
        artifact.add_file(str(path), policy="immutable")
        self._wandb.log_artifact(artifact)

    def summarise(self, evaluation: Evaluation) -> None:
        """Write the evaluation to the tracker's summary: STAGE/DATASET/SPLIT/PROTOCOL/metric, and headline/*.

        The headline is the run's last model on the first set under the first protocol, with its interval; there is none
        where that model was not evaluated. A table of runs can be sorted by these columns.
        """
        if self._run is not None:
            self.summary(headline_metrics(evaluation, self._run.last_stage))

    def summary(self, values: Mapping[str, float]) -> None:
        """Write numbers that describe the whole run to the tracker."""
        if self._run is None:
            return
        if self._wandb is not None:
            for name, value in values.items():
                self._wandb.summary[name] = value
        if self._board is not None:
            self._board.summary(values)

    def alert(self, title: str, text: str) -> None:
        """Send a W&B alert, for example about parse failures; offline it is recorded."""
        if self._wandb is not None:
            self._wandb.alert(title=title, text=text)

    def finish(self, *, failed: bool = False, stopped: bool = False) -> None:
        """Close the tracker. `stopped`: the run was asked to stop and will be resumed, which W&B shows."""
        if self._wandb is not None:
            if stopped:
                self._wandb.mark_preempting()
            self._wandb.finish(exit_code=1 if failed else 0)
            self._wandb = None
        if self._board is not None:
            self._board.close()
            self._board = None


def _mended(path: Path) -> int:
    """Rewrite a JSON-lines file without a last line that a kill cut short; return how many rows it has."""
    return write_rows(path, read_rows(path)) if path.exists() else 0

"""Settings of the tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

from aes_r1.settings.rules import one_of, require


@dataclass
class TrackerSettings:
    """Logging to W&B or TensorBoard, beside the run's own files."""

    name: str = "offline"
    project: str = "aes-r1"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    completions: int = 8  # completions, with pictures, per logged table

    def __post_init__(self) -> None:
        one_of("tracker.name", self.name, ("offline", "wandb", "tensorboard", "none"))
        require(self.completions >= 0, "tracker.completions", self.completions, "must not be negative")

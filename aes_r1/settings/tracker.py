"""Define the settings of the tracker."""

from __future__ import annotations

from dataclasses import dataclass

from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.rules import one_of, require

_LONGEST_TAG = 64


@dataclass
@defaults("tracker/offline.yaml")
class TrackerSettings:
    """Logging to W&B or TensorBoard, in addition to the run's own files."""

    name: str = IN_YAML
    project: str = IN_YAML
    entity: str | None = IN_YAML
    group: str | None = IN_YAML
    tags: list[str] = IN_YAML
    completions: int = IN_YAML  # completions, with pictures, per logged table

    def __post_init__(self) -> None:
        for tag in self.tags:
            require(
                1 <= len(tag) <= _LONGEST_TAG,
                "tracker.tags",
                [tag],
                f"W&B takes tags of 1 to {_LONGEST_TAG} characters",
            )
        one_of("tracker.name", self.name, ("offline", "wandb", "tensorboard", "none"))
        require(self.completions >= 0, "tracker.completions", self.completions, "must not be negative")

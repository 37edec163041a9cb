"""A run's model as a Hugging Face folder with a model card: `python -m aes_r1.export RUN OUT`."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aes_r1.command import Arguments, run_plain
from aes_r1.inference.asking import FACTS_FILE, run_facts
from aes_r1.model.backbone import prompt_text
from aes_r1.report.model_card import model_card
from aes_r1.settings import InputError


def run(given: argparse.Namespace) -> int:
    folder = export(Path(given.run), Path(given.out), step=given.step)
    print(folder)
    return 0


def export(run: Path, out: Path, *, step: str = "last") -> Path:
    """Copy a model of RUN to `out` with what transformers and `aes_r1.score` need to ask it as in training.

    step: "last" (RUN/model), "best" (by validation SRCC) or a number of optimizer steps of RAPO. Beside weights,
    tokenizer and processor: README.md (the card), prompt.txt (the question in its chat template), aes_r1.json
    (sampling, intervals), evaluation.json (of the last step alone, for no other is evaluated), and a
    generation_config.json that answers greedily, in full and without a repetition penalty. InputError when RUN has no
    such model, or `out` holds anything.
    """
    model = _model(run, step)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    settings = _json(run / "settings.json")
    evaluation = _json(run / "evaluation.json") if model == run / "model" else {}
    facts = run_facts(run, model)
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
    card = model_card(settings, evaluation, counts, facts, out.name, weights=_which(run, model))
    (draft / "README.md").write_text(card, encoding="utf-8")
    if out.exists():
        out.rmdir()
    return draft.replace(out)


def _model(run: Path, step: str) -> Path:
    """The folder of the model after `step` in RUN."""
    if not (run / "settings.json").exists():
        raise InputError(f"{run}: no run (settings.json is missing); give the folder of one")
    there = _models(run)
    if step not in there:
        known = ", ".join(there) or "none yet"
        raise InputError(f"--step={step}: {run} has no such model; there are: {known}")
    return there[step]


def _models(run: Path) -> dict[str, Path]:
    """The models of RUN by step; the one under a step's number is the most exact one that there is."""
    last, best = run / "model", run / "best" / "model"
    numbered = {int(path.parent.name.removeprefix("step_")): path for path in run.glob("checkpoints/step_*/model")}
    named = {}
    if (best / "config.json").exists():
        named["best"] = best
        numbered[_json(best.with_name("validation.json"))["step"]] = best
    if (last / "config.json").exists():
        named["last"] = last
        finished = _json(run / "stages" / "rapo.json")
        if finished:
            numbered[finished["steps"]] = last
    return {**named, **{str(number): numbered[number] for number in sorted(numbered)}}


def _which(run: Path, model: Path) -> str | None:
    """What the card says of weights that are not those of the last step."""
    if model == run / "model":
        return None
    if model == run / "best" / "model":
        found = _json(model.with_name("validation.json"))
        return (
            f"These are the weights after step {found['step']} of RAPO, the best by validation (mean SRCC "
            f"{found['srcc']:.4f}, one sample a picture). Chosen by that number, they will do worse on other pictures."
        )
    return f"These are the weights after step {model.parent.name.removeprefix('step_')} of RAPO."


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = Arguments(prog="python -m aes_r1.export", description=(__doc__ or "").split(":")[0])
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument(
        "--step", default="last", help="last, best (by validation SRCC) or a number of optimizer steps (default: last)"
    )
    run_plain(parser, run)


if __name__ == "__main__":
    main()

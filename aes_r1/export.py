"""Export a run's model as a Hugging Face folder with a model card: `python -m aes_r1.export RUN OUT`."""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import contextlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.data.manifest import list_hash, read_run_manifest
from aes_r1.inference.asking import PROFILE_FILE, profile_of_run, read_profile
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import prompt_text
from aes_r1.report.model_card import Made, model_card
from aes_r1.rollout.served import ServedPolicy, probe_picture
from aes_r1.runs.cells import Evaluation
from aes_r1.runs.files import copy_folder, read_json, replacing_folder, write_json
from aes_r1.runs.folder import RunFolder, no_final_model, require_run
from aes_r1.scoring.scorer import comparison_lines, make_scorer
from aes_r1.settings import InputError, RolloutSettings, place, require

COMPARED = 8  # tokens of an answer whose log-probabilities are compared with vLLM's


def run(parsed: argparse.Namespace) -> int:
    """Export the model that the command line names; return the exit code."""
    folder, out = place(parsed.run), place(parsed.out)
    if parsed.scorer:
        require(not parsed.check_vllm, "--check-vllm", "true", "vLLM serves no scorer; leave one of the two out")
        run_folder = require_run(folder)
        scorer = make_scorer(run_folder, _model(run_folder, parsed.step), out)
        print(out)
        print("\n".join(comparison_lines(scorer)))
        return 0
    exported = export(folder, out, step=parsed.step)
    print(exported)
    if parsed.check_vllm:
        gap = compare_with_vllm(exported)
        print(f"vLLM: {COMPARED} log-probabilities of one answer differ by {gap:.1e} nats on average")
    return 0


def compare_with_vllm(folder: Path) -> float:
    """Return the mean difference, in nats, of log-probabilities here and in a vLLM that serves the exported `folder`.

    InputError where it is larger than rounding explains.
    """
    from aes_r1.serve import serving

    profile = read_profile(folder / PROFILE_FILE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.load(folder, dtype=profile.dtype_on(device), max_pixels=profile.max_pixels)
    backbone.model.to(device).eval()
    with serving(str(folder)) as url, contextlib.ExitStack() as resources:
        served = ServedPolicy(RolloutSettings(name="vllm", url=[url]), name=str(folder))
        resources.callback(served.close)
        prompt = backbone.collate([backbone.encode(probe_picture(), profile.question)])
        return served.handshake(backbone, prompt, max_new_tokens=COMPARED)


def export(folder: Path, out: Path, *, step: str = "last") -> Path:
    """Copy a model of the run in `folder` to `out`, with the files that are needed to ask it as in training.

    step: "last" (the final model), "best" (by validation SRCC) or a number of steps of RAPO. Beside weights,
    tokenizer and processor: README.md (the card), prompt.txt (the question in its chat template), aes_r1.json
    (sampling, intervals), evaluation.json (only of the final model, which alone was evaluated), and a
    generation_config.json for greedy, complete answers without a repetition penalty. Raises InputError if the run lacks
    that model, or `out` is not empty.
    """
    model, out = _model(run := require_run(folder), step), out.resolve()  # `.` has no name to derive a draft's from
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    evaluation = run.evaluation if model == run.model else Evaluation()
    profile = profile_of_run(run, model)
    with replacing_folder(out, last="config.json") as draft:
        copy_folder(model, draft)
        generation = read_json(path) if (path := draft / "generation_config.json").exists() else {}
        token_ids = {key: value for key, value in generation.items() if key.endswith("_token_id")}
        write_json(
            draft / "generation_config.json",
            {**token_ids, "do_sample": False, "max_new_tokens": profile.max_new_tokens},
        )
        (draft / "prompt.txt").write_text(prompt_text(str(draft), profile.question), encoding="utf-8")
        write_json(draft / PROFILE_FILE, asdict(profile))
        if evaluation:
            write_json(RunFolder(draft).evaluation_file, evaluation)
        counts = run.stage_values("data")
        made = Made(counts, _list_digests(run, counts), run.stage_values("cold_start"))
        family, weights = read_json(draft / "config.json")["model_type"], _which(run, model)
        card = model_card(
            *(run.settings, evaluation, made, profile, out.name),
            family=family,
            weights=weights,
            resumed=run.resumed,
            base=run.origin.get("base"),
        )
        (draft / "README.md").write_text(card, encoding="utf-8")
    return out


def _list_digests(run: RunFolder, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the run's lists of pictures by DATASET/SPLIT, of those that it still has."""
    paths = {name: run.manifest(name.replace("/", "-")) for name in names}
    return {name: list_hash(read_run_manifest(path)) for name, path in paths.items() if path.exists()}


def _model(run: RunFolder, step: str) -> Path:
    """Return the folder of the model after `step`; InputError names the steps that have one."""
    models = run.models()
    if step not in models:
        if step == "last":
            raise InputError(f"--step=last: {run}: {no_final_model(run)}")
        steps = ", ".join(models) or f"none yet ({run.state})"
        raise InputError(f"--step={step}: {run} has no such model; there are: {steps}")
    return models[step]


def _which(run: RunFolder, model: Path) -> str | None:
    """Say on the card which step the weights are from, when it is not the last."""
    if model == run.model:
        return None
    if model == run.best_model:
        best = run.best_validation
        return (
            f"These are the weights after step {best['step']} of RAPO, the best by validation (mean SRCC "
            f"{best['srcc']:.4f}, one sample a picture). Chosen by that number, they will do worse on other pictures."
        )
    return f"These are the weights after step {model.parent.name.removeprefix('step_')} of RAPO."


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 export",
        description=(__doc__ or "").split(":")[0] + ".",
        examples="aes-r1 export RUN OUT\naes-r1 export RUN OUT --step best\naes-r1 export RUN OUT --scorer",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument("out", metavar="OUT", help="a new or empty folder")
    parser.add_argument(
        "--step", default="last", help="last, best (by validation SRCC) or a number of steps (default: last)"
    )
    parser.add_argument(
        "--scorer",
        action="store_true",
        help="write the vision tower with one linear layer, which scores without language; say how it compares",
    )
    parser.add_argument(
        "--check-vllm",
        action="store_true",
        help=f"serve OUT with vLLM for a moment and compare {COMPARED} log-probabilities",
    )
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()

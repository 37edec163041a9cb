"""Find out what a model supports: each check computes the same numbers in two ways, or looks for a gradient.

The checks are those that every family in model/families.py passes in the tests, on any folder and with its own weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from aes_r1.model import backbone as backbones
from aes_r1.model import families
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, token_likelihood
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.prompts import RATING_PROMPT, answer, parse_score
from aes_r1.rollout.sampler import Rollout, keyed_uniform_noise, sample_completions
from aes_r1.settings import InputError, LoraSettings
from aes_r1.trainer.objective import policy_loss

PASS, FAIL, NOT_SUPPORTED = "pass", "FAIL", "not supported"
SIZES = ((192, 192), (224, 160), (96, 200))  # width and height of the pictures, so that prompts differ in length
SAMPLES, LENGTH, TEMPERATURE = 2, 12, 0.8
# Largest mean difference of two log-probabilities, in nats, that rounding in another order of summation can explain.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}
# Least cosine of two gradients of one loss, and largest relative difference of their norms. The tiny families of the
# tests and the shipped model reach a cosine of .999999, .998 and .999995 and norms within 2e-6, .05 and .0012.
COSINE = {"float32": 0.9999, "bfloat16": 0.98, "float16": 0.995}
NORM = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.02}
# The exceptions of a model that does not fit this code. Any other exception is a fault of the check itself.
FAULTS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, SafetensorError)


@dataclass(frozen=True)
class Finding:
    """Hold the result of one check, PASS, FAIL or NOT_SUPPORTED, and what was measured or what stands in the way."""

    check: str
    result: str
    reason: str


class Unsupported(Exception):
    """Report that a model does not support what a check tests, which is no fault, and why."""


@dataclass
class Examined:
    """Hold a loaded model with three prompts in a batch, and the folder that the last check may write."""

    backbone: Backbone
    prompts: PromptBatch
    dtype: str
    max_pixels: int
    draft: Path

    @property
    def plain(self) -> Backbone:
        """Return the same model, set to compute the prompt anew for each of its completions."""
        alone = copy.copy(self.backbone)
        alone.shares_prefix = False
        return alone

    @property
    def tolerance(self) -> float:
        """Return the largest mean difference of log-probabilities that counts as equal."""
        return TOLERANCE[self.dtype]


def examine(
    path: str | Path, *, dtype: str, max_pixels: int, device: torch.device, draft: Path, key: str | None = None
) -> Iterator[Finding]:
    """Yield the finding of each check of the model at `path`, in turn.

    The other checks follow only if the model loads and takes a picture in a prompt. draft: a folder that does not exist
    yet and gets a copy of the model, as large as the model itself.
    """
    try:
        backbone = backbones.load(path, dtype=dtype, max_pixels=max_pixels, key=key)
        backbone.model.to(device).eval()
    except (InputError, torch.OutOfMemoryError) as error:
        yield Finding("loads", NOT_SUPPORTED, str(error).splitlines()[0])
        return
    config = backbone.core.config
    size = sum(parameter.numel() for parameter in backbone.core.parameters())
    text = config.get_text_config().model_type
    yield Finding("loads", PASS, f"{config.model_type} with {text} layers, {size / 1e9:.3f} B parameters, {dtype}")
    examined: list[Examined] = []

    def prompt() -> str:
        prompts = _prompts(backbone)
        examined.append(Examined(backbone, prompts.to(device), dtype, max_pixels, draft))
        return _pictures(examined[0])

    yield (finding := _finding("one picture in a prompt", prompt))
    if finding.result == PASS:
        for name, check in CHECKS.items():
            yield _finding(name, partial(check, examined[0]))


def _finding(name: str, check: Callable[[], str]) -> Finding:
    """Run a check, and turn its result or its exception into a finding."""
    try:
        return Finding(name, PASS, check())
    except Unsupported as error:
        return Finding(name, NOT_SUPPORTED, str(error))
    except InputError as error:
        return Finding(name, FAIL, str(error))
    except torch.OutOfMemoryError:
        return Finding(name, NOT_SUPPORTED, "needs more memory than this device has; give --dtype bfloat16")
    except FAULTS as error:
        reason = (str(error).splitlines() or [""])[0]
        return Finding(name, FAIL, f"{type(error).__name__}: {reason}")


def _require(true: bool, reason: str) -> None:
    if not true:
        raise InputError(reason)


def _prompts(backbone: Backbone) -> PromptBatch:
    questions = (RATING_PROMPT, f"{RATING_PROMPT} Be brief.", RATING_PROMPT)
    pairs = enumerate(zip(SIZES, questions, strict=True))
    return backbone.collate([backbone.encode(_picture(*size, seed), question) for seed, (size, question) in pairs])


def _picture(width: int, height: int, seed: int) -> Image.Image:
    """Draw a picture of noise with a gradient."""
    noise = np.random.default_rng([seed, width, height]).integers(0, 120, (height, width, 3))
    return Image.fromarray((noise + np.linspace(0, 130, width)[None, :, None]).astype(np.uint8))


@torch.no_grad()
def _pictures(model: Examined) -> str:
    prompts, core = model.prompts, model.backbone.core
    tokens = [len(picture) for picture in prompts.pictures]
    features = families.vision_features(core, prompts.pixel_values, prompts.image_grid_thw)
    rows = {len(layer) for layer in features}
    _require(
        rows == {sum(tokens)},
        f"the vision tower gives {sorted(rows)} features for {sum(tokens)} tokens; "
        "take config.json and preprocessor_config.json from one repository",
    )
    sizes = ", ".join(f"{count} at {width}x{height}" for count, (width, height) in zip(tokens, SIZES, strict=True))
    return f"{sizes}; as many features of the tower"


def _template(model: Examined) -> str:
    backbone = model.backbone
    text = answer("a dull picture with flat light", 0.25)
    written = backbone.decode(torch.tensor(backbone.encode_answer(text)[:-1]))
    _require(parse_score(written) == 0.25, f"an answer is read back as {written!r} and holds no score")
    opened = backbone.answer_prefix.strip()
    begins = f"opens {opened}" if opened else "leaves <think> to the answer"
    return f"the prompt {begins}; a turn ends with {backbone.tokenizer.convert_ids_to_tokens(backbone.end_token)}"


def _answers(model: Examined) -> tuple[Tensor, Tensor]:
    """Return the tokens [3, T] of one answer for every prompt, and their mask."""
    words = model.backbone.encode_answer(answer("a dull picture", 0.25))[:LENGTH]
    tokens = torch.tensor([words] * len(SIZES), device=model.backbone.device)
    return tokens, torch.ones(tokens.shape, dtype=torch.bool)


def _scored(model: Examined, backbone: Backbone) -> Tensor:
    """Return the log-probabilities [3, T] of the same answer to every prompt, on the plain path."""
    tokens, mask = _answers(model)
    logps, _ = completion_likelihood(
        backbone, model.prompts, tokens, mask, torch.arange(len(SIZES)), shared_prefix=False
    )
    return logps


def _gap(first: Tensor, second: Tensor, mask: Tensor | None = None) -> float:
    """Return the mean difference of two tensors of log-probabilities, in nats, where `mask` is True."""
    differences = (first.detach().float() - second.detach().float()).abs().cpu()
    return float(differences.mean() if mask is None else differences[mask.cpu()].mean())


def _agree(model: Examined, gap: float, whose: str) -> str:
    _require(
        math.isfinite(gap) and gap <= model.tolerance,
        f"log-probabilities differ from {whose} by {gap:.1e} nats on average, more than {model.tolerance:g}",
    )
    return f"{gap:.1e} nats from {whose}"


@torch.no_grad()
def _own_forward(model: Examined) -> str:
    """Compare with transformers' own forward of every prompt alone, without padding and with its own positions."""
    backbone, (tokens, _) = model.backbone, _answers(model)
    length = tokens.shape[1]
    rows = []
    for row in range(len(SIZES)):
        prompt_row = model.prompts.select(torch.tensor([row]))
        input_ids = torch.cat([prompt_row.input_ids, tokens[row : row + 1]], dim=1)
        grid = prompt_row.image_grid_thw.to(input_ids.device)
        pixels = prompt_row.pixel_values.to(next(backbone.core.parameters()).dtype)
        inputs = families.own_inputs(backbone.core, input_ids, pixels, grid)
        logits = backbone.core(**inputs).logits[0, -length - 1 : -1]
        banned = backbone.banned_on(logits.device)
        rows.append(token_likelihood(logits, tokens[row], nn.Identity(), banned=banned)[0])
    return _agree(model, _gap(_scored(model, backbone), torch.stack(rows)), "those of transformers' own forward")


def _sampled(model: Examined, backbone: Backbone) -> tuple[Rollout, Tensor]:
    """Draw completions; return them and the trainer's log-probabilities of them on the same path."""
    noise = keyed_uniform_noise([("conformance", row) for row in range(len(SIZES) * SAMPLES)], LENGTH)
    rollout = sample_completions(
        backbone, model.prompts, num_samples=SAMPLES, max_new_tokens=LENGTH, temperature=TEMPERATURE, noise=noise
    )
    logps, _ = completion_likelihood(
        backbone, model.prompts, rollout.tokens, rollout.mask.cpu(), _image_of(), temperature=TEMPERATURE
    )
    return rollout, logps


def _image_of() -> Tensor:
    return torch.arange(len(SIZES)).repeat_interleave(SAMPLES)


@torch.no_grad()
def _plain_sampling(model: Examined) -> str:
    rollout, logps = _sampled(model, model.plain)
    reason = _agree(model, _gap(rollout.logps, logps, rollout.mask), "the trainer's")
    return f"{int(rollout.mask.sum())} tokens, their log-probabilities {reason}"


def _require_shared_prefix(model: Examined) -> None:
    if not model.backbone.shares_prefix:
        text = model.backbone.core.config.get_text_config().model_type
        raise Unsupported(
            f"{text} layers have attention that is not plain and causal; every completion computes its prompt"
        )


@torch.no_grad()
def _shared_sampling(model: Examined) -> str:
    _require_shared_prefix(model)
    rollout, logps = _sampled(model, model.backbone)
    return f"log-probabilities {_agree(model, _gap(rollout.logps, logps, rollout.mask), 'the trainer')}"


def _gradients(model: Examined, backbone: Backbone) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a step's forward and backward pass: return log-probabilities and the gradient of every trained weight."""
    with torch.no_grad():
        rollout, _ = _sampled(model, model.plain)
    backbone.model.zero_grad(set_to_none=True)
    mask = rollout.mask.cpu()
    logps, _ = completion_likelihood(backbone, model.prompts, rollout.tokens, mask, _image_of())
    mask = rollout.mask
    # Of different size, so that two equal completions do not cancel each other's gradient.
    advantages = torch.tensor([1.0, -0.5], device=logps.device).repeat(len(SIZES))
    loss, _ = policy_loss(
        logps, logps.detach(), None, advantages, mask, clip_low=0.2, clip_high=0.2, kl_coef=0.0,
        aggregation="sequence_mean", normalizer=len(logps),
    )  # fmt: skip
    _require(bool(torch.isfinite(loss)), f"the loss is {float(loss.detach())}")
    loss.backward()
    trained = {name: p for name, p in backbone.core.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.detach().clone() for name, p in trained.items() if p.grad is not None}
    backbone.model.zero_grad(set_to_none=True)
    broken = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
    _require(not broken, f"{len(broken)} gradients are not finite ({', '.join(broken[:2])})")
    return logps, {name: gradient for name, gradient in gradients.items() if bool(gradient.any())}


def _training(model: Examined) -> str:
    """Look for a gradient in every weight of the language layers and in the vision tower."""
    backbone = model.plain
    backbones.freeze(backbone.model, vision=False)
    _, gradients = _gradients(model, backbone)
    names = [name for name, _ in backbone.core.named_parameters()]
    layers = [name for name in names if ".layers." in name and not families.is_vision(name)]
    silent = [name for name in layers if name not in gradients]
    _require(not silent, f"{len(silent)} of {len(layers)} language weights get no gradient ({', '.join(silent[:2])})")
    of_tower = set(families.vision_tower(backbone.core).parameters())
    tower = [name for name, parameter in backbone.core.named_parameters() if parameter in of_tower]
    reached = sum(name in gradients for name in tower)
    _require(reached > 0, "no weight of the vision tower gets a gradient")
    return f"loss finite; gradient in all {len(layers)} language weights and {reached} of {len(tower)} of the tower"


def _shared_training(model: Examined) -> str:
    """Compare log-probabilities and gradients of the path that computes a prompt once with those of the plain one."""
    _require_shared_prefix(model)
    backbones.freeze(model.backbone.model, vision=False)
    plain_logps, plain = _gradients(model, model.plain)
    logps, shared = _gradients(model, model.backbone)
    _require(shared.keys() == plain.keys(), "other weights get a gradient than on the plain path")
    reason = _agree(model, _gap(logps, plain_logps), "the plain path's")
    # Compared separately, because the tower's gradient, which comes only through the shared prompt, is smaller.
    language = [name for name in plain if not families.is_vision(name)]
    tower = [name for name in plain if families.is_vision(name)]
    cosines = [_same_gradient(model, shared, plain, language, "language layers")]
    cosines += [_same_gradient(model, shared, plain, tower, "vision tower")] if tower else []
    return f"log-probabilities {reason}; cosine of the gradients {min(cosines):.6f}"


def _same_gradient(
    model: Examined, shared: dict[str, Tensor], plain: dict[str, Tensor], names: list[str], part: str
) -> float:
    """Return the cosine of the gradients of the weights `names`; InputError where direction or size differ."""
    dot = sum(float((shared[name].float() * plain[name].float()).sum()) for name in names)
    norms = [math.sqrt(sum(float(side[name].float().square().sum()) for name in names)) for side in (shared, plain)]
    _require(min(norms) > 0, f"the gradient of the {part} is 0 on one of the two paths")
    cosine, ratio = dot / (norms[0] * norms[1]), norms[0] / norms[1]
    least, most = COSINE[model.dtype], NORM[model.dtype]
    _require(
        cosine >= least,
        f"the gradient of the {part} points elsewhere than the plain path's (cosine {cosine:.4f}, less than {least:g})",
    )
    _require(
        abs(ratio - 1) <= most,
        f"the gradient of the {part} is {ratio:.4g} times as large as the plain path's, more than {most:g} off",
    )
    return cosine


def _adapter(model: Examined) -> str:
    """Add an adapter to all parts and look for its gradient, as in training; it stays for the next check."""
    backbone = model.backbone
    try:
        backbones.add_adapter(backbone, LoraSettings(rank=2, alpha=4.0, target="all"))
    except InputError as error:
        raise Unsupported(str(error)) from error
    _, gradients = _gradients(model, model.plain)
    # Only B is looked at, because A gets a gradient only when B is not 0.
    layers = [name for name, _ in backbone.core.named_parameters() if ".lora_B." in name]
    tower = [name for name in layers if families.is_vision(name)]
    language = [name for name in layers if name not in tower]
    silent = [name for name in language if name not in gradients]
    _require(not silent, f"{len(silent)} of {len(language)} adapted layers get no gradient ({', '.join(silent[:2])})")
    reached = sum(name in gradients for name in tower)
    return f"gradient in all {len(language)} adapted language layers and {reached} of {len(tower)} of the tower"


@torch.no_grad()
def _saving(model: Examined) -> str:
    """Move the adapter away from 0, merge it, save the model, load it again and compare."""
    backbone = model.backbone
    generator = torch.Generator().manual_seed(0)
    for name, weight in backbone.core.named_parameters():
        if ".lora_B." in name:
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    before, adapted = _scored(model, model.plain), hasattr(backbone.model, "merge_and_unload")
    backbone = backbones.merge_adapter(backbone)
    backbone.save(model.draft)
    loaded = backbones.load(model.draft, dtype=model.dtype, max_pixels=model.max_pixels)
    loaded.model.to(backbone.device).eval()
    how = "those before saving, with the adapter merged" if adapted else "those before saving"
    return _agree(model, _gap(before, _scored(model, loaded)), how)


CHECKS: dict[str, Callable[[Examined], str]] = {
    "chat template": _template,
    "log-probabilities": _own_forward,
    "plain path: sampling": _plain_sampling,
    "plain path: training": _training,
    "shared prompt: sampling": _shared_sampling,
    "shared prompt: training": _shared_training,
    "adapter": _adapter,
    "save, load": _saving,
}

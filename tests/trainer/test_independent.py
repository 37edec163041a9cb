"""Loss, gradients and advantages against another public implementation: TRL's own code on the same numbers.

Log-probabilities on its side come from the transformers model's plain forward, so the whole chain is independent:
shared prefix, chunked likelihood and loss here; padded batch, full logits and TRL's loss there.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from aes_r1.model.likelihood import completion_likelihood
from aes_r1.reward.length import overlong_penalty
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.trainer.objective import Surrogate, advantage_by_reward, group_advantage, loss_divisor, policy_loss
from aes_r1.trainer.step_rewards import StepRewards, subtract_kl

AGGREGATION = {"grpo": "sequence_mean", "dapo": "token_mean", "dr_grpo": "constant"}
SAMPLES, LENGTH = 4, 12


def trl_trainer(loss_type: str, backbone, temperature: float):
    """A GRPOTrainer that holds what its loss reads, and asks the transformers model for log-probabilities."""
    trl = pytest.importorskip("trl")
    accelerate = pytest.importorskip("accelerate")

    def log_probabilities(model, input_ids, attention_mask, logits_to_keep, **inputs):
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **{name: inputs[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")},
        ).logits[:, -logits_to_keep - 1 : -1]
        logps = (logits / temperature).masked_fill(backbone.banned, float("-inf")).log_softmax(dim=-1)
        chosen = logps.gather(2, input_ids[:, -logits_to_keep:, None])[..., 0]
        return chosen.masked_fill(chosen.isinf(), 0.0), torch.zeros_like(chosen), None

    trainer = trl.GRPOTrainer.__new__(trl.GRPOTrainer)
    trainer._get_per_token_logps_and_entropies = log_probabilities
    trainer.accelerator = accelerate.Accelerator(cpu=True)
    trainer.args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
    trainer.model = backbone.model.train()
    trainer.loss_type, trainer.importance_sampling_level, trainer.beta = loss_type, "token", 0.05
    trainer.epsilon_low, trainer.epsilon_high, trainer.max_completion_length = 0.2, 0.28, LENGTH
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold, trainer.use_vllm = 1.0, None, False
    trainer.aux_loss_enabled = trainer._entropy_bonus_enabled = False
    trainer.current_gradient_accumulation_steps = 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    return trainer


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("loss_type", AGGREGATION)
@pytest.mark.slow
def test_loss_and_gradients_are_trls(backbone, prompts, loss_type):
    with torch.no_grad():  # make ends likely, so that lengths differ
        backbone.core.lm_head.weight[backbone.end_token] *= 4
    rows = len(prompts) * SAMPLES
    noise = keyed_uniform_noise([("independent", row) for row in range(rows)], LENGTH)
    rollout = sample_completions(
        backbone, prompts, num_samples=SAMPLES, max_new_tokens=LENGTH, temperature=0.9, noise=noise
    )
    image_of = torch.arange(rows) // SAMPLES
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *rollout.logps.shape, generator=generator) * 0.3
    old, reference = (rollout.logps + one for one in noise)  # off policy, so that both clips and the penalty count
    advantages = group_advantage(torch.rand(len(prompts), SAMPLES, generator=generator)).flatten()

    backbone.model.zero_grad()
    logps, _ = completion_likelihood(
        backbone, prompts, rollout.tokens, rollout.mask, image_of, temperature=0.9, shared_prefix=True
    )
    divisor = loss_divisor(rollout.mask, AGGREGATION[loss_type], LENGTH)
    ours, metrics = policy_loss(
        logps, old, reference, advantages, rollout.mask,
        clip_low=0.2, clip_high=0.28, kl_coef=0.05, aggregation=AGGREGATION[loss_type], normalizer=divisor,
    )  # fmt: skip
    ours.backward()
    found = gradients(backbone.model)

    backbone.model.zero_grad()
    copies = prompts.select(image_of)
    every = torch.cat([copies.input_ids, rollout.tokens], dim=1)
    trainer = trl_trainer(loss_type, backbone, 0.9)
    theirs = trainer._compute_loss(
        backbone.model,
        {
            "prompt_ids": copies.input_ids,
            "prompt_mask": copies.attention_mask.long(),
            "completion_ids": rollout.tokens,
            "completion_mask": rollout.mask.long(),
            "pixel_values": copies.pixel_values,
            "image_grid_thw": copies.image_grid_thw,
            "mm_token_type_ids": (every == backbone.image_token).int(),
            "advantages": advantages,
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": rollout.mask.sum(),
        },
    )
    theirs.backward()
    wanted = gradients(backbone.model)

    assert len(set(rollout.mask.sum(dim=1).tolist())) > 1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    said = trainer._metrics["train"]
    assert float(metrics["kl_k3"]) == pytest.approx(said["kl"][0], rel=1e-4)
    assert float(metrics["clip_low_fraction"]) == pytest.approx(said["clip_ratio/low_mean"][0], abs=1e-6)
    assert float(metrics["clip_high_fraction"]) == pytest.approx(said["clip_ratio/high_mean"][0], abs=1e-6)
    assert float(metrics["clip_low_fraction"] + metrics["clip_high_fraction"]) > 0


# Aggregation and Surrogate beside the settings that ask TRL for the same, for every objective that both have.
FORMS = {
    "ppo": ("sequence_mean", {}, {"loss_type": "grpo"}),
    "two-sided clip": ("sequence_mean", {"ratio_cap": 1.5}, {"loss_type": "grpo", "delta": 1.5}),
    "cispo": ("token_mean", {"kind": "cispo"}, {"loss_type": "cispo"}),
    "sapo": ("sequence_mean", {"kind": "sapo"}, {"loss_type": "sapo"}),
    "constant": ("constant", {}, {"loss_type": "dr_grpo"}),
    "entropy bonus": ("token_mean", {"entropy_coef": 0.3}, {"loss_type": "dapo", "entropy_coef": 0.3}),
}


@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_every_objective_is_trls(form, ratio_level, kl_coef):
    """Off policy, with ratios on both sides of every bound; a sequence's ratio is the geometric mean in both."""
    aggregation, ours, theirs = FORMS[form]
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        logps, old, reference, entropy = (
            -3 * torch.rand(6, LENGTH, generator=generator, dtype=torch.float64) for _ in range(4)
        )
        mask = torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (6, 1), generator=generator)
        advantages = torch.randn(6, generator=generator, dtype=torch.float64)
        given = {"old_logps": old, "ref_logps": reference if kl_coef else None, "advantages": advantages, "mask": mask}
        found, wanted = ([value.clone().requires_grad_() for value in (logps, entropy)] for _ in range(2))
        options = {"clip_low": 0.2, "clip_high": 0.28, "kl_coef": kl_coef, "aggregation": aggregation}
        loss, _ = policy_loss(
            found[0], **given, **options, surrogate=Surrogate(ratio=ratio_level, **ours), entropy=found[1],
            normalizer=loss_divisor(mask, aggregation, LENGTH),
        )  # fmt: skip
        expected = trls_loss(*wanted, given, ratio_level=ratio_level, kl_coef=kl_coef, **theirs)
        torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)
        for one in (loss, expected):
            one.backward()
        for mine, other in zip(found, wanted, strict=True):
            zero = torch.zeros_like(logps)  # the entropy has a gradient only where there is a bonus
            torch.testing.assert_close(
                zero if mine.grad is None else mine.grad, zero if other.grad is None else other.grad,
                atol=1e-12, rtol=1e-12,
            )  # fmt: skip


def trls_loss(logps, entropy, given, *, ratio_level, kl_coef, loss_type, delta=None, entropy_coef=0.0):
    """Return the loss of a GRPOTrainer whose model gives these log-probabilities and entropies."""
    trl = pytest.importorskip("trl")
    accelerate = pytest.importorskip("accelerate")
    trainer = trl.GRPOTrainer.__new__(trl.GRPOTrainer)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, entropy, None)
    trainer.accelerator = accelerate.Accelerator(cpu=True)
    trainer.args = SimpleNamespace(
        delta=delta, use_bias_correction_kl=False, steps_per_generation=1,
        sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
    )  # fmt: skip
    trainer.model = torch.nn.Identity().train()
    trainer.loss_type, trainer.importance_sampling_level, trainer.beta = loss_type, ratio_level, kl_coef
    trainer.epsilon_low, trainer.max_completion_length = 0.2, LENGTH
    trainer.epsilon_high = 1.28 if loss_type == "cispo" else 0.28  # of CISPO it is the bound itself
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold, trainer.use_vllm = 1.0, None, False
    trainer.aux_loss_enabled = trainer.use_adaptive_entropy = False
    trainer._entropy_bonus_enabled, trainer.entropy_coef = entropy_coef > 0, entropy_coef
    trainer.current_gradient_accumulation_steps = 1
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    tokens = torch.zeros_like(given["mask"], dtype=torch.long)
    return trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": tokens[:, :1],
            "prompt_mask": torch.ones_like(tokens[:, :1]),
            "completion_ids": tokens,
            "completion_mask": given["mask"].long(),
            "advantages": given["advantages"],
            "old_per_token_logps": given["old_logps"],
            "ref_per_token_logps": given["ref_logps"],
            "num_items_in_batch": given["mask"].sum(),
        },
    )


def trls_branch(method: Callable, condition: str, result: str, values: dict) -> torch.Tensor:
    """Run the branch of a TRL method that stands under `condition` and sets `result`, on `values`; return what it sets.

    The methods around these branches sample with a whole trainer, and are too long to be called for a few lines.
    """
    found = [
        node.body
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method))))
        if isinstance(node, ast.If) and ast.unparse(node.test) == condition
        if any(isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == result for line in node.body)
    ]
    assert len(found) == 1, f"TRL has {len(found)} branches `if {condition}` that set {result}"
    variables = {**inspect.getmodule(method).__dict__, **values}
    exec(compile(ast.Module(found[0], []), "trl", "exec"), variables)
    return variables[result]


REWARDS = ("rank", "error", "format")
WEIGHTS = {"rank": 1.0, "error": 0.5, "format": 2.0}


@pytest.mark.parametrize("number", [torch.float64, torch.float32])
@pytest.mark.slow
def test_the_advantage_of_each_reward_is_trls(number):
    """A reward may be the same for a whole group, where both divide by their epsilon alone."""
    trl = pytest.importorskip("trl")
    largest = 0.0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        rewards = torch.rand(6, 8, 3, generator=generator)
        rewards[..., 2] = (rewards[..., 2] > 0.1).float()  # most outputs can be read, in some groups all of them
        rewards[0, :, 1] = 0.7
        trainer = SimpleNamespace(reward_funcs=REWARDS, reward_weights=torch.tensor(list(WEIGHTS.values())))
        theirs = trls_branch(
            trl.GRPOTrainer._generate_and_score_completions,
            "self.multi_objective_aggregation == 'normalize_then_sum'",
            "advantages",
            {  # no output without any reward: an unreadable one earns 0 here
                "self": trainer, "num_generations": 8, "device": "cpu",
                "rewards_per_func": rewards.view(-1, 3).to(number),
                "unscorable_mask": torch.zeros(48, dtype=torch.bool),
            },
        )  # fmt: skip
        ours = advantage_by_reward(dict(zip(REWARDS, rewards.unbind(-1), strict=True)), WEIGHTS).flatten()
        largest = max(largest, float((ours - theirs).abs().max()))
    assert largest < {torch.float64: 3e-7, torch.float32: 2e-6}[number]  # here a float32 is rounded once, at the end


@pytest.mark.slow
def test_the_divergence_in_the_reward_is_trls():
    trl = pytest.importorskip("trl")
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        logps, reference = (-3 * torch.rand(8, LENGTH, generator=generator, dtype=torch.float64) for _ in range(2))
        mask = torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (8, 1), generator=generator)
        total = torch.rand(2, 4, generator=generator, dtype=torch.float64)
        theirs = trls_branch(
            trl.RLOOTrainer._generate_and_score_completions,
            "self.beta != 0.0",
            "rewards",
            {
                "self": SimpleNamespace(beta=0.05), "gather": lambda value: value, "rewards": total.flatten(),
                "old_per_token_logps": logps, "ref_per_token_logps": reference, "completion_mask": mask.long(),
            },
        )  # fmt: skip
        rewards = StepRewards(total, total[:, 0], total, total, {}, {}, total[:, 0] < 0, slice(0, 2), None)
        found = subtract_kl(
            rewards, SimpleNamespace(logps=logps, mask=mask), reference, coef=0.05,
            engine=SimpleNamespace(all_gather=lambda value: value),
        ).total  # fmt: skip
        assert not torch.equal(found, total)
        torch.testing.assert_close(found.flatten(), theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("limit", "soft"), [(100, 20), (160, 32), (64, 64), (7, 3)])
def test_the_overlong_punishment_is_trls(limit, soft):
    """TRL states the length of the last part, this package where it begins as a share of the limit."""
    rewards = pytest.importorskip("trl.rewards")
    lengths = list(range(limit + 5))
    theirs = rewards.get_soft_overlong_punishment(limit, soft)([[0] * length for length in lengths])
    ours = overlong_penalty(torch.tensor([lengths]), limit=limit, begin=1 - soft / limit)
    assert min(theirs) == -1
    torch.testing.assert_close(ours[0], torch.tensor(theirs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing_but_memory(backbone, prompts, shared):
    tokens = torch.tensor([backbone.encode_answer("a strong picture with deep shadow")] * 6)
    mask, image_of = torch.ones_like(tokens, dtype=torch.bool), torch.arange(6) // 2
    calls, found = [0], []
    backbone.core.model.language_model.layers[0].mlp.register_forward_pre_hook(
        lambda *_: calls.__setitem__(0, calls[0] + 1)
    )
    backbone.model.train()
    for checkpointing in (False, True):
        if checkpointing:
            backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        backbone.model.zero_grad()
        calls[0] = 0
        logps, _ = completion_likelihood(backbone, prompts, tokens, mask, image_of, shared_prefix=shared)
        logps.sum().backward()
        assert calls[0] == 1 + checkpointing  # the layer ran again for the gradient
        found.append((logps.detach(), gradients(backbone.model)))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-6)

"""List the names of settings in other frameworks and papers, so that whoever types one is told its name here."""

from __future__ import annotations

from collections.abc import Collection

# {name elsewhere: our keys}. A name includes its group where its last part alone is ambiguous. A name has several keys
# where two stages have such a setting, or where several settings here together do what it does.
NAMES: dict[str, tuple[str, ...]] = {
    # TRL (GRPOConfig and what it inherits from transformers) and peft
    "learning_rate": ("trainer.lr", "cold_start.lr"),
    "lr_scheduler_type": ("trainer.lr_schedule",),
    "warmup_ratio": ("trainer.warmup_steps", "cold_start.warmup_ratio"),
    "num_train_epochs": ("trainer.epochs", "cold_start.epochs"),
    "per_device_train_batch_size": ("trainer.micro_batch_size", "cold_start.micro_batch_size"),
    "gradient_accumulation_steps": ("trainer.images_per_step", "trainer.micro_batch_size", "cold_start.batch_size"),
    "generation_batch_size": ("trainer.images_per_step", "trainer.num_samples"),
    "steps_per_generation": ("trainer.minibatches",),
    "num_iterations": ("trainer.inner_epochs",),
    "num_generations": ("trainer.num_samples",),
    "num_generations_eval": ("evaluation.n_samples",),
    "per_device_eval_batch_size": ("evaluation.batch_size",),
    "max_completion_length": ("trainer.max_new_tokens",),
    "beta": ("trainer.kl_coef",),
    "epsilon": ("trainer.clip_low", "trainer.clip_high", "reward.error.epsilon"),
    "epsilon_high": ("trainer.clip_high",),
    "delta": ("trainer.ratio_cap",),
    "loss_type": ("trainer.aggregation", "trainer.clip"),
    "importance_sampling_level": ("trainer.ratio",),
    "scale_rewards": ("trainer.scale_advantage",),
    "multi_objective_aggregation": ("trainer.advantage",),
    "reward_weights": ("reward.rank.weight", "reward.error.weight"),
    "mask_truncated_completions": ("trainer.mask_truncated",),
    "sapo_temperature_pos": ("trainer.sapo_temperatures",),
    "sapo_temperature_neg": ("trainer.sapo_temperatures",),
    "adam_beta1": ("trainer.betas",),
    "adam_beta2": ("trainer.betas",),
    "adam_epsilon": ("trainer.eps",),
    "save_steps": ("trainer.save_every", "cold_start.save_every"),
    "save_total_limit": ("trainer.keep_checkpoints",),
    "eval_steps": ("trainer.eval_every",),
    "log_completions": ("trainer.completions_every",),
    "resume_from_checkpoint": ("trainer.resume",),
    "vllm_server_base_url": ("rollout.url",),
    "vllm_importance_sampling_cap": ("rollout.cap",),
    "vllm_importance_sampling_clip_max": ("rollout.cap",),
    "use_vllm": ("rollout",),
    "output_dir": ("out",),
    "report_to": ("tracker",),
    "project": ("tracker.project",),
    "deepspeed": ("engine",),
    "model_name_or_path": ("model.path",),
    "torch_dtype": ("model.dtype",),
    "bf16": ("model.dtype",),
    "load_in_4bit": ("model.quantize",),
    "use_liger_kernel": ("model.kernels",),
    "lora_r": ("model.lora.rank",),
    "lora.r": ("model.lora.rank",),
    "lora_alpha": ("model.lora.alpha",),
    "lora_dropout": ("model.lora.dropout",),
    "lora_target_modules": ("model.lora.target", "model.lora.target_modules"),
    # verl, EasyR1 and OpenRLHF
    "rollout.n": ("trainer.num_samples",),
    "n_samples_per_prompt": ("trainer.num_samples",),
    "rollout_batch_size": ("trainer.images_per_step",),
    "train_batch_size": ("trainer.images_per_step", "cold_start.batch_size"),
    "global_batch_size": ("trainer.minibatches",),
    "ppo_mini_batch_size": ("trainer.minibatches",),
    "ppo_epochs": ("trainer.inner_epochs",),
    "ppo_micro_batch_size_per_gpu": ("trainer.micro_batch_size",),
    "micro_batch_size_per_device_for_update": ("trainer.micro_batch_size",),
    "ppo_max_token_len_per_gpu": ("trainer.micro_batch_tokens",),
    "max_response_length": ("trainer.max_new_tokens",),
    "cliprange": ("trainer.clip_low", "trainer.clip_high"),
    "clip_ratio": ("trainer.clip_low", "trainer.clip_high"),
    "eps_clip": ("trainer.clip_low", "trainer.clip_high"),
    "clip_ratio_low": ("trainer.clip_low",),
    "clip_ratio_high": ("trainer.clip_high",),
    "clip_ratio_c": ("trainer.ratio_cap",),
    "clip_ratio_dual": ("trainer.ratio_cap",),
    "kl_loss_coef": ("trainer.kl_coef",),
    "init_kl_coef": ("trainer.kl_coef",),
    "kl_ctrl.kl_coef": ("trainer.kl_reward_coef",),
    "use_kl_in_reward": ("trainer.kl_reward_coef",),
    "entropy_coeff": ("trainer.entropy_coef",),
    "loss_agg_mode": ("trainer.aggregation",),
    "loss_avg_mode": ("trainer.aggregation",),
    "loss_mode": ("trainer.clip", "trainer.ratio"),
    "adv_estimator": ("trainer.advantage",),
    "norm_adv_by_std_in_grpo": ("trainer.scale_advantage",),
    "grad_clip": ("trainer.max_grad_norm",),
    "gradient_clipping": ("trainer.max_grad_norm",),
    "lr_warmup_steps": ("trainer.warmup_steps",),
    "total_epochs": ("trainer.epochs",),
    "total_training_steps": ("trainer.max_steps",),
    "save_freq": ("trainer.save_every",),
    "test_freq": ("trainer.eval_every",),
    "val_freq": ("trainer.eval_every",),
    "train_files": ("data.root",),
    "train_max_samples": ("data.limit",),
    "n_gpus_per_node": ("processes",),
    "freeze_vision_tower": ("model.freeze_vision",),
    "experiment_name": ("run_name",),
    "project_name": ("tracker.project",),
    # DAPO and GRPO, and the letters of the paper
    "refill_rounds": ("trainer.dynamic_sampling",),
    "online_filtering": ("trainer.dynamic_sampling",),
    "filter_groups.enable": ("trainer.dynamic_sampling",),
    "surrogate": ("trainer.clip",),
    "overlong_buffer.enable": ("trainer.overlong_penalty",),
    "overlong_buffer.penalty_factor": ("trainer.overlong_penalty",),
    "overlong_buffer.len": ("trainer.overlong_from",),
    "group_size": ("trainer.num_samples",),
    "K": ("trainer.num_samples",),
    "G": ("trainer.num_samples",),
    "N": ("trainer.images_per_step",),
}


def ours(name: str, known: Collection[str]) -> list[str]:
    """Return the keys, of those `known`, that `name` has here; empty where no other framework has such a name.

    Only the end of a dotted name counts, as each framework has groups of its own. Where some of the keys are in the
    group that was typed (cold_start.learning_rate), only those are returned.
    """
    parts = name.replace("-", "_").split(".")
    ends = (".".join(parts[index:]) for index in range(len(parts)))
    keys = next((NAMES[end] for end in ends if end in NAMES), ())
    keys_here = [key for key in keys if key in known]
    return [key for key in keys_here if key.startswith(f"{parts[0]}.")] or keys_here


def told(name: str, known: Collection[str]) -> str:
    """Return "; its name here: KEY", or an empty text."""
    keys = ours(name, known)
    return f"; its name{'s' * (len(keys) > 1)} here: {', '.join(keys)}" if keys else ""

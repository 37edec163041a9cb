"""Explain every metric in one line; metrics without a line are refused, so every curve can be looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping

# o_ik: score of completion k of picture i; s_i: the picture's mean opinion; p_c: 1 if s_i >= s_j, else 0 (an equal s_j
# gives 0.5 with reward.rank.ties=half); p_ik: probability that o_ik is above the scores of picture j, by the pairwise
# model; sigma: reward.error.sigma.
GLOSSARY = {
    "reward/total": "mean over completions of the weighted sum of the rewards below that have a weight",
    "reward/rank": "mean over completions of mean_j sqrt(p_c p_ik) + sqrt((1 - p_c)(1 - p_ik)); 0: parse failed",
    "reward/error": "mean over completions of exp(-(score - opinion)^2 / (2 sigma^2)) + epsilon; 0: parse failed",
    "reward/binary": "share of completions with |o_ik - s_i| < threshold",
    "reward/pair": "share of completions that name the better one of two pictures",
    "reward/format": "share of completions that parse_score can read",
    "reward/twin": "mean over completions of twin pairs: sqrt of the probability that the unedited picture is above",
    "reward/distribution": "mean over completions of 1 + c mean_j |o_ik - o_ij| - mean over raters of |o_ik - opinion|",
    "reward/sub_<dimension>": "mean over completions of w_rank rank + w_error error of a sub-score; 0: it is missing",
    "reward/custom": "mean over completions of the function that reward.custom names",
    "reward/judge": "mean over completions of the judge's rating / 10 (unread: its picture's mean); 0: parse failed",
    "reward/judge_unread": "share of completions with a critique to whose question the judge gave no readable reply",
    "reward/kl": "mean over completions of the sum over tokens of log pi - log pi_ref, nats, where it is in the reward",
    "reward/overlong": "mean over completions of -(length - soft limit) / (limit - soft limit) in [-1, 0], if on",
    "reward/faithfulness": "mean over completions of the critique's agreement with known ratings of the dimensions",
    "reward/read_back": "reward/error of the reference model's score after the words, with the picture blanked",
    "reward/information": "mean over completions of log pi_ref(critique | own picture) less that under others, nats",
    "policy/loss": "the minimised objective: -surrogate + kl_coef KL_k3 - entropy_coef entropy, aggregated",
    "policy/entropy": "mean over completion tokens of -sum_v pi(v) log pi(v), nats, at the sampling temperature",
    "policy/kl_k1": "mean over the loss's tokens of log pi - log pi_ref",
    "policy/kl_k3": "mean over the loss's tokens of exp(d) - d - 1, d = log pi_ref - log pi, at most 20",
    "policy/clip_low_fraction": "share of the loss's tokens bounded from below: ratio < 1 - clip_low, advantage < 0",
    "policy/clip_high_fraction": "share of the loss's tokens bounded from above: ratio > 1 + clip_high, advantage > 0",
    "policy/grad_norm": "L2 norm of the whole gradient before clipping",
    "policy/skipped_steps": "optimizer steps that were skipped because loss or gradient was not finite",
    "policy/ratio_max": "maximum over the loss's tokens of exp(log pi - log pi_old); ratio=sequence: of the mean",
    "rollout/parse_failure_rate": "share of completions that parse_score cannot read",
    "rollout/truncated_rate": "share of completions cut at trainer.max_new_tokens",
    "rollout/zero_spread_groups": "share of pictures whose K completions earn the same, so that their advantage is 0",
    "rollout/refilled": "share of the step's pictures that were drawn in place of those of equal rewards",
    "rollout/length_mean": "mean completion length, tokens",
    "rollout/mismatch_mean": "mean over completion tokens of |log pi of the sampler - log pi of the trainer|, nats",
    "rollout/mismatch_max": "maximum of the same; both are over the first minibatch, before the first update",
    "rollout/mismatch_k3": "mean of exp(d) - 1 - d, d = log pi of the trainer - log pi of the sampler (vLLM rollouts)",
    "rollout/capped_fraction": "share of completion tokens whose importance weight exp(d) is cut to rollout.cap",
    "rollout/effective_sample_size": "(sum of exp(d))^2 / (tokens * sum of exp(d)^2), before anything is cut",
    "rollout/score_mean": "mean of the scores that could be read",
    "rollout/score_std": "standard deviation of the scores that could be read",
    "sft/loss": "mean over target tokens of -log pi(token), nats",
    "sft/skipped_steps": "1 when the optimizer step was skipped because loss or gradient was not finite, else 0",
    "sft/entropy": "mean over tokens of sampled validation answers of -sum_v pi(v) log pi(v), nats, at temperature 1",
    "sft/answered": "share of sampled validation answers that parse_score can read",
    "eval/<dataset>/srcc": "Spearman correlation of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/plcc": "Pearson correlation of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/krcc": "Kendall tau-b of prediction and MOS; failed parses count as the mean answer",
    "eval/<dataset>/mae": "mean of |predicted - MOS| on the 0..1 scale; failed parses count as the mean answer",
    "eval/<dataset>/parse_failure_rate": "share of pictures whose answer parse_score cannot read",
    "opinions/emd": "mean over pictures of the area between the distribution functions of scores and raters' opinions",
    "opinions/crps": "mean over pictures of E |score - opinion| - 1/2 E |score - another score of the picture|",
    "opinions/crps_of_raters": "the CRPS of the raters' own opinions as scores; on average no model gets below it",
    "opinions/kl": "mean over pictures of KL(opinions | scores) on raters' levels, nats; smoothed by one more score",
    "critique/distinct": "different greedy critiques of the first 100 validation pictures (step 0: before RAPO)",
    "critique/words_srcc": "Spearman correlation of MOS and how favourable the words of those critiques are",
    "critique/information_nats": "log pi(critique | own picture) - its mean under two others, nats; of 50 critiques",
    "critique/score_information_nats": "the same for the answer's tokens, after the critique if it comes first",
    "time/wait_s": "seconds of the step spent waiting for pictures to be read",
    "time/rollout_s": "seconds sampling the K completions of the step",
    "time/push_s": "seconds in which vLLM servers are given the weights of the step",
    "time/critique_s": "seconds rewarding the critiques of the step (trainer.credit=parts)",
    "time/judge_s": "seconds in which the judge rated the completions of the step (reward.judge)",
    "time/reference_s": "seconds computing old and reference log-probabilities of the step",
    "time/update_s": "seconds of forward, backward and optimizer of the step",
    "time/evaluate_s": "seconds of the validation of the step",
    "time/step_s": "seconds of the whole step without validation and saving",
    "perf/tokens_per_s": "completion tokens of the step / its seconds (cold start: target tokens / update seconds)",
    "perf/peak_memory_gb": "peak memory of rank 0 since the run started, 10^9 bytes: its GPU's, or the resident set",
    "perf/mfu": "operations of the update, without repeated ones, / (its seconds x all cards' dense 16-bit peak)",
    "lr": "learning rate of the optimizer step",
    "distill/kept": "critiques that passed every filter (aes_r1.distill)",
    "distill/rejected": "critiques that a filter rejected, and pictures without an answer",
    "distill/kept_rate": "kept / (kept + rejected)",
    "distill/usd": "price of the calls of expert and judge, where the price of every model is known",
}


def definition(name: str) -> str:
    """Return the glossary line of a metric name ("eval/para/srcc" has that of "eval/<dataset>/srcc").

    Columns of an evaluation, such as STAGE/DATASET/SPLIT/PROTOCOL/opinions/emd, have that of opinions/emd. KeyError for
    a name without a line.
    """
    name = re.sub(r"^reward/sub_.+", "reward/sub_<dimension>", name)
    name = re.sub(r"^.+/opinions/", "opinions/", name)
    return GLOSSARY[re.sub(r"^eval/.+/", "eval/<dataset>/", name)]


def on_axis(stage: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Rename metrics for a tracker: RAPO's keep their names, the cold start's go under sft/, with their own steps."""
    if stage == "rapo":
        return dict(metrics)
    return {name if name.startswith(f"{stage}/") else f"{stage}/{name}": value for name, value in metrics.items()}

"""How well do predicted scores follow mean opinion scores, and how sure is that?

Every number comes with a 95% percentile interval over resampled pictures. A picture without a readable answer counts as
the mean answer, so refusing the hard ones cannot raise a headline number; answered pictures alone stand beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import METRICS, Array, as_columns, bootstrap, points, with_interval, with_intervals
from aes_r1.evaluation.calibration import calibration, plcc_after_logistic
from aes_r1.evaluation.columns import ORIGINS, Column, columns_of, shared
from aes_r1.evaluation.uncertainty import conformal, spread, spread_scale

STAGE_ORDER = ("base", "cold_start", "rapo")
PROTOCOL_ORDER = ("sample", "greedy", "mean", "direct", "label_tokens", "metric")
BASELINES = ("direct", "label_tokens", "metric")  # protocols that score without a critique

Draws = dict[tuple[str, str, str], dict[str, Array]]


def correlations(
    predicted: Sequence[float | None] | Array, mos: Sequence[float] | Array, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The core of a cell of evaluation.json: n, n_answered, parse_failure_rate, then each of METRICS (krcc is tau-b).

    `predicted` [n] with NaN or None where there is no answer, `mos` [n]. Each metric is {"value", "low", "high"}, null
    when fewer than 3 pictures are answered or, for a correlation, when one side is constant. Headline metrics count a
    missing answer as the mean answer; "answered" holds n and the same metrics over answered pictures only. ValueError
    when the lengths differ or a MOS is not finite.
    """
    return _correlations(*as_columns(predicted, mos), n_bootstrap, seed)[0]


def _correlations(scores: Array, mos: Array, n_bootstrap: int, seed: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The cell, and the resampled values behind its headline intervals."""
    answered = ~np.isnan(scores)
    draws = bootstrap(scores, mos, n_bootstrap, seed)
    headline = with_intervals(points(scores, mos), draws)
    if answered.all():
        alone = {name: dict(headline[name]) for name in METRICS}
    else:
        part = scores[answered], mos[answered]
        alone = with_intervals(points(*part), bootstrap(*part, n_bootstrap, seed))
    cell = {
        "n": len(mos),
        "n_answered": int(answered.sum()),
        "parse_failure_rate": float(1 - answered.mean()) if len(mos) else None,
        **headline,
        "answered": {"n": int(answered.sum()), **alone},
    }
    return cell, draws


def paired_bootstrap(
    before: Sequence[float | None] | Array,
    after: Sequence[float | None] | Array,
    mos: Sequence[float] | Array,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Differences after - before on the same pictures: {"n", METRIC: {"difference", "low", "high", "p"}}.

    Both sides see the same resamples, so what is easy or hard about a picture cancels. `p` is two-sided: twice the
    smaller share of resamples on one side of 0, at least 2 / (n_bootstrap + 1). Missing answers and nulls as in
    `correlations`.
    """
    first, opinions = as_columns(before, mos)
    second, _ = as_columns(after, mos)
    values = [points(scores, opinions) for scores in (first, second)]
    draws = [bootstrap(scores, opinions, n_bootstrap, seed) for scores in (first, second)]
    result: dict[str, Any] = {"n": len(opinions)}
    for name in METRICS:
        difference = values[1][name] - values[0][name]
        resampled = draws[1][name] - draws[0][name] if np.isfinite(difference) else np.empty(0)
        resampled = resampled[np.isfinite(resampled)]
        if not len(resampled):
            result[name] = {"difference": None, "low": None, "high": None, "p": None}
            continue
        tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
        low, high = np.percentile(resampled, (2.5, 97.5))
        p = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
        result[name] = {"difference": float(difference), "low": float(low), "high": float(high), "p": float(p)}
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number (Holm 1979): the i-th smallest of m times m - i + 1, never falling.

    What stays below .05 is significant with a family-wise error of 5%. None stays None and is not counted.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted


def summarise(
    rows: Iterable[Mapping[str, Any]],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    manifests: Mapping[str, str] | None = None,
    seen: Collection[str] | None = None,
    all_pairs: bool = False,
) -> dict[str, Any]:
    """evaluation.json from the rows of predictions.jsonl (stage, protocol, id, dataset, split, mos, score|null).

    Comparisons go between consecutive stages (base, cold_start, rapo; those that are there), or all pairs of them, per
    set and protocol, over the pictures that both have rows for. A picture without a MOS is left out; of rows with one
    id the last counts. `seen`: data sets that were trained on, for the means; None: not known. docs/evaluation.md
    explains every key.
    """
    columns = columns_of(rows)
    stages: dict[str, Any] = {}
    draws: Draws = {}
    for stage in in_order(dict.fromkeys(key[0] for key in columns), STAGE_ORDER):
        for name in dict.fromkeys(key[1] for key in columns if key[0] == stage):
            for protocol in in_order((key[2] for key in columns if key[:2] == (stage, name)), PROTOCOL_ORDER):
                key = (stage, name, protocol)
                cell, draws[key] = _cell(columns[key], n_bootstrap, seed)
                stages.setdefault(stage, {}).setdefault(name, {})[protocol] = cell

    comparisons = []
    for earlier, later in (combinations if all_pairs else _pairwise)(stages, 2):
        for name, protocols in stages[later].items():
            for protocol in protocols:
                found = _compared(columns, (earlier, name, protocol), (later, name, protocol), n_bootstrap, seed)
                if found:
                    comparisons.append({"set": name, "protocol": protocol, "from": earlier, "to": later, **found})
    _adjust(comparisons)
    return {
        "stages": stages,
        "comparisons": comparisons,
        "baselines": _against_baselines(stages, columns, n_bootstrap, seed),
        "means": _means(stages, draws, seen, seed),
        "manifests": dict(manifests or {}),
    }


def _pairwise(names: Iterable[str], _: int) -> Iterable[tuple[str, str]]:
    return pairwise(names)


def _cell(column: Column, n_bootstrap: int, seed: int) -> tuple[dict[str, Any], dict[str, Array]]:
    scores, mos = as_columns(column.scores, column.mos)
    cell, draws = _correlations(scores, mos, n_bootstrap, seed)
    cell["out_of_range_rate"] = column.out_of_range / column.outputs if column.outputs else None
    cell["plcc_logistic"] = plcc_after_logistic(scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    cell["calibration"] = calibration(scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    cell["conformal"] = conformal(scores, mos, seed=seed)
    wavering = spread(column, n_bootstrap=n_bootstrap, seed=seed)
    if wavering is not None:
        cell["spread"] = wavering
        cell["conformal_scaled"] = conformal(scores, mos, scale=spread_scale(column.std), seed=seed)
    if (column.origins >= 0).any():
        cell["origins"] = {}
        for place, origin in enumerate(ORIGINS):
            mine = column.origins == place
            if mine.any():
                part, _ = _correlations(scores[mine], mos[mine], n_bootstrap, seed)
                bias = calibration(scores[mine], mos[mine], n_bootstrap=n_bootstrap, seed=seed)["bias"]
                cell["origins"][origin] = {**part, "bias": bias}
    return cell, draws


def _compared(columns: Mapping, before: tuple, after: tuple, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    if before not in columns or after not in columns:
        return None
    first, second = columns[before], columns[after]
    theirs, mine = shared(first, second)
    if not len(mine):
        return None
    return paired_bootstrap(
        first.scores[theirs], second.scores[mine], second.mos[mine], n_bootstrap=n_bootstrap, seed=seed
    )


def _adjust(comparisons: Sequence[dict[str, Any]]) -> None:
    """Put p_holm beside every p; the family is all comparisons of one metric."""
    for name in METRICS:
        for one, adjusted in zip(comparisons, holm([one[name]["p"] for one in comparisons]), strict=True):
            one[name]["p_holm"] = adjusted


def _against_baselines(stages: Mapping, columns: Mapping, n_bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """The last stage that answers in words against every baseline protocol of every stage, set by set."""
    rows: list[dict[str, Any]] = []
    spoken = {
        stage: [protocol for protocol in in_order(_protocols(sets), PROTOCOL_ORDER) if protocol not in BASELINES]
        for stage, sets in stages.items()
    }
    mine = next((stage for stage in reversed(stages) if spoken[stage]), None)
    if mine is None:
        return rows
    for stage, sets in stages.items():
        for name, protocols in sets.items():
            for protocol in (one for one in protocols if one in BASELINES):
                to = (mine, name, spoken[mine][0])
                found = _compared(columns, (stage, name, protocol), to, n_bootstrap, seed)
                if found:
                    ends = [{"stage": end[0], "protocol": end[2]} for end in ((stage, name, protocol), to)]
                    rows.append({"set": name, "from": ends[0], "to": ends[1], **found})
    _adjust(rows)
    return rows


def _means(stages: Mapping, draws: Draws, seen: Collection[str] | None, seed: int) -> dict[str, Any]:
    """Means over sets of each metric, {STAGE: {PROTOCOL: {"seen"|"unseen"|"all": ..}}}; null where one is null.

    Sets are resampled independently of one another.
    """
    found: dict[str, Any] = {}
    generator = np.random.default_rng([seed, 7])
    for stage, sets in stages.items():
        for protocol in in_order(_protocols(sets), PROTOCOL_ORDER):
            names = [name for name, protocols in sets.items() if protocol in protocols]
            groups = {"all": names}
            if seen is not None:
                groups["seen"] = [name for name in names if name.rsplit("/", 1)[0] in seen]
                groups["unseen"] = [name for name in names if name not in groups["seen"]]
            for group, members in groups.items():
                if not members:
                    continue
                mean: dict[str, Any] = {"sets": members}
                for metric in METRICS:
                    values = [sets[name][protocol][metric]["value"] for name in members]
                    value = float(np.mean(values)) if None not in values else np.nan
                    drawn = [generator.permutation(draws[stage, name, protocol][metric]) for name in members]
                    length = min(map(len, drawn))  # Kendall's tau of a large set has fewer resamples
                    mean[metric] = with_interval(value, np.mean([one[:length] for one in drawn], axis=0))
                found.setdefault(stage, {}).setdefault(protocol, {})[group] = mean
    return found


def _protocols(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(protocol for protocols in sets.values() for protocol in protocols))


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """`names`, those in `order` first and in its order, the others after them as they came."""
    names = list(names)
    return [name for name in order if name in names] + [name for name in names if name not in order]

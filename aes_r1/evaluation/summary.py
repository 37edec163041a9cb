"""Compute the evaluation of a run: measure, compare and average every stage, set and protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, combinations, pairwise
from typing import Any

import numpy as np

from aes_r1.data.manifest import list_hashes
from aes_r1.data.ratings import known_ratings
from aes_r1.evaluation.bootstrap import METRICS, Array, agreement_metrics, as_columns, bootstrap, with_interval
from aes_r1.evaluation.calibration import calibration, plcc_after_logistic
from aes_r1.evaluation.columns import ORIGINS, Column, Key, columns_of, shared
from aes_r1.evaluation.critique import critique_measures
from aes_r1.evaluation.grounding import grounding
from aes_r1.evaluation.interventions import summarise_interventions
from aes_r1.evaluation.metrics import (
    PROTOCOL_ORDER,
    STAGE_ORDER,
    correlations,
    correlations_with_draws,
    holm,
    in_order,
    paired_bootstrap,
)
from aes_r1.evaluation.opinions import opinion_distances
from aes_r1.evaluation.pair_accuracy import summarise_pairs
from aes_r1.evaluation.paper import paper_numbers
from aes_r1.evaluation.sensitivity import summarise_sensitivity
from aes_r1.evaluation.uncertainty import conformal, spread, spread_scale
from aes_r1.inference.people import FEWEST_PICTURES, IN_HALVES, rater_agreement, whole_group
from aes_r1.inference.predictions import Sets, chosen_critiques, rows_by_protocol
from aes_r1.runs.cells import Cell, Evaluation, Interval, MetricName, Stages
from aes_r1.runs.folder import RunFolder

WORDLESS_PROTOCOLS = ("direct", "label_tokens", "metric")  # protocols that score without a critique

_OF_PEOPLE: tuple[MetricName, ...] = ("plcc", "srcc")  # metrics of people, shown even if not asked for

Draws = dict[tuple[str, str, str], dict[str, Array]]


def summarise(
    rows: Iterable[Mapping[str, Any]],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    manifests: Mapping[str, str] | None = None,
    seen: Collection[str] | None = None,
    all_pairs: bool = False,
    baseline_rows: Iterable[Mapping[str, Any]] = (),
) -> Evaluation:
    """Compute the evaluation from prediction rows (stage, protocol, id, dataset, split, mos, score|null).

    Consecutive stages (base, cold_start, rapo, where present), or with all_pairs any two stages, are compared per set
    and protocol over the pictures that both have rows for. A picture without a MOS is left out; of rows with the same
    id the last counts. `seen`: data sets that were trained on, for the means; None: unknown. `baseline_rows`: rows of
    baselines, whose `stage` is the baseline's name and whose `protocol` says how it was made. docs/evaluation.md
    explains every key.
    """
    columns = columns_of(rows)
    stages: Stages = {}
    draws: Draws = {}
    for stage in in_order(dict.fromkeys(key[0] for key in columns), STAGE_ORDER):
        for name in dict.fromkeys(key[1] for key in columns if key[0] == stage):
            for protocol in in_order((key[2] for key in columns if key[:2] == (stage, name)), PROTOCOL_ORDER):
                key = (stage, name, protocol)
                cell, draws[key] = _cell(columns[key], n_bootstrap, seed)
                stages.setdefault(stage, {}).setdefault(name, {})[protocol] = cell

    comparisons = []
    for earlier, later in combinations(stages, 2) if all_pairs else pairwise(stages):
        for name, protocol in [(name, protocol) for name, cells in stages[later].items() for protocol in cells]:
            before, after = columns.get((earlier, name, protocol)), columns.get((later, name, protocol))
            if differences := _differences(before, after, n_bootstrap, seed):
                comparisons.append({"set": name, "protocol": protocol, "from": earlier, "to": later, **differences})
    _adjust(comparisons)
    baseline_columns = columns_of(baseline_rows)
    return {
        "stages": stages,
        "comparisons": comparisons,
        "baselines": _against_baselines(stages, columns, baseline_columns, n_bootstrap, seed),
        "baseline_cells": _baseline_cells(baseline_columns, n_bootstrap, seed),
        "means": _means(stages, draws, seen, seed),
        "manifests": dict(manifests or {}),
    }


def _cell(column: Column, n_bootstrap: int, seed: int) -> tuple[Cell, dict[str, Array]]:
    scores, mos = as_columns(column.scores, column.mos)
    cell, draws = correlations_with_draws(scores, mos, n_bootstrap, seed)
    cell["out_of_range_rate"] = column.out_of_range / column.outputs if column.outputs else None
    cell["plcc_logistic"] = plcc_after_logistic(scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    cell["calibration"] = calibration(scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    cell["conformal"] = conformal(scores, mos, seed=seed)
    measured_spread = spread(column, n_bootstrap=n_bootstrap, seed=seed)
    if measured_spread is not None:
        cell["spread"] = measured_spread
        cell["conformal_scaled"] = conformal(scores, mos, scale=spread_scale(column.std), seed=seed)
    to_raters = opinion_distances(column.to_raters, n_bootstrap=n_bootstrap, seed=seed)
    if to_raters is not None:
        cell["opinions"] = to_raters
    for name, pairs in column.sub_scores.items():
        sub_scores, ratings = pairs[~np.isnan(pairs[:, 1])].T
        if len(ratings):
            measures, _ = correlations_with_draws(sub_scores, ratings, n_bootstrap, seed)
            cell.setdefault("sub_scores", {})[name] = measures
    if (column.origins >= 0).any():
        cell["origins"] = {}
        for index, origin in enumerate(ORIGINS):
            of_origin = column.origins == index
            if of_origin.any():
                measures, _ = correlations_with_draws(scores[of_origin], mos[of_origin], n_bootstrap, seed)
                bias = calibration(scores[of_origin], mos[of_origin], n_bootstrap=n_bootstrap, seed=seed)["bias"]
                cell["origins"][origin] = {**measures, "bias": bias}
    return cell, draws


def _differences(before: Column | None, after: Column | None, n_bootstrap: int, seed: int) -> dict[str, Any] | None:
    """Compare two columns over the pictures that both have; None without such pictures, or without a column."""
    if before is None or after is None:
        return None
    in_before, in_after = shared(before, after)
    if not len(in_after):
        return None
    return paired_bootstrap(
        before.scores[in_before], after.scores[in_after], after.mos[in_after], n_bootstrap=n_bootstrap, seed=seed
    )


def _adjust(comparisons: Sequence[dict[str, Any]]) -> None:
    """Add p_holm to every p; all comparisons of one metric are one family."""
    for name in METRICS:
        adjusted = holm([comparison[name]["p"] for comparison in comparisons])
        for comparison, p in zip(comparisons, adjusted, strict=True):
            comparison[name]["p_holm"] = p


def _baseline_cells(columns: Mapping[Key, Column], n_bootstrap: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return {DATASET/SPLIT: {BASELINE: cell}}; "how" is "fitted", or how raters are divided (inference/people.py)."""
    cells: dict[str, dict[str, Any]] = {}
    for (baseline, name, how), column in columns.items():
        measured = correlations(column.scores, column.mos, n_bootstrap=n_bootstrap, seed=seed)
        cell: dict[str, Any] = {"how": how, **measured, **_whole_group(how, measured)}
        to_raters = opinion_distances(column.to_raters, n_bootstrap=n_bootstrap, seed=seed)
        if to_raters is not None:
            cell["opinions"] = to_raters
        cells.setdefault(name, {})[baseline] = cell
    return cells


def _whole_group(how: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"whole_group": ..} for halves of raters, which agree less than whole groups would; else {}."""
    return {"whole_group": {name: whole_group(measured[name]) for name in _OF_PEOPLE}} if how in IN_HALVES else {}


def _add_people(summary: Evaluation, sets: Sets, n_bootstrap: int, seed: int) -> None:
    """Add to the baselines of `summary` how far people agree about the same pictures, if their opinions show it.

    It is there already if people were asked for as a baseline. Nothing is compared with what is added, so that the
    family of comparisons stays the requested one. Nothing is added for fewer than FEWEST_PICTURES pictures, or if all
    opinions are equal.
    """
    measured_sets = {name for name, cells in summary["baseline_cells"].items() if "people" in cells}
    pictures = (sample for sample in chain.from_iterable(sets.values()) if sample.dataset_split not in measured_sets)
    for name, people in rater_agreement(pictures, seed=seed).items():
        if len(people.pairs) < FEWEST_PICTURES:
            continue
        scores, opinions = np.array([pair[1:] for pair in people.pairs]).T
        values = agreement_metrics(scores, opinions)
        draws = bootstrap(scores, opinions, n_bootstrap, seed, only=_OF_PEOPLE)
        measured: dict[str, Any] = {metric: with_interval(values[metric], draws[metric]) for metric in _OF_PEOPLE}
        if measured["srcc"]["value"] is not None:
            cell = {"how": people.how, "n": len(scores), **measured, **_whole_group(people.how, measured)}
            summary["baseline_cells"].setdefault(name, {})["people"] = cell | people.facts


def _against_baselines(
    stages: Stages, columns: Mapping[Key, Column], baseline_columns: Mapping[Key, Column], n_bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    """Compare the last stage that writes critiques with every baseline of the same pictures, set by set.

    Baselines are the protocols WORDLESS_PROTOCOLS of every stage, and `baseline_columns`, except the halves of raters:
    the opinions that the model is compared with hold both halves.
    """
    with_critiques = {
        stage: [
            protocol for protocol in in_order(_protocols(sets), PROTOCOL_ORDER) if protocol not in WORDLESS_PROTOCOLS
        ]
        for stage, sets in stages.items()
    }
    last_stage = next((stage for stage in reversed(stages) if with_critiques[stage]), None)
    if last_stage is None:
        return []
    keys = [(stage, name, protocol) for stage, sets in stages.items() for name in sets for protocol in sets[name]]
    baselines = {key: columns[key] for key in keys if key[2] in WORDLESS_PROTOCOLS}
    baselines |= {key: column for key, column in baseline_columns.items() if key[2] not in IN_HALVES}
    protocol = with_critiques[last_stage][0]
    rows: list[dict[str, Any]] = []
    for (baseline, name, how), column in baselines.items():
        if differences := _differences(column, columns.get((last_stage, name, protocol)), n_bootstrap, seed):
            ends = {"from": {"stage": baseline, "protocol": how}, "to": {"stage": last_stage, "protocol": protocol}}
            rows.append({"set": name, **ends, **differences})
    _adjust(rows)
    return rows


def _means(stages: Stages, draws: Draws, seen: Collection[str] | None, seed: int) -> dict[str, Any]:
    """Average each metric over sets, {STAGE: {PROTOCOL: {"seen"|"unseen"|"all": ..}}}; null if any set's is null.

    Sets are resampled independently of one another.
    """
    means: dict[str, Any] = {}
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
                cells = [sets[name][protocol] for name in members]
                draws_of_sets = [draws[stage, name, protocol] for name in members]
                mean = {"sets": members, **_mean_over_sets(cells, draws_of_sets, generator)}
                means.setdefault(stage, {}).setdefault(protocol, {})[group] = mean
    return means


def _mean_over_sets(
    cells: Sequence[Cell], draws: Sequence[Mapping[str, Array]], generator: np.random.Generator
) -> dict[str, Interval]:
    """Return the mean of each metric over the cells of several sets, from the resampled values of each set."""
    means: dict[str, Interval] = {}
    for metric in METRICS:
        values = [cell[metric]["value"] for cell in cells]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if len(known) == len(values) else np.nan
        permuted = [generator.permutation(draws_of_set[metric]) for draws_of_set in draws]
        length = min(map(len, permuted))  # Kendall's tau of a large set has fewer resamples
        means[metric] = with_interval(mean, np.mean([resampled[:length] for resampled in permuted], axis=0))
    return means


def _protocols(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(protocol for protocols in sets.values() for protocol in protocols))


def _of_protocol(rows: Iterable[dict[str, Any]], protocol: str) -> list[dict[str, Any]]:
    """Return the rows of `protocol`, and those that name no protocol."""
    return [row for row in rows if row.get("protocol", protocol) == protocol]


def measure_run(
    run: RunFolder,
    sets: Sets,
    *,
    n_bootstrap: int,
    seed: int,
    seen: Collection[str] | None,
    manifests: Mapping[str, str] | None = None,
    all_pairs: bool = False,
    baselines: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Compute the evaluation of a run (docs/evaluation.md) from its predictions, interventions and edited pictures.

    sets: the samples, for the known factors of pictures; seen: sets trained on; manifests: {DATASET/SPLIT: sha256},
    None: computed from `sets`; baselines: {BASELINE: {DATASET/SPLIT: facts}}, written into their cells.
    """
    if manifests is None:
        manifests = {name: digest for samples in sets.values() for name, digest in list_hashes(samples).items()}
    summary = summarise(
        run.predictions(),
        n_bootstrap=n_bootstrap,
        seed=seed,
        manifests=manifests,
        seen=seen,
        all_pairs=all_pairs,
        baseline_rows=(
            {**row, "stage": name, "protocol": row["how"]} for name in baselines or {} for row in run.baseline(name)
        ),
    )
    for name, cells in summary["baseline_cells"].items():
        for baseline, cell in cells.items():
            cell |= (baselines or {})[baseline].get(name, {})
    _add_people(summary, sets, n_bootstrap, seed)
    _add_critiques(summary, run, sets, n_bootstrap, seed)
    _add_sensitivity(summary, run, n_bootstrap, seed)
    if pairs := _pairs(run, n_bootstrap, seed):
        summary["pairs"] = pairs
    names = {name.rsplit("/", 1)[0] for by_set in summary["stages"].values() for name in by_set}
    if paper := paper_numbers(names):
        summary["paper"] = paper
    return summary


def _pairs(run: RunFolder, n_bootstrap: int, seed: int) -> dict[str, dict[str, Any]]:
    """Return {stage: {DATASET/SPLIT: ..}} for the choices of the protocol pair; empty if there are none.

    "scores_by" is the protocol of the single scores that they are compared with: greedy, like the choices, or else the
    first.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in run.pairs():
        rows.setdefault(row["stage"], {}).setdefault(f"{row['dataset']}/{row['split']}", []).append(row)
    compared = {(stage, name): {row["first"] for row in rows[stage][name]} for stage in rows for name in rows[stage]}
    scores: dict[tuple[str, str], dict[str, dict[str, float | None]]] = {}
    for row in run.predictions() if rows else ():
        key = (row["stage"], f"{row['dataset']}/{row['split']}")
        if row["id"] in compared.get(key, ()):
            scores.setdefault(key, {}).setdefault(row["protocol"], {})[row["id"]] = row["score"]
    pairs: dict[str, dict[str, Any]] = {}
    for stage in in_order(rows, STAGE_ORDER):
        for name, of_pairs in rows[stage].items():
            protocol = in_order(scores[stage, name], ("greedy", *PROTOCOL_ORDER))[0]
            measures = summarise_pairs(of_pairs, scores[stage, name][protocol], n_bootstrap=n_bootstrap, seed=seed)
            pairs.setdefault(stage, {})[name] = {"scores_by": protocol, **measures}
    return pairs


def _add_critiques(summary: Evaluation, run: RunFolder, sets: Sets, n_bootstrap: int, seed: int) -> None:
    """Add the measures of critiques to `summary`: by stage and set, and in the cells of the grounded protocols."""
    chosen = chosen_critiques(run.predictions(), seed=seed)
    by_protocol = rows_by_protocol(run.predictions(), readable=False, seed=seed)
    wanted = {(name, row["id"]) for (_, name), rows in chosen.items() for row in rows}
    wanted |= {(name, row["id"]) for (_, name, _), rows in by_protocol.items() for row in rows}
    factors = _factors(sets, wanted)
    critiques: dict[str, Any] = {}
    for (stage, name), rows in chosen.items():
        measures = critique_measures(rows, factors=factors.get(name), n_bootstrap=n_bootstrap, seed=seed)
        examined = run.examined("interventions", stage, name)
        if exchanged := _of_protocol(examined, rows[0]["protocol"]):
            measures["interventions"] = summarise_interventions(exchanged, n_bootstrap=n_bootstrap, seed=seed)
        critiques.setdefault(stage, {})[name] = measures
    summary["critiques"] = critiques
    for (stage, name, protocol), rows in by_protocol.items():
        cell = summary["stages"].get(stage, {}).get(name, {}).get(protocol)
        if cell is None or not any(row["critique"] for row in rows):
            continue
        exchanged, informed = (
            [row for row in run.examined(kind, stage, name) if row.get("protocol") == protocol]
            for kind in ("interventions", "information")
        )
        cell["critiques"] = grounding(
            rows,
            factors=factors.get(name),
            informed=informed,
            exchanged=summarise_interventions(exchanged, n_bootstrap=n_bootstrap, seed=seed) if exchanged else None,
            n_bootstrap=n_bootstrap,
            seed=seed,
        )


def _add_sensitivity(summary: Evaluation, run: RunFolder, n_bootstrap: int, seed: int) -> None:
    """Add to the cells of `summary` how their scores change with edits of the pictures, if that was asked for."""
    for stage, sets in summary["stages"].items():
        for name, cells in sets.items():
            rows = run.examined("sensitivity", stage, name)
            for protocol, cell in cells.items():
                if of_protocol := [row for row in rows if row["protocol"] == protocol]:
                    cell["sensitivity"] = summarise_sensitivity(of_protocol, n_bootstrap=n_bootstrap, seed=seed)


def _factors(sets: Sets, wanted: Collection[tuple[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return {DATASET/SPLIT: {id: {dimension: 0..1}}} of wanted pictures with known dimensions (data/ratings.py)."""
    factors_of_set: dict[str, dict[str, dict[str, float]]] = {}
    for samples in sets.values() if wanted else ():
        for sample in samples:
            name = sample.dataset_split
            if (name, sample.id) in wanted and (factors := known_ratings(sample)):
                factors_of_set.setdefault(name, {})[sample.id] = factors
    return factors_of_set

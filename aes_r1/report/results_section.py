"""The report's numbers: every set, stage and protocol with intervals, what each stage changed, means over sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.charts import Estimate, interval_chart, signed
from aes_r1.report.html import STAGE_COLORS, STAGE_NAMES, figure, heading_row, interval, number, percent, row, table
from aes_r1.runs.cells import MetricName

METRIC_NAMES: dict[MetricName, str] = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "mae": "MAE", "rmse": "RMSE"}
_ORIGINS = {"photograph": "photographs", "ai": "AI-made"}


def results_section(evaluation: Mapping, names: Mapping[str, str]) -> str:
    """Charts and tables of every set; empty without an evaluation."""
    stages = evaluation.get("stages", {})
    if not stages:
        return ""
    parts = ["<h2>Results</h2>"]
    for dataset in datasets(stages):
        by_protocol = cells_by_protocol(stages, dataset)
        charts = [
            figure(
                METRIC_NAMES[metric],
                interval_chart(
                    f"{METRIC_NAMES[metric]} on {dataset}",
                    [
                        (
                            names.get(protocol, protocol),
                            [_estimate(stage, cell[metric]) for stage, cell in cells.items()],
                        )
                        for protocol, cells in by_protocol.items()
                    ],
                ),
            )
            for metric in ("srcc", "plcc")
        ]
        parts.append(f'<h3>{escape(dataset)}</h3><div class="charts pair">{"".join(charts)}</div>')
        metrics = _metrics_of(by_protocol)
        heads = [METRIC_NAMES[metric] for metric in metrics]
        parts.append(table(["", *heads, "Unanswered", "n"], _result_rows(by_protocol, names, metrics)))
    parts += [_means(evaluation), _origins(evaluation), _baselines(evaluation), _paper(evaluation)]
    parts.append(
        '<p class="note">SRCC, PLCC and KRCC: Spearman, Pearson and Kendall (tau-b) correlation of predicted score and '
        "mean opinion score. MAE, RMSE: mean absolute and root mean square difference on the 0 to 1 scale. Rows "
        "“answered only” leave out the pictures without a readable answer.</p>"
    )
    return "".join(parts)


def _metrics_of(by_protocol: Mapping) -> list[MetricName]:
    """The metrics that every cell has."""
    cells = [cell for cells in by_protocol.values() for cell in cells.values()]
    return [metric for metric in METRIC_NAMES if all(metric in cell for cell in cells)]


def _result_rows(by_protocol: Mapping, names: Mapping[str, str], metrics: Sequence[str]) -> Iterable[str]:
    for protocol, cells in by_protocol.items():
        yield heading_row(names.get(protocol, protocol), len(metrics) + 3)
        for stage, cell in cells.items():
            values = [number(cell[metric]["value"]) + interval(cell[metric]) for metric in metrics]
            rate = percent(cell["parse_failure_rate"])
            if cell.get("out_of_range_rate"):
                rate += f"<small>{percent(cell['out_of_range_rate'])} of outputs outside 0 to 1</small>"
            yield row([escape(STAGE_NAMES.get(stage, stage)), *values, rate, str(cell["n"])])
            if cell["parse_failure_rate"] and cell["n_answered"]:
                alone = [number(cell["answered"].get(metric, {}).get("value")) for metric in metrics]
                yield row(["answered only", *alone, "", str(cell["answered"]["n"])], "aside")


def _means(evaluation: Mapping) -> str:
    """Means over the sets that were trained on, over those that were not, and over all."""
    rows = []
    for stage, protocols in evaluation.get("means", {}).items():
        for protocol in in_order(protocols, PROTOCOL_ORDER)[:1]:  # the other protocols stand in evaluation.json
            for kind, cell in protocols[protocol].items():
                if (len(cell["sets"]) > 1 or kind != "all") and cell["mae"]["value"] is not None:
                    values = [
                        number(cell[metric]["value"]) + interval(cell[metric]) for metric in ("srcc", "plcc", "mae")
                    ]
                    label = f"{STAGE_NAMES.get(stage, stage)}, {short_protocol(protocol)}"
                    rows.append(row([escape(label), kind, *values, escape(", ".join(cell["sets"]))]))
    if not rows:
        return ""
    note = '<p class="note">Seen: kinds of pictures that were trained on.</p>'
    return f"<h3>Means over sets</h3>{note}" + table(["", "Over", "SRCC", "PLCC", "MAE", "Sets"], rows)


def _origins(evaluation: Mapping) -> str:
    """Photographs and AI-made pictures apart, where a set says which is which."""
    rows = []
    for stage, sets in evaluation.get("stages", {}).items():
        for dataset, cells in sets.items():
            for protocol in in_order(cells, PROTOCOL_ORDER)[:1]:
                for origin, cell in cells[protocol].get("origins", {}).items():
                    if cell["mae"]["value"] is None:
                        continue
                    values = [
                        number(cell[metric]["value"]) + interval(cell[metric]) for metric in ("srcc", "plcc", "mae")
                    ]
                    values.append(signed_cell(cell["bias"]))
                    label = f"{STAGE_NAMES.get(stage, stage)}, {dataset}"
                    rows.append(row([escape(label), _ORIGINS.get(origin, origin), *values, str(cell["n"])]))
    if not rows:
        return ""
    return "<h3>Photographs and AI-made pictures</h3>" + table(["", "", "SRCC", "PLCC", "MAE", "Bias", "n"], rows)


def _baselines(evaluation: Mapping) -> str:
    """How the model differs from each way of doing without it, on the same pictures."""
    rows = [
        row(
            [
                escape(f"{_named(one['to'])} against {_named(one['from'])}"),
                escape(one["set"]),
                change(one["srcc"]),
                change(one["plcc"]),
                str(one["n"]),
            ]
        )
        for one in evaluation.get("baselines", [])
    ]
    return "<h3>Against baselines</h3>" + table(["", "Set", "SRCC", "PLCC", "n"], rows) if rows else ""


def _paper(evaluation: Mapping) -> str:
    """The authors' numbers beside the sets that were measured here, marked as theirs."""
    paper = evaluation.get("paper")
    if not paper:
        return ""
    sets = list(dict.fromkeys(dataset for cells in paper["systems"].values() for dataset in cells))
    rows = [
        row([escape(system), *(_theirs(cells.get(dataset)) for dataset in sets)])
        for system, cells in paper["systems"].items()
    ]
    note = f'<p class="note">{escape(paper["source"])}. {escape(paper["note"])}</p>'
    return f"<h3>The paper’s numbers (theirs, PLCC / SRCC)</h3>{note}" + table(["", *sets], rows)


def _theirs(cell: Mapping | None) -> str:
    return f"{number(cell['plcc'])} / {number(cell['srcc'])}" if cell else "–"


def _named(end: Mapping) -> str:
    return f"{STAGE_NAMES.get(end['stage'], end['stage'])}, {short_protocol(end['protocol'])}"


def signed_cell(cell: Mapping) -> str:
    """A signed value with its interval as a small second line."""
    if cell["value"] is None:
        return "–"
    between = "" if cell["low"] is None else f"<small>{signed(cell['low'])} to {signed(cell['high'])}</small>"
    return signed(cell["value"]) + between


def changes_section(evaluation: Mapping) -> str:
    """Differences between stages on the same pictures; empty without any."""
    comparisons = evaluation.get("comparisons", [])
    if not comparisons:
        return ""
    parts = [
        "<h2>What each stage changed</h2>",
        '<p class="note">Differences on the same pictures, with 95% paired bootstrap intervals: what is easy or hard '
        "about a picture cancels. p is two-sided; Holm: corrected for the number of comparisons.</p>",
    ]
    for dataset in dict.fromkeys(comparison["set"] for comparison in comparisons):
        mine = [comparison for comparison in comparisons if comparison["set"] == dataset]
        charts = [
            figure(
                f"Change of {METRIC_NAMES[metric]}",
                interval_chart(
                    f"Change of {METRIC_NAMES[metric]} on {dataset}",
                    [
                        (_step(pair), [_difference(one, metric) for one in mine if (one["from"], one["to"]) == pair])
                        for pair in dict.fromkeys((one["from"], one["to"]) for one in mine)
                    ],
                    zero=True,
                ),
            )
            for metric in ("srcc", "plcc")
        ]
        metrics = [metric for metric in METRIC_NAMES if all(metric in one for one in mine)]
        rows = []
        for pair in dict.fromkeys((one["from"], one["to"]) for one in mine):
            rows.append(heading_row(_step(pair), len(metrics) + 2))
            for one in mine:
                if (one["from"], one["to"]) == pair:
                    cells = [change(one[metric]) for metric in metrics]
                    rows.append(row([escape(short_protocol(one["protocol"])), *cells, str(one["n"])]))
        parts.append(f'<h3>{escape(dataset)}</h3><div class="charts pair">{"".join(charts)}</div>')
        parts.append(table(["", *(METRIC_NAMES[metric] for metric in metrics), "n"], rows))
    return "".join(parts)


def _step(pair: tuple[str, str]) -> str:
    return " → ".join(STAGE_NAMES.get(stage, stage) for stage in pair)


def _difference(comparison: Mapping, metric: str) -> Estimate:
    cell = comparison[metric]
    label = short_protocol(comparison["protocol"])
    color = STAGE_COLORS.get(comparison["to"], "rapo")
    return Estimate(label, cell["difference"], cell["low"], cell["high"], color)


def short_protocol(protocol: str) -> str:
    """The name of a protocol inside of a table."""
    return "one sample" if protocol == "sample" else protocol


def change(cell: Mapping) -> str:
    """A difference with its interval and p-value as the HTML of a cell."""
    if cell["difference"] is None:
        return "–"
    p = "p &lt; 0.005" if cell["p"] < 0.005 else f"p = {cell['p']:.2g}"
    if cell.get("p_holm") is not None:
        p += f" (Holm {cell['p_holm']:.2g})"
    return f"{signed(cell['difference'])}<small>{signed(cell['low'])} to {signed(cell['high'])}<br>{p}</small>"


def _estimate(stage: str, cell: Mapping) -> Estimate:
    name = STAGE_NAMES.get(stage, stage)
    return Estimate(name, cell["value"], cell["low"], cell["high"], STAGE_COLORS.get(stage, "rapo"))


def between(cell: Mapping) -> str:
    """The ends of an interval in words."""
    sign = signed if "difference" in cell else number
    return f"{sign(cell['low'])} to {sign(cell['high'])}"


def datasets(stages: Mapping) -> list[str]:
    """The sets of all stages, each once."""
    return list(dict.fromkeys(dataset for sets in stages.values() for dataset in sets))


def cells_by_protocol(stages: Mapping, dataset: str) -> dict[str, dict[str, Mapping]]:
    """{protocol: {stage: cell}} of one set."""
    protocols = dict.fromkeys(protocol for sets in stages.values() for protocol in sets.get(dataset, {}))
    return {
        protocol: {
            stage: sets[dataset][protocol] for stage, sets in stages.items() if protocol in sets.get(dataset, {})
        }
        for protocol in in_order(protocols, PROTOCOL_ORDER)
    }


def inside(name: str) -> str:
    """A name as it reads inside a sentence: RAPO stays, Greedy becomes greedy."""
    return name if name.isupper() else name[0].lower() + name[1:]

"""The report's page: its style, its frame, and how numbers and tables are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

STAGE_NAMES = {"base": "Base model", "cold_start": "Cold start", "rapo": "RAPO"}
STAGE_COLORS = {"base": "base", "cold_start": "cold", "rapo": "rapo"}

# Light and dark, shared with the app.
PALETTE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1f1d1a; --muted: #6d6962; --rule: #e4e0d8;
  --base: #8b867d; --cold: #2c6593; --rapo: #b24a22; --third: #4f7f43; --fourth: #7d5ba6;
  --serif: "Iowan Old Style", Charter, "Palatino Linotype", Palatino, Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151412; --card: #1d1b19; --ink: #ece8e1; --muted: #a39d92; --rule: #35312c;
    --base: #9c968b; --cold: #77aedb; --rapo: #e58b5f; --third: #8fbf7f; --fourth: #b79bdb;
  }
}
"""
_STYLE = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 1160px; margin: 0 auto; padding: 48px 24px 80px; }
h1, h2, h3 { font-family: var(--serif); font-weight: 500; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(30px, 5vw, 44px); margin: 6px 0 10px; letter-spacing: -.01em; }
h2 { font-size: 26px; margin: 72px 0 8px; padding-top: 20px; border-top: 1px solid var(--rule); }
h3 { font-size: 19px; margin: 36px 0 10px; }
p { max-width: 68ch; margin: 8px 0; }
.kicker { color: var(--rapo); font-size: 13px; letter-spacing: .12em; text-transform: uppercase; margin: 0; }
.note, figcaption { color: var(--muted); font-size: 14px; overflow-wrap: anywhere; }
.lede { font-family: var(--serif); font-size: 21px; line-height: 1.45; max-width: 58ch; margin-top: 24px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 0 40px;
  margin: 32px 0 8px; }
.figure { border-top: 3px solid var(--tone); padding: 12px 0; }
.figure .name { font-size: 14px; color: var(--muted); }
.figure .value { font: 500 46px/1.1 var(--serif); font-variant-numeric: lining-nums tabular-nums; }
.figure .value small { font: 400 14px var(--sans); color: var(--muted); margin-left: 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 20px; }
.charts.pair { grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.charts.pair svg { max-width: 430px; }
.charts.narrow { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.charts.narrow svg { max-width: 340px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  padding: 14px 16px 12px; }
figure h4 { margin: 0 0 2px; font: 600 15px var(--sans); }
figcaption { margin-top: 6px; font-size: 13px; line-height: 1.4; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; color: var(--muted); margin: 0 0 6px; }
.legend span::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 50%;
  background: var(--tone); margin-right: 6px; }
svg { display: block; width: 100%; max-width: 440px; height: auto; margin: 0 auto; font: 11.5px var(--sans);
  font-variant-numeric: tabular-nums; }
.chart-rule { stroke: var(--rule); stroke-width: 1; }
.chart-group { font-weight: 600; font-size: 12px; }
.chart-value { font-size: 12px; }
.scroll { overflow-x: auto; margin: 14px 0; -webkit-overflow-scrolling: touch; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 15px;
  font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; font-size: 13px; color: var(--muted); padding: 6px 10px; white-space: nowrap;
  border-bottom: 1px solid var(--ink); }
td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap;
  vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--paper); }
td.text, th.text { text-align: left; }
td small { display: block; color: var(--muted); font-size: 12px; }
tr.aside td { color: var(--muted); font-size: 13px; padding-top: 2px; }
tr.opening td { padding-top: 18px; font-weight: 600; border-bottom-color: var(--rule); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 20px; }
.plate { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; overflow: hidden; display: flex;
  flex-direction: column; }
.plate .frame { background: color-mix(in srgb, var(--ink) 6%, var(--card)); display: flex; justify-content: center; }
.plate img { display: block; width: 100%; height: 230px; object-fit: contain; }
.plate .absent { height: 90px; display: grid; place-items: center; color: var(--muted); font-size: 13px; }
.plate .words { padding: 12px 16px 16px; font-size: 14px; }
.plate dl { margin: 10px 0 0; display: grid; gap: 6px; }
.plate dt { font-size: 12px; color: var(--muted); }
.plate dd { margin: 0; line-height: 1.4; overflow-wrap: anywhere; }
.plate dd::first-letter { text-transform: uppercase; }
.plate .judgement { font-family: var(--serif); font-size: 16px; margin: 10px 0 0; }
.meter { position: relative; height: 16px; margin: 8px 0 4px; }
.meter::before { content: ""; position: absolute; inset: 7px 0 auto; height: 2px; background: var(--rule); }
.meter i { position: absolute; top: 1px; width: 14px; height: 14px; margin-left: -7px; border-radius: 50%;
  background: var(--tone); }
.meter i.mos { top: -1px; width: 18px; height: 18px; margin-left: -9px; background: none;
  border: 2px solid var(--ink); }
.scores { display: flex; justify-content: space-between; gap: 12px; font-size: 13px; color: var(--muted);
  font-variant-numeric: tabular-nums; }
.scores b { color: var(--ink); font-weight: 600; }
dl.words { display: grid; grid-template-columns: minmax(0, max-content) minmax(0, 1fr); gap: 6px 24px;
  font-size: 14px; }
dl.words dd { margin: 0; color: var(--muted); }
details { margin: 12px 0; }
summary { cursor: pointer; color: var(--muted); }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.5; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; padding: 14px; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 0 40px;
  margin: 12px 0; }
.pairs div { display: flex; justify-content: space-between; gap: 16px; border-bottom: 1px solid var(--rule);
  padding: 6px 0; font-size: 14px; }
.pairs div span:first-child { color: var(--muted); }
.pairs div span:last-child { text-align: right; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  main { padding: 28px 16px 56px; }
  h2 { margin-top: 52px; }
  dl.words { grid-template-columns: 1fr; gap: 0; }
  dl.words dd { margin-bottom: 10px; }
  th, td { padding-left: 6px; padding-right: 6px; }
  tr:not(.opening) td:first-child { white-space: normal; min-width: 84px; max-width: 118px; }
  td small { font-size: 11.5px; }
  .figures { grid-template-columns: 1fr; }
  .figure { display: grid; grid-template-columns: 1fr auto; align-items: baseline; gap: 0 12px; }
  .figure .value { font-size: 34px; }
  .figure .note { grid-column: 1 / -1; }
}
@media print { figure, .plate { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that loads nothing: its own policy forbids scripts and any address but data: pictures."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{PALETTE}{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def number(value: float | None, digits: int = 3) -> str:
    """`value` with a fixed number of digits; a dash where there is none."""
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f}%"


def interval(cell: Mapping, digits: int = 3) -> str:
    """Low and high of a metric as a small second line, empty when there are none."""
    if cell["low"] is None:
        return ""
    return f"<small>{number(cell['low'], digits)} to {number(cell['high'], digits)}</small>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with their page colours."""
    items = "".join(f'<span style="--tone:var(--{color})">{escape(name)}</span>' for name, color in entries)
    return f'<div class="legend">{items}</div>'


def figure(title: str, chart: str, caption: str = "", names: Sequence[tuple[str, str]] = ()) -> str:
    """A titled chart; nothing when there is no chart."""
    if not chart:
        return ""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h4>{escape(title)}</h4>{legend(names) if names else ''}{chart}{said}</figure>"


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """`rows` are finished <tr> elements; the first column stays in sight when a phone scrolls the rest."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def row(cells: Sequence[str], kind: str = "") -> str:
    """A row of a table; `cells` are HTML."""
    return f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def heading_row(text: str, columns: int) -> str:
    """A row that opens a group; its words may be wider than the first column."""
    return f'<tr class="opening"><td colspan="{columns}">{escape(text)}</td></tr>'


def pairs(entries: Iterable[tuple[str, str]]) -> str:
    """Names and values in columns."""
    items = "".join(f"<div><span>{escape(name)}</span><span>{escape(value)}</span></div>" for name, value in entries)
    return f'<div class="pairs">{items}</div>'

"""The Gradio page: photographs in, verdicts out; no visitor sees another one's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from aes_r1.app.cards import NEWEST, ORDERS, Judged, cards, comparison, fill, thumbnail
from aes_r1.app.guard import HOSTS, Guard
from aes_r1.app.visits import Visits
from aes_r1.data.sample import PictureError
from aes_r1.scoring.critic import Critic
from aes_r1.scoring.uploads import MAX_BYTES, read_upload
from aes_r1.settings import InputError

MOST = 12  # photographs per drop
KEPT = 24  # photographs on a page
_HERE = Path(__file__).parent


def _announced(one: Judged) -> str:
    """Say in a line what a screen reader should say of a photograph that was judged or refused."""
    if one.verdict is None:
        return f"{one.name}: {one.problem}"
    score = one.verdict.score
    return f"{one.name}: {'no answer that can be read' if score is None else f'score {score:.2f}'}"


def build(critic: Critic) -> Any:
    """Build the page as a gradio.Blocks."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # must be set before Gradio is imported
    import gradio as gr

    measured_on = critic.facts.measured_on
    visits = Visits()

    # The parameter's type makes Gradio pass the event; with postponed annotations it must be the class itself.
    def judge(shown: list[Judged], order: str, event: gr.EventData) -> Iterator[tuple]:
        given = event._data if isinstance(event._data, dict) else {}
        name = Path(str(given.get("name", "photograph"))).name[:120]
        waiting = cards([*shown, Judged(name, waiting=True)], measured_on, order)
        yield f"Judging {escape(name)}", waiting, shown, *[gr.skip()] * 4
        try:
            picture = read_upload(name, given.get("data"))
            one = Judged(name, thumbnail(picture), critic.score(picture))
        except PictureError as error:
            one = Judged(name, problem=error.reason)
        shown = [*shown, one][-KEPT:]
        visits.keep(given.get("visit"), shown)
        yield escape(_announced(one)), *show(shown, order)

    def restore(order: str, event: gr.EventData) -> tuple:
        """Show again what a reloaded page showed before."""
        given = event._data if isinstance(event._data, dict) else {}
        return show(visits.of(given.get("visit")), order)

    def show(shown: list[Judged], order: str) -> tuple:
        """Return the cards, and what follows from them."""
        places = [index for index, one in enumerate(shown) if one.verdict is not None]
        last = (places[-2], places[-1]) if len(places) > 1 else (None, None)
        names = [(shown[place].name, place) for place in places]
        chosen = [gr.update(choices=names, value=place) for place in last]
        sortable = gr.update(visible=len(places) > 1)
        return cards(shown, measured_on, order), shown, *chosen, compare(shown, *last), sortable

    for handler in (judge, restore):
        handler.__annotations__["event"] = gr.EventData

    def compare(shown: list[Judged], first: int | None, second: int | None) -> str:
        if first is None or second is None or max(first, second) >= len(shown):
            return fill("comparison.html", sides=None)
        return comparison(shown[first], shown[second])

    with gr.Blocks(title="Aes-R1", analytics_enabled=False, fill_width=True) as page:
        asked = {"samples": critic.samples, "temperature": critic.facts.temperature}
        opening = fill("opening.html", **asked, warning=critic.facts.warning())
        gr.HTML(opening, elem_classes="opening")
        shown = gr.State([], time_to_live=3600)
        zone = gr.HTML(
            "",
            html_template=(_HERE / "templates" / "drop.html").read_text(encoding="utf-8"),  # Gradio fills it in
            js_on_load=(_HERE / "drop.js").read_text(encoding="utf-8"),
            most=MOST,
            kept=KEPT,
            max_bytes=MAX_BYTES,
            apply_default_css=False,
            elem_id="zone",
        )
        with gr.Tabs():
            with gr.Tab("Verdicts"):
                order = gr.Dropdown(ORDERS, value=NEWEST, label="Order", visible=False, elem_id="order")
                results = gr.HTML("", elem_id="results", apply_default_css=False)
            with gr.Tab("Compare"):
                with gr.Row():
                    first = gr.Dropdown([], label="First", type="value", elem_id="first")
                    second = gr.Dropdown([], label="Second", type="value", elem_id="second")
                duel = gr.HTML(compare([], None, None), elem_id="duel", apply_default_css=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        outputs = [results, shown, first, second, duel, order]
        zone.upload(judge, [shown, order], [zone, *outputs], trigger_mode="multiple", **quiet)
        zone.submit(restore, order, outputs, **quiet)  # the page sends it when it was loaded again
        order.input(lambda shown, order: cards(shown, measured_on, order), [shown, order], results, **quiet)
        for choice in (first, second):
            choice.input(compare, [shown, first, second], duel, trigger_mode="always_last", **quiet)
    # Verdicts are computed one at a time, because two would slow each other. Visitors take turns by photograph.
    page.queue(default_concurrency_limit=1, max_size=200, api_open=False)
    return page


def serve(critic: Critic, *, port: int, block: bool = True) -> Any:
    """Serve the page on 127.0.0.1:`port`, with `block` until interrupted. InputError when the port is taken."""
    page = build(critic)
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
        Middleware(Guard, max_body=MAX_BYTES * 4 // 3 + 100_000),
    ]
    plain = ["system-ui", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]  # named fonts are never fetched
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            allowed_paths=[],
            max_file_size=MAX_BYTES,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            footer_links=[],
            state_session_capacity=200,
            app_kwargs={"middleware": guards, "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=gr.themes.Base(font=plain, font_mono=["ui-monospace", "monospace"]),
            # The style goes into the head, because Gradio rewrites css= and drops its media queries.
            head=fill("head.html"),
        )
    except OSError as error:
        raise InputError(f"--port={port}: cannot be listened on; give another") from error
    print(f"http://127.0.0.1:{port}", flush=True)
    if block:
        page.block_thread()
    return page

"""Build and serve the Gradio page, on which each visitor drops photographs and sees their verdicts alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from html import escape
from pathlib import Path
from threading import Thread
from typing import Any

from aes_r1.app.cards import NEWEST, ORDERS, Judged, cards, comparison_card, render, thumbnail
from aes_r1.app.guard import HOSTS, Guard
from aes_r1.app.visits import Visits
from aes_r1.data.sample import PictureError
from aes_r1.scoring.critic import Critic
from aes_r1.scoring.uploads import MAX_BYTES, read_upload
from aes_r1.settings import InputError

PER_DROP = 12  # photographs per drop
ON_PAGE = 24  # photographs on a page
_FORGET_S = 60  # seconds between two searches for visits that are over
_HERE = Path(__file__).parent


def _announcement(photograph: Judged) -> str:
    """Return the line that a screen reader says of a photograph that was judged or refused."""
    if photograph.verdict is None:
        return f"{photograph.name}: {photograph.problem}"
    score = photograph.verdict.score
    return f"{photograph.name}: {'no answer that can be read' if score is None else f'score {score:.2f}'}"


def shown_name(given: Any) -> str:
    """Return the last part of a file name that the page sent, at most 120 characters, with ? for a lone surrogate."""
    return Path(str(given)).name[:120].encode(errors="replace").decode()


class _Handlers:
    """The handlers of the page's events. `event` is the gradio.EventData that the page sent, `order` one of ORDERS."""

    def __init__(self, critic: Critic, visits: Visits) -> None:
        self.critic, self.visits = critic, visits

    def judge(self, shown: list[Judged], order: str, event: Any) -> Iterator[tuple]:
        """Judge the photograph in `event`: yield the page while it waits, then the page with its verdict."""
        import gradio as gr

        data = event._data if isinstance(event._data, dict) else {}
        name = shown_name(data.get("name", "photograph"))
        waiting = self.sort([*shown, Judged(name, waiting=True)], order)
        yield f"Judging {escape(name)}", waiting, shown, *[gr.skip()] * 4
        try:
            picture = read_upload(name, data.get("data"))
            photograph = Judged(name, thumbnail(picture), self.critic.score(picture))
        except PictureError as error:
            photograph = Judged(name, problem=error.reason)
        shown = [*shown, photograph][-ON_PAGE:]
        self.visits.keep(data.get("visit"), shown)
        yield escape(_announcement(photograph)), *self.show(shown, order)

    def restore(self, order: str, event: Any) -> tuple:
        """Return what a reloaded page showed before."""
        data = event._data if isinstance(event._data, dict) else {}
        return self.show(self.visits.of(data.get("visit")), order)

    def show(self, shown: list[Judged], order: str) -> tuple:
        """Return the cards, the choices of the comparison, the comparison, and the menu of orders."""
        import gradio as gr

        judged = [index for index, photograph in enumerate(shown) if photograph.verdict is not None]
        last = (judged[-2], judged[-1]) if len(judged) > 1 else (None, None)
        names = [(shown[index].name, index) for index in judged]
        chosen = [gr.update(choices=names, value=index) for index in last]
        menu = gr.update(visible=len(judged) > 1)
        return self.sort(shown, order), shown, *chosen, self.compare(shown, *last), menu

    def sort(self, shown: list[Judged], order: str) -> str:
        """Return the cards in one of ORDERS."""
        return cards(shown, self.critic.profile.measured_on, order)

    @staticmethod
    def compare(shown: list[Judged], first: int | None, second: int | None) -> str:
        """Return the comparison of two photographs by their indices."""
        if first is None or second is None or max(first, second) >= len(shown):
            return render("comparison.html", sides=None)
        return comparison_card(shown[first], shown[second])


def build_page(critic: Critic, visits: Visits) -> Any:
    """Build the page as a gradio.Blocks."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # must be set before Gradio is imported
    import gradio as gr

    handlers = _Handlers(critic, visits)
    # Gradio passes the event where a parameter has this type. Gradio is imported late, so the type is set late too.
    for handler in (_Handlers.judge, _Handlers.restore):
        handler.__annotations__["event"] = gr.EventData

    with gr.Blocks(title="Aes-R1", analytics_enabled=False, fill_width=True) as page:
        opening = render(
            "opening.html",
            samples=critic.samples,
            temperature=critic.profile.temperature,
            warning=critic.profile.warning(),
        )
        gr.HTML(opening, elem_classes="opening")
        shown = gr.State([], time_to_live=visits.seconds)
        zone = gr.HTML(
            "",
            html_template=(_HERE / "templates" / "drop.html").read_text(encoding="utf-8"),  # Gradio fills it in
            js_on_load=(_HERE / "drop.js").read_text(encoding="utf-8"),
            most=PER_DROP,
            kept=ON_PAGE,
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
                sides = gr.HTML(handlers.compare([], None, None), elem_id="duel", apply_default_css=False)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        outputs = [results, shown, first, second, sides, order]
        zone.upload(handlers.judge, [shown, order], [zone, *outputs], trigger_mode="multiple", **quiet)
        zone.submit(handlers.restore, order, outputs, **quiet)  # the page sends it after a reload
        order.input(handlers.sort, [shown, order], results, **quiet)
        for choice in (first, second):
            choice.input(handlers.compare, [shown, first, second], sides, trigger_mode="always_last", **quiet)
    # Verdicts are computed one at a time, because two would slow each other. Visitors take turns by photograph.
    page.queue(default_concurrency_limit=1, max_size=200, api_open=False)
    return page


def serve_page(critic: Critic, *, port: int, block: bool = True) -> Any:
    """Serve the page on 127.0.0.1:`port`, with `block` until interrupted. InputError when the port is taken."""
    visits = Visits()
    page = build_page(critic, visits)
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
        Middleware(Guard, max_body=MAX_BYTES * 4 // 3 + 100_000),
    ]
    fonts = ["system-ui", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]  # named fonts are never fetched
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
            run_history=False,
            state_session_capacity=200,
            app_kwargs={"middleware": guards, "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=gr.themes.Base(font=fonts, font_mono=["ui-monospace", "monospace"]),
            # The style goes into the head, because Gradio rewrites css= and drops its media queries.
            head=render("head.html"),
        )
    except OSError as error:
        raise InputError(f"--port={port}: cannot be listened on; give another") from error
    Thread(target=_forget_for_ever, args=(page, visits), daemon=True).start()
    print(f"http://127.0.0.1:{port}", flush=True)
    if block:
        page.block_thread()
    return page


def forget(page: Any, visits: Visits) -> None:
    """Delete the visits that are over, and what Gradio keeps of tabs that have been unused for as long.

    Gradio ends the state of a tab by itself, but keeps the last value of every component, the cards among them.
    """
    visits.forget()
    tabs = page.app.state_holder
    with tabs.lock:
        over = datetime.now() - timedelta(seconds=visits.seconds)
        # Gradio notes a use of a tab without this lock, so the mapping may change at any moment.
        for tab, last_used in list(tabs.time_last_used.items()):
            if last_used < over:
                tabs.session_data.pop(tab, None)
                tabs.time_last_used.pop(tab, None)


def _forget_for_ever(page: Any, visits: Visits) -> None:
    while True:
        time.sleep(_FORGET_S)
        forget(page, visits)

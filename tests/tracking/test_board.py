"""tracker=tensorboard: the event files, read back by TensorBoard itself."""

from __future__ import annotations

import html
import re
import sys

import pytest

from aes_r1.settings import InputError, TrackerSettings
from aes_r1.tracking.tracker import Tracker

SETTINGS = TrackerSettings(name="tensorboard")


def read(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    events = accumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    curves = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {
        tag.removesuffix("/text_summary"): [
            (one.step, one.tensor_proto.string_val[0].decode()) for one in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }
    return curves, texts


@pytest.mark.slow
def test_curves_have_the_glossarys_names_and_survive_a_resume_without_repetition(tmp_path):
    pytest.importorskip("tensorboard")
    with Tracker(tmp_path, SETTINGS, {}) as tracker:
        tracker.log("sft", 1, {"sft/loss": 2.5, "lr": 0.5})
        for step in (1, 2, 3):
            tracker.log("rapo", step, {"reward/total": step / 4, "policy/kl_k3": float("nan")})
        tracker.completions("rapo", 2, [{"id": "a", "score": 0.25, "mos": 0.5, "text": "<think>a | b\n</think>"}])
    with Tracker(tmp_path, SETTINGS, {}) as tracker:
        tracker.resume("rapo", 2)
        tracker.log("rapo", 3, {"reward/total": 9.0})
        tracker.summary({"headline/srcc": 0.75})
    curves, texts = read(tmp_path)
    assert curves == {
        "sft/loss": [(1, 2.5)],
        "sft/lr": [(1, 0.5)],
        "reward/total": [(1, 0.25), (2, 0.5), (3, 9.0)],
        "headline/srcc": [(0, 0.75)],
    }
    assert texts["rapo/completions"] == [
        (2, "| score | mos | text |\n|---|---|---|\n| 0.25 | 0.5 | &lt;think>a \\| b &lt;/think> |")
    ]
    assert "| lr | learning rate of the optimizer step |" in texts["glossary"][0][1]
    assert not (tmp_path / "wandb").exists()


EVIL = [
    "![x](http://attacker.example/seen.png)",
    "\\![x](http://attacker.example/seen.png)",
    "\\\\![x](http://attacker.example/seen.png)",
    "[x](http://attacker.example)",
    "![x][1] [1]: http://attacker.example/seen.png",
    '<img src="http://attacker.example/seen.png">',
    "<http://attacker.example>",
    "&lt;img src=http://attacker.example&gt;",
    "a | ![x](http://attacker.example/seen.png) | b \\| c",
    "`a` **b** __c__ *d* _e_ # f ~~g~~ {h} (i)",
    "http://attacker.example/seen.png",
]


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.slow
def test_no_words_of_a_model_become_markup(text, tmp_path):
    """TensorBoard shows the table as HTML that it makes of Markdown: with the model's text in one cell, as it is."""
    pytest.importorskip("tensorboard")
    from tensorboard import plugin_util

    with Tracker(tmp_path, SETTINGS, {}) as tracker:
        tracker.completions("rapo", 1, [{"id": "a", "score": 0.25, "mos": 0.5, "text": text}])
    ((_, table),) = read(tmp_path)[1]["rapo/completions"]
    shown = plugin_util.markdown_to_safe_html(table)
    tags = ["table", "thead", "tr", *["th"] * 3, "tbody", "tr", *["td"] * 3]
    assert re.findall(r"<(\w+)", shown) == tags, shown
    assert html.unescape(re.findall(r"<td>(.*?)</td>", shown)[2]) == text


def test_without_tensorboard_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        InputError, match=r"tracker=tensorboard: .*; pip install -e '.\[tensorboard\]', or give tracker="
    ):
        Tracker(tmp_path, SETTINGS, {})

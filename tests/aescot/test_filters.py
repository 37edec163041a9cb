import json
import time

import pytest

from aes_r1.aescot.filters import FILTERS, decisions, find_refusal, form_reasons, not_english, read_reply
from aes_r1.aescot.record import Reply
from aes_r1.prompts import DIMENSIONS

SAID = {
    "light_and_shadow": "Soft window light models the face and leaves the room behind it dark.",
    "mood_and_narrative": "A quiet, waiting mood; the letter on the table stays closed.",
    "composition": "The sitter stands on the left third, with calm space to the right.",
    "color": "Warm browns hold the frame, and one blue cup answers them.",
    "exposure": "Highlights are protected and the shadows keep their texture.",
    "judgement": "A considered, touching portrait.",
}


def reply(**changes):
    texts = {**SAID, **changes}
    return Reply({name: texts[name] for name in DIMENSIONS}, texts["judgement"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("Soft light, calm mood.", "invalid_json"),
        (json.dumps(SAID)[:-40], "invalid_json"),
        ("[1, 2]", "invalid_json"),
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("As an AI I have no eyes.", "refusal"),
        (json.dumps({**SAID, "color": ""}), "missing_dimension"),
        (json.dumps({**SAID, "color": "N/A"}), "missing_dimension"),
        (json.dumps({name: text for name, text in SAID.items() if name != "judgement"}), "missing_dimension"),
        (json.dumps({**SAID, "color": "", "judgement": "I cannot view the image."}), "refusal"),
    ],
)
def test_a_reply_that_cannot_be_read_has_one_reason(text, reason):
    read, reasons, _ = read_reply(text)
    assert read is None
    assert list(reasons) == [reason]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Warm &amp; soft, it&#39;s calm.", "Warm & soft, it's calm."),
        ("Warm.\\nSoft.", "Warm. Soft."),
        ('A caf\\u00e9 in \\"warm\\" light.', 'A café in "warm" light.'),
        ("Salt & pepper tones.", "Salt & pepper tones."),
    ],
)
def test_escapes_that_a_model_wrote_twice_are_read(written, read):
    reply, reasons, _ = read_reply(json.dumps({**dict.fromkeys(DIMENSIONS, "Soft."), "judgement": written}))
    assert (reply.judgement, reasons) == (read, {})


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("Warm <b>tones</b>.", "unusable"),
        ("Caf\ufffd light.", "unusable"),
        ("A lone \\ud83d half.", "unusable"),
        ("<one or two sentences>", "missing_dimension"),
    ],
)
def test_left_overs_of_programs_and_forms_are_not_taught(written, reason):
    text = json.dumps({**dict.fromkeys(DIMENSIONS, "Soft."), "judgement": written})
    assert list(read_reply(text)[1]) == [reason]


def test_values_in_backticks_lose_both():
    members = ", ".join(f'"{name}": `Soft tones.`' for name in (*DIMENSIONS, "judgement"))
    reply, _, mended = read_reply(f"{{{members}}}")
    assert {*reply.dimensions.values(), reply.judgement} == {"Soft tones."}
    assert mended == ("repaired",)


@pytest.mark.parametrize(
    "label",
    ["light_and_shadow: ", "**Light and Shadow**: ", "Light & shadow - ", "## Light & Shadow:\n", "LIGHT AND SHADOW: "],
)
def test_a_label_in_front_of_a_text_is_written_once(label):
    texts = {**dict.fromkeys(DIMENSIONS, "Soft."), "light_and_shadow": f"{label}It falls from the left."}
    rest = label if " - " in label else ""
    assert Reply(texts, "Good.").critique.startswith(f"Light and shadow: {rest}It falls from the left. Mood")
    other = Reply({**dict.fromkeys(DIMENSIONS, "Soft."), "color": "Exposure: dark."}, "Good.")
    assert "Color: Exposure: dark." in other.critique


def test_an_honest_reply_passes():
    assert form_reasons(reply(), 0.5, min_words=20, max_words=400) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"judgement": "A solid seven."}, "leak"),
        ({"exposure": "I'm unable to view the image."}, "refusal"),
        ({"color": "暖かい茶色が画面を支えている"}, "language"),
        ({"color": "Тёплые коричневые тона"}, "language"),
        (
            {"mood_and_narrative": "Une humeur calme, une attente douce, rien ne presse encore dans cette chambre"},
            "language",
        ),
    ],
)
def test_a_fault_in_one_sentence_rejects(changes, reason):
    assert list(form_reasons(reply(**changes), 0.7, min_words=20, max_words=400)) == [reason]


@pytest.mark.parametrize(
    ("said", "declines"),
    [
        ("I can't help but admire the light.", False),
        ("I cannot help but follow the line.", False),
        ("I can not help but smile.", False),
        ("I can't help admiring the light.", False),
        ("I can't help smiling at the dog.", False),
        ("I can't help identifying the person in this photo.", True),
        ("I can't help critiquing real people; it violates policy.", True),
        ("I'm sorry, I can't help rating people.", True),
        ("I cannot help viewing this.", True),
        ("I can't help describe this.", True),
        ("I cannot help feeling that the frame is calm.", False),
        ("I can't help with that.", True),
        ("I cannot help you.", True),
        ("I can't help.", True),
    ],
)
def test_one_who_cannot_help_but_admire_does_not_decline(said, declines):
    assert (find_refusal(said) is not None) == declines


def test_length_is_bounded_both_ways():
    assert "length" in form_reasons(reply(), 0.5, min_words=100, max_words=400)
    assert "length" in form_reasons(reply(), 0.5, min_words=10, max_words=30)


@pytest.mark.parametrize(
    "said",
    [
        "Das Licht fällt weich auf das Gesicht",
        "La luz suave modela el rostro con cuidado",
        "La luce morbida modella il volto",
    ],
)
def test_other_languages_are_told_from_english(said):
    foreign = Reply(dict.fromkeys(DIMENSIONS, said), said)
    assert not_english(foreign)
    assert not_english(reply()) is None


def test_accents_in_english_are_english():
    assert not_english(reply(composition="The café façade frames the naïve gesture of the girl at the door.")) is None


def test_a_filter_that_was_not_run_decided_nothing():
    result = decisions({"leak": "seven"}, ("length", "language"))
    assert {name for name, decided in result.items() if decided} == {"leak"}
    assert {name for name, decided in result.items() if decided is False} == {"length", "language"}
    assert list(result) == list(FILTERS)


@pytest.mark.parametrize("said", ["1" * 20_000 + "x", "1" * 10_000 + "none" + "1" * 10_000 + "x"])
def test_a_text_of_many_digits_takes_bounded_time(said):
    started = time.process_time()
    assert read_reply(json.dumps({**dict.fromkeys(DIMENSIONS, "Soft."), "judgement": said}))[0] is not None
    assert time.process_time() - started < 1

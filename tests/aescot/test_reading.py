"""The last whole object of a text is read, in every spelling that models use, in bounded time."""

import json
import time

import pytest

from aes_r1.aescot.filters import read_reply
from aes_r1.aescot.judge import JudgeVerdict, read_verdict
from aes_r1.prompts import DIMENSIONS, untaught

SAID = {
    "light_and_shadow": "Soft window light models the face.",
    "mood_and_narrative": "A quiet, waiting mood.",
    "composition": "The sitter stands on the left third.",
    "color": "Warm browns hold the frame.",
    "exposure": "Highlights are protected.",
    "judgement": "A considered, touching portrait.",
}
WHOLE = json.dumps(SAID)
DRAFT = json.dumps({**SAID, "judgement": "A first thought."})
VERDICT = '{"level": "fair", "score": 0.5, "unsupported_claims": []}'


def renamed(**names):
    return json.dumps({names.get(key, key): text for key, text in SAID.items()})


MENDED = [
    (WHOLE, ()),
    (f"```json\n{WHOLE}\n```", ()),
    (f"As you asked {{in JSON}}: {WHOLE} I hope it helps. {{}}", ()),
    (f"{WHOLE}<|im_end|>", ()),  # the end of the turn, written out by the server
    (f"Draft: {DRAFT} Final: {WHOLE}", ("draft",)),
    (f"<think>{DRAFT}</think>\n{WHOLE}", ("draft",)),
    (f"{WHOLE}\n{WHOLE}", ()),
    (f'{WHOLE} The schema was {{"light_and_shadow": "...", "judgement": "..."}}', ()),
    (f'{{"draft": {DRAFT}, "final": {WHOLE}}}', ("wrapped", "draft")),
    (f'{{"critique": {WHOLE}}}', ("wrapped",)),
    (f'[{{"response": {{"data": {WHOLE}}}}}]', ("wrapped",)),
    (json.dumps({"critique": WHOLE}), ("wrapped",)),
    (json.dumps({"name": "critique", "arguments": WHOLE}), ("wrapped",)),
    (json.dumps({"calls": [{"function": {"arguments": json.dumps({"critique": WHOLE})}}]}), ("wrapped",)),
    *(
        (json.dumps({part: {key: SAID[key] for key in DIMENSIONS}, "judgement": SAID["judgement"]}), ("wrapped",))
        for part in ("dimensions", "Critique", "Aspects")
    ),
    (json.dumps({"reply": {"Dimensions": {key: SAID[key] for key in DIMENSIONS}, **SAID}}), ("wrapped",)),
    (json.dumps({key.replace("_", " ").title(): text for key, text in SAID.items()}), ("keys",)),
    (json.dumps({f"{n}. {key}": text for n, (key, text) in enumerate(SAID.items(), 1)}), ("keys",)),
    (json.dumps({f"**({n}) {key}**": text for n, (key, text) in enumerate(SAID.items(), 1)}), ("keys",)),
    (f"<think>{DRAFT}</think>In the requested format:\n{WHOLE}", ("draft",)),
    (f"An example was asked for.\nDraft: {DRAFT} Final, in the requested format:\n{WHOLE}", ("draft",)),
    (renamed(color="colour", light_and_shadow="Light & Shade", judgement="judgment"), ("keys",)),
    (json.dumps({key: [text] for key, text in SAID.items()}), ("lists",)),
    (json.dumps({**SAID, "color": {"text": SAID["color"]}}), ("lists",)),
    (WHOLE[:-1] + ",}", ("repaired",)),
    (WHOLE.replace('"', "“", 1).replace('"', "”", 1), ("repaired",)),
    *(
        ("{" + ", ".join(form.format(key, text) for key, text in SAID.items()) + "}", ("repaired",))
        for form in ('"{}": “{}”', "“{}”: “{}”", '“{}”: "{}"')
    ),
    (WHOLE.replace('", "', '"\n"'), ("repaired",)),
    (str(SAID), ("repaired",)),  # Python's quotes
    (WHOLE[:-1] + "} // done }", ()),
    (f'{WHOLE[:-1]}, "example": {DRAFT}}}', ()),  # of two inside one another the outer one counts
    (f'{{"critique": {WHOLE[:-1]}, "example": {DRAFT}}}}}', ("wrapped",)),
    (f"Draft: {DRAFT} Final: {WHOLE[:-1]},}}", ("repaired", "draft")),
    (f"Draft: {DRAFT} Final: {SAID}", ("repaired", "draft")),
    (f"Draft: {DRAFT[:-1]},}} Final: {WHOLE}", ("draft",)),
]


@pytest.mark.parametrize(
    "reply",
    [
        {"dimensions": json.loads(DRAFT), "judgement": SAID["judgement"]},  # two judgements, and either could be meant
        {"dimensions": {**SAID, "color": "Cold blues."}, "color": SAID["color"]},
        {"dimensions": {"color": SAID["color"]}, "aspects": SAID, "judgement": SAID["judgement"] + " Or not."},
    ],
)
def test_parts_that_contradict_the_object_around_them_are_not_read(reply):
    assert read_reply(json.dumps(reply))[0] is None


def test_texts_that_look_like_objects_take_bounded_time():
    started = time.process_time()
    assert read_reply(json.dumps({str(index): "{" + "[" * 4000 for index in range(20)}))[0] is None
    assert read_reply(json.dumps({**SAID, "notes": ["{" * 50] * 500}))[0] is not None
    assert time.process_time() - started < 2


@pytest.mark.parametrize(("text", "mended"), MENDED)
def test_a_reply_is_read_however_it_is_wrapped_and_how_is_said(text, mended):
    reply, reasons, how = read_reply(text)
    assert reasons == {}
    assert {**reply.dimensions, "judgement": reply.judgement} == SAID
    assert how == mended


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WHOLE[: len(WHOLE) // 2], "invalid_json"),  # cut short: half a sentence is not completed
        (f"{WHOLE[: WHOLE.index('exposure')]}", "invalid_json"),
        (f'{{"critique": {WHOLE[:-30]}', "invalid_json"),
        ('{"light_and_shadow": ' + "[" * 3000 + "]" * 3000 + "}", "invalid_json"),
        ('{"a": ' * 3000 + "}" * 3000, "invalid_json"),
        ("{" * 100_000, "invalid_json"),
        ('{"a":' * 60_000, "invalid_json"),
        ("7", "invalid_json"),
        ("null", "invalid_json"),
        ('"' + "x" * 50_000, "invalid_json"),
        ("\x00", "invalid_json"),
        ("{}", "missing_dimension"),
        (json.dumps({**SAID, "color": ["red", 7]}), "missing_dimension"),
        (json.dumps({**SAID, "color": 7}), "missing_dimension"),
        (json.dumps({**SAID, "color": "7"}), "missing_dimension"),
        (json.dumps({**SAID, "color": "7.5 / 10"}), "missing_dimension"),
        (json.dumps({**SAID, "color": "<text>"}), "missing_dimension"),
        (WHOLE.replace(json.dumps(SAID["color"]), "NaN"), "missing_dimension"),
        (json.dumps({**SAID, "colour": None, "color": None}), "missing_dimension"),
        ('{"score": ' + "9" * 5000 + ', "light_and_shadow": "x"}', "missing_dimension"),
    ],
)
def test_a_reply_that_cannot_be_read_is_marked_in_bounded_time(text, reason):
    started = time.process_time()
    reply, reasons, _ = read_reply(text)
    assert reply is None
    assert list(reasons) == [reason]
    assert time.process_time() - started < 2


TITLES = {key: key.replace("_", " ").title().replace(" And ", " & ") for key in SAID}
HEADED = {
    form: separator.join(form.format(number, TITLES[key], text) for number, (key, text) in enumerate(SAID.items(), 1))
    for form, separator in {
        "## {0}. {1}\n{2}": "\n\n",
        "### **{1}**\n\n{2}": "\n\n---\n\n",
        "**{1}:** {2}": "\n",
        "**{1}**: {2}": "\n\n",
        "- **{1}**\n  {2}": "\n",
        "{0}. {1}: {2}": "\n",
        "{0}. **{1}** - {2}": "\n",
        "{1}: '{2}'": "\n",
        "{1}: >-\n  {2}": "\n",
    }.items()
}


@pytest.mark.parametrize(
    "around", ["{}", "# Critique\nAs you asked.\n\n{}\n", "<think>Color: hm.</think>\n{}", "```yaml\n{}\n```"]
)
@pytest.mark.parametrize("form", HEADED)
def test_a_reply_under_headings_of_the_dimensions_names_is_read(form, around):
    reply, reasons, how = read_reply(around.format(HEADED[form]))
    assert reasons == {}
    assert {**reply.dimensions, "judgement": reply.judgement} == SAID
    assert how == ("headings",)


@pytest.mark.parametrize("form", HEADED)
@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("portrait.", "port"),  # cut short
        lambda text: text + "\n\nLet me know if you want more.",  # perhaps no part of the judgement
        lambda text: text + "\n**Score:** 7/10.",
        lambda text: text + "\n" + text,
        lambda text: text.replace("Color", "Lighting"),
        lambda text: text.replace("Color", "Overall"),
        lambda text: text.replace("Exposure", "Color"),
        lambda text: text + ' {"color": "red"}',
        lambda text: text.replace("Warm browns hold the frame.", ""),
    ],
)
def test_headings_that_leave_a_doubt_are_not_read(form, changed):
    reply, reasons, _ = read_reply(changed(HEADED[form]))
    assert reply is None
    assert set(reasons) <= {"invalid_json", "missing_dimension"}


def test_headings_are_read_in_bounded_time():
    started = time.process_time()
    for text in (
        "- " * 50_000,
        "**" * 50_000,
        ("**a" * 20 + "\n") * 1000,
        "1. " * 30_000,
        "color: " + " \n" * 50_000 + "x",
    ):
        assert read_reply(text)[0] is None
    assert time.process_time() - started < 2


@pytest.mark.parametrize("nulls", [("colour", "color"), ("color", "colour")])
def test_a_null_replaces_no_text_of_another_spelling(nulls):
    reply, _, _ = read_reply(json.dumps({**SAID, nulls[0]: "Blue.", nulls[1]: None}))
    assert reply.dimensions["color"] == "Blue."


@pytest.mark.parametrize(
    "text", ['{"a":' * 60_000, "{" * 50_000 + "}" * 50_000, "{a}" * 33_000, "{x:{y:[" * 400 + "]}}" * 400]
)
def test_a_verdict_that_cannot_be_read_takes_bounded_time(text):
    started = time.process_time()
    assert read_verdict(text) == (None, ())
    assert time.process_time() - started < 2


@pytest.mark.parametrize("digits", [5, 5000])
def test_a_number_of_any_length_beside_the_texts_does_no_harm(digits):
    reply, _, _ = read_reply(json.dumps({**SAID, "score": 0})[:-2] + "9" * digits + "}")
    assert reply.judgement == SAID["judgement"]


@pytest.mark.parametrize(
    "planted",
    [
        "\\ud83d",
        "\\u0000",
        "\\u0007",
        "\\u202e",
        "<|im_end|>",
        "<|image_pad|>",
        "<|endoftext|>",
        "</think>",
        "<answer>",
        "【4:0†source】",
        "\\ue200cite\\ue202turn0search0\\ue201",
        "[cite: 1]",
    ],
)
@pytest.mark.parametrize("name", [*DIMENSIONS[:1], "judgement"])
def test_a_text_that_would_break_training_is_no_reply(planted, name):
    reply, reasons, _ = read_reply(WHOLE.replace(SAID[name], f"Calm {planted} light."))
    assert reply is None
    assert list(reasons) == ["unusable"]
    assert reasons["unusable"].isascii()


@pytest.mark.parametrize(
    "text", ["A café — “quoted”, naïve; 50 % of the frame.", "a < b and b > c", "emoji 😀 is whole"]
)
def test_ordinary_text_is_usable(text):
    assert untaught(text) is None


@pytest.mark.parametrize(
    ("text", "verdict", "mended"),
    [
        (VERDICT, JudgeVerdict("fair", 0.5, ()), ()),
        (VERDICT.replace("level", "Level").replace("fair", "Fair"), JudgeVerdict("fair", 0.5, ()), ("keys",)),
        (VERDICT.replace("unsupported_claims", "Unsupported Claims"), JudgeVerdict("fair", 0.5, ()), ("keys",)),
        (f'{{"verdict": {VERDICT}}}', JudgeVerdict("fair", 0.5, ()), ("wrapped",)),
        (VERDICT[:-1] + ",}", JudgeVerdict("fair", 0.5, ()), ("repaired",)),
        (f"{VERDICT.replace('fair', 'good')} No, rather: {VERDICT}", JudgeVerdict("fair", 0.5, ()), ("draft",)),
        ('{"level": "fair", "score": ' + "9" * 5000 + ', "unsupported_claims": []}', None, ()),
        (VERDICT[:-3], None, ()),
        (VERDICT.replace("0.5", '"0.5"'), JudgeVerdict("fair", 0.5, ()), ()),
        (VERDICT.replace("0.5", '"5/10"'), None, ()),
        (VERDICT.replace("0.5", "50"), None, ()),
        (VERDICT.replace("[]", "null"), JudgeVerdict("fair", 0.5, ()), ()),
        (VERDICT.replace("[]", '"None."'), JudgeVerdict("fair", 0.5, ()), ()),
        (VERDICT.replace("[]", '["none", "N/A", " - "]'), JudgeVerdict("fair", 0.5, ()), ()),
        (VERDICT.replace("[]", '["No sky", "none"]'), JudgeVerdict("fair", 0.5, ("No sky",)), ()),
        (VERDICT.replace("[]", '"The sky is red."'), None, ()),
        ('{"level": "fair", "score": 0.5}', None, ()),
        (VERDICT.replace("0.5", ".5"), JudgeVerdict("fair", 0.5, ()), ("repaired",)),
        (VERDICT.replace("0.5", "0.5 // fair\n"), JudgeVerdict("fair", 0.5, ()), ("repaired",)),
        (VERDICT.replace("0.5", "1 / 2"), None, ()),
        (VERDICT.replace("0.5", "0.5 of 1"), None, ()),
        (VERDICT.replace("0.5", "1%"), None, ()),
        (VERDICT.replace('"level": "fair"', '"level": "bad", "level": "fair"'), None, ()),
        (VERDICT.replace('"level": "fair"', '"level": "fair", "level": "fair"'), JudgeVerdict("fair", 0.5, ()), ()),
    ],
)
def test_a_verdict_is_read_by_the_same_rules(text, verdict, mended):
    assert read_verdict(text) == (verdict, mended)


@pytest.mark.parametrize(
    "prose", ["Score: 7 out of 10.\n", "score: 0 to 1\n", "score: 0.7.\n```json\n", "level: 1 of 3, score: 50%\n"]
)
def test_a_number_outside_the_object_does_not_spoil_a_repaired_verdict(prose):
    for text in (f"{prose}{VERDICT[:-1]},}}", f"{prose}{VERDICT[:-1]},}}\n{prose}"):
        assert read_verdict(text) == (JudgeVerdict("fair", 0.5, ()), ("repaired",))
    assert read_verdict(f"{prose}{VERDICT.replace('0.5', '1 / 2')[:-1]},}}") == (None, ())


@pytest.mark.parametrize("quotes", ['""', "''", ("", ""), "“”"])
@pytest.mark.parametrize("end", ["", ","])
@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("level", '"good"', '"fair"'), ("score", "0.7", "0.5"), ("unsupported_claims", '["No sky"]', "[]")],
)
def test_a_verdict_with_two_values_of_a_key_is_not_read(name, first, second, quotes, end):
    key = f'"{name}": '
    for one, other in [(first, second), (second, first), (second, "null")]:
        members = VERDICT[1:-1].replace(f"{key}{second}", f"{key}{one}, {key}{other}")
        text = f"{{{members}{end}}}".replace(f'"{name}"', name.join(quotes))
        assert read_verdict(text) == (None, ())
        assert read_verdict(f"{VERDICT} Rather: {text}") == (None, ())
    same = f"{{{VERDICT[1:-1]}, {key}{second}{end}}}".replace(f'"{name}"', name.join(quotes))
    assert read_verdict(same)[0] == JudgeVerdict("fair", 0.5, ())


@pytest.mark.parametrize("end", ["", ","])
def test_a_verdict_with_two_values_of_the_key_around_it_is_not_read(end):
    other = VERDICT.replace("fair", "good")
    assert read_verdict(f'{{"verdict": {other}, "verdict": {VERDICT}{end}}}') == (None, ())
    assert read_verdict(f'{{"verdict": {VERDICT}, "verdict": {VERDICT}{end}}}')[0] == JudgeVerdict("fair", 0.5, ())
    assert read_verdict(f'{{"a": 1, "a": 2, {VERDICT[1:-1]}{end}}}')[0] == JudgeVerdict("fair", 0.5, ())


@pytest.mark.parametrize("end", ["", ","])
@pytest.mark.parametrize("name", ["color", "judgement"])
def test_a_critique_with_two_texts_of_a_key_is_not_read(name, end):
    other = f'{{"{name}": "Something else.", {WHOLE[1:-1]}{end}}}'
    for text in (other, f"{DRAFT} Final: {other}", f'{{"critique": {other}{end}}}'):
        reply, reasons, _ = read_reply(text)
        assert reply is None
        assert list(reasons) == ["invalid_json"]
    assert read_reply(f'{{"{name}": "{SAID[name]}", {WHOLE[1:-1]}{end}}}')[0] is not None


def test_a_repaired_critique_may_name_its_dimensions_in_its_texts():
    said = {**SAID, "judgement": "Color: warm, composition: strict, and judgement: kind, color: warm."}
    reply, _, mended = read_reply(json.dumps(said)[:-1] + ",}")
    assert reply.judgement == said["judgement"]
    assert mended == ("repaired",)

import asyncio
import json

import numpy as np
import pytest

from aes_r1.aescot.judge import JudgeVerdict, ScenesJudge, misaligned, read_rating, read_verdict
from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"level": "fair", "score": 0.5, "unsupported_claims": []}', JudgeVerdict("fair", 0.5, ())),
        (
            'Sure: {"level": "Good ", "score": 1, "unsupported_claims": ["a dog", " "]}',
            JudgeVerdict("good", 1, ("a dog",)),
        ),
        ('{"level": "bad", "score": null, "unsupported_claims": []}', JudgeVerdict("bad", None, ())),
        ('{"level": "great", "score": 0.5, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": 5, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": true, "unsupported_claims": []}', None),
        ('{"level": "fair", "score": 0.5}', None),
        ("fair, 0.5", None),
    ],
)
def test_a_verdict_is_read_strictly(text, verdict):
    assert read_verdict(text)[0] == verdict


@pytest.mark.parametrize(
    ("beside", "rating"),
    [
        ('"out_of": 5', None),
        ('"max": 100', None),
        ('"maxRating": 5.0', None),
        ('"scale": "1-5"', None),
        ('"scale": {"min": 0, "max": 10}', 4),
        ('"out_of": "10"', 4),
        ('"scale": "likert"', 4),
        ('"reason": "one of 5"', 4),
    ],
)
def test_a_rating_on_a_scale_of_its_own_is_not_taken_for_one_to_ten(beside, rating):
    assert read_rating(f'{{"rating": 4, {beside}}}')[0] == rating
    assert read_rating(f"{{{beside}, 'rating': 4,}}")[0] == rating


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ('{"rating": 7}', 7.0),
        ('Sure: {"Rating": "6.5"} I hope that helps.', 6.5),
        ('{"rating": 2} no, wait: {"rating": 3}', 3.0),
        ('{"verdict": {"rating": 10}}', 10.0),
        ('{"rating": 0}', 0.0),
        ('{"rating": 10.5}', None),
        ('{"rating": -1}', None),
        ('{"rating": true}', None),
        ('{"rating": NaN}', None),
        ('{"rating": "7/10"}', None),
        ('{"rating": [7]}', None),
        ("{'rating': 7}", 7.0),
        ('{"rating": 07,}', 7.0),
        ('{"rating": 7 # of 10\n}', 7.0),
        # json_repair drops what follows a number, which decides what the number means.
        *((f'{{"rating": {said}}}', None) for said in ("7%", "4 / 5", "4/5", "4 out of 5", "7 8", "1_0", "7,5", "6-7")),
        ("Rating: 7 of 10\n{rating: 7}", 7.0),
        ("{rating: 7}\nThat is rating: 7 of 10", 7.0),
        ('{"rating": 3, "rating": 8}', None),
        ('{"rating": 3, "rating": 8,}', None),
        ("{rating: 3, rating: 8}", None),
        ('{"rating": 8, "rating": 8,}', 8.0),
        ('{"score": 7}', None),
        ("7", None),
        ("", None),
    ],
)
def test_a_rating_is_read_strictly(text, rating):
    assert read_rating(text)[0] == rating


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        # The outermost object that has a rating speaks of the whole.
        ('{"rating": 8, "aspects": {"light": {"rating": 2}, "color": {"rating": 9}}}', 8.0),
        ('{"rating": 8, "scale": {"rating": 10, "max": 10}}', 8.0),
        ('{"rating": 8, "parts": [{"rating": 1}, {"rating": 2}]}', 8.0),
        ('{"verdict": {"rating": 8, "aspects": {"light": {"rating": 2}}}}', 8.0),
        ('{"verdict": {"rating": 8}, "deep": {"aspects": {"light": {"rating": 2}}}}', 8.0),
        ('{"rating": 8, "example": "{\\"rating\\": 3}"}', 8.0),
        ('{"rating": 8, "aspects": {"light": {"rating": 2}},}', 8.0),  # repaired
        ('{"draft": {"rating": 3}, "final": {"rating": 8}}', 8.0),
        # The last object that has a rating decides, even if it cannot be read.
        ('The scale is {"rating": 10}. I give {"rating": null}', None),
        ('<think>{"rating": 3}</think>{"rating": "eight"}', None),
        ('{"rating": 8} {"rating": 11}', None),
        ('{"rating": null, "aspects": {"light": {"rating": 2}}}', None),
        ('{"draft": {"rating": 3}, "final": {"rating": "eight"}}', None),
        ('{"rating": 8, "aspects": {"light": {"rating": 2}}', None),  # cut short
        ('{"rating": 3} Final: {"rating": ', None),
        ('{"rating": 3, no: {"rating": 8}', None),
        ('{"rating": 8} out of {"max": 10}', 8.0),
        # What follows the last whole object is repaired too.
        ("{\"rating\": 1} final: {'rating': 9}", 9.0),
        ('{"rating": 1} final: {"rating": 9,} done', 9.0),
        ("{'rating': 2} no: {'rating': 9}", 9.0),
        ("{'rating': 2} no: {\"rating\": 9}", 9.0),
        ('The form is {"rating": <0-10>}: {"rating": 9}', 9.0),
        ('I see {perhaps\n{"rating": 9}', 9.0),
        # A draft that breaks off decides nothing about a whole object that stands outside it.
        ('<think>{"rating": 6, wait no, the light is better</think>{"rating": 7}', 7.0),
        ('<think>{"rating": 6, wait no}} or {"rating": </think>{"rating": 7}', 7.0),
        ('<think>The form {"rating": </think>I say {"rating": 7}}', 7.0),
        ('<think>{"rating": 7}</think>', 7.0),
        ('<think>{"rating": 7}</think>\n<|im_end|>', 7.0),
        # What was thought decides nothing where something else was said after it.
        ('<think>A 2? {"rating": 2}</think>7', None),
        ('<think>{"rating": 2}</think>\n\nFinal: 7', None),
        ('<think>{"rating": 2}</think>Rating: 7 of 10 {so}', None),
        ('<thinking>{"rating": 2}</thinking>7', None),
        ('[THINK]{"rating": 2}[/THINK]7', None),
        ('<|begin_of_thought|>{"rating": 2}<|end_of_thought|>7', None),
        ('<thinking>{"rating": 2}</thinking>{"rating": 7}', 7.0),
        ('[THINK]{"rating": 2, or {"rating": [/THINK]{"rating": 7}', 7.0),
        ('Scale {0 = bad ... rating: as asked\n{"rating": 7}', 7.0),
        ('{"rating": 6, wait no, the light is better.\nFinal: {"rating": 7}', 7.0),
        ('{"rating": 6, "why": [unclear\nFinal: {"verdict": {"rating": 7}}', 7.0),
        ('{"rating": 8, "aspects": {"light": {"rating": 2}, oops\n{"rating": 7}', 7.0),
        # One inside it speaks of a part.
        ('{"rating": 8, "parts": [{"rating": 1}, {"rating": 2}', None),
        ('{"rating": 8, "parts": [{"rating": 1}, {"rating": 2}], "why": "it', None),
        ('{"rating": 8, "aspects": {"light": {"rating": 2}, "color": "', None),
        ('{"rating": 8, "aspects" :\n  {"light": {"rating": 2}}', None),
        ("{'rating': 8, 'part': {'rating': 2}", None),
        ("{rating: 8,\n part: {rating: 2}", None),
        ('{"rating": 8, "example": "{\\"rating\\": 3} and', None),
        ('{"rating": 8, "note": "as in {\\"rating\\": 3} and', None),
    ],
)
def test_a_rating_is_taken_from_the_object_that_gives_it(text, rating):
    assert read_rating(text)[0] == rating


BAD = '{"level": "bad", "score": 0.1, "unsupported_claims": []}'
GOOD = '{"level": "good", "score": 0.9, "unsupported_claims": ["a dog"]'


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (f'{GOOD}, "example": {BAD}}}', "good"),
        (f'{GOOD}, "examples": [{BAD}, {BAD}],}}', "good"),
        (f'{{"verdict": {GOOD}, "example": {BAD}}}}}', "good"),
        (f"{BAD} No: {GOOD}}}", "good"),
        (f"{BAD} No: {GOOD},}}", "good"),
        (f'{BAD} No: {{"level": "superb", "score": 0.9, "unsupported_claims": ["a dog"]}}', None),
        (f"{BAD} No: {GOOD}", None),
        (f'{GOOD}}} of {{"score": 1}}', "good"),
        (f'Draft: {{"level": "bad", \nFinal:\n{GOOD}}}', "good"),
        (f"<think>The form is {{level: one of bad, fair, good</think>{GOOD}}}", "good"),
        (f'{{"level": "bad", "verdict": {GOOD}}}', None),
        (f"<think>{BAD}</think>The level is good.", None),
    ],
)
def test_a_verdict_is_taken_from_the_object_that_gives_it(text, level):
    verdict = read_verdict(text)[0]
    assert (verdict and verdict.level) == level
    assert verdict is None or verdict.unsupported_claims == ("a dog",)


EXAMPLES = (
    "{0}\n\nThe format is: {1}",
    "{0} Format:\n```json\n{1}\n```",
    "{0}\n\n## Example\n\n{1}",
    "{0} (e.g. {1})",
    "{0} Without the dog it would be {1}",
    "{0}\n{1} is only a template.",
    "{0}\n{1}\n\nThe second one is an example.",
)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_after_an_answer_is_not_taken_for_it(text):
    """Either object could be the answer, so the judge is asked again."""
    assert read_verdict(text.format(GOOD + "}", BAD)) == (None, ())
    assert read_rating(text.format('{"rating": 8}', '{"rating": 2}')) == (None, ())
    assert read_rating(text.format('{"rating": 8}', '{"rating": 8}')) == (8.0, ())


@pytest.mark.parametrize(
    "text",
    [
        "In the requested format: {1}",
        "{0} is an example of the form. My rating:\n{1}",
        "Draft: {0}\nFinal answer in the requested format:\n```json\n{1}\n```",
        "<think>{0}</think>Here is the JSON in your format: {1}",
        "First {0}, then {1}",
    ],
)
def test_an_answer_that_is_said_to_be_in_the_format_is_one(text):
    assert read_rating(text.format('{"rating": 2}', '{"rating": 8}'))[0] == 8.0


@pytest.mark.parametrize(
    "claims",
    [
        *("[...]", "[…]", '["..."]', '["…"]', '"..."', "...", "[ ... ]", '["[...]"]', '["...", "..."]', "[..]"),
        *('["<claim>"]', '["TBD"]', '["string"]', "[ /* claims */ ]", "[# a dog\n]", "[// the sky is not blue\n]"),
    ],
)
def test_claims_that_were_left_out_are_not_read_as_none(claims):
    assert read_verdict(f'{{"level": "fair", "score": 0.5, "unsupported_claims": {claims}}}') == (None, ())


@pytest.mark.parametrize("claims", ["[]", "[ ]", "null", "None", "['']", "['none']", "[\n]", "'None found.'"])
def test_a_repaired_verdict_without_claims_has_none(claims):
    verdict, mended = read_verdict(f"{{'level': 'fair', 'score': 0.5, 'unsupported_claims': {claims},}}")
    assert verdict == JudgeVerdict("fair", 0.5, ())
    assert mended == ("repaired",)


@pytest.mark.parametrize(
    ("claims", "read"),
    [
        *(
            ([said], ())
            for said in (
                *(
                    "No unsupported claims.",
                    "no unsupported claims were found",
                    "No false or unsupported claims found.",
                ),
                *("There are no unsupported claims.", "No claims are unsupported", "No claims.", "nil", "None found."),
                *("N/A - all claims hold", "None: all of the claims are supported by the picture.", "None."),
                *("There are no unsupported claims in this critique.", "No unsupported claims in the text", "[]"),
                *("none (every claim holds)", "All claims are supported.", "Everything is consistent with the image."),
                *("N/A. All the described details are accurate", "Nothing to report", "nothing identified."),
                *("(none)", "- None", "* none.", "[none]", "'none'", "**None**", "“None.”", "—", "Not applicable."),
                *(
                    "There are none.",
                    "Nothing unsupported.",
                    "No unsupported claim was found.",
                    "No inaccuracies found",
                ),
                *("None of the claims are unsupported.", "The critique makes no unsupported claims.", "No errors."),
                *("No unsupported claims could be identified.", "I found no false statements in the critique."),
            )
        ),
        *(
            ([said], (said,))
            for said in (
                *("None of the shadows exist", "No sky", "Nothing is sharp", "No claims about the sky hold"),
                *("None, but the dog is missing", "All claims are wrong", "Every claim is unsupported"),
                *("All the colors are warm", "no details in the shadows", "No details", "The claims are not supported"),
                *("- No bird", "(nothing in the sky)", "No errors of exposure", "The critique has no sky"),
                *("None of the claims are supported", "There are none of the birds"),
                *("None of the claims hold", "All claims hold but one", "None - the boat is missing", "Nonetheless"),
            )
        ),
        (["No unsupported claims.", "a dog"], ("a dog",)),
        ("No unsupported claims.", ()),
        (None, ()),
    ],
)
def test_a_claim_that_says_there_is_none_is_no_claim(claims, read):
    text = json.dumps({"level": "fair", "score": 0.5, "unsupported_claims": claims})
    assert read_verdict(text)[0].unsupported_claims == read


@pytest.mark.parametrize("claim", ['{"claim": "The light is soft.", "supported": true}', "[]", "false", "7"])
def test_a_claim_that_is_no_text_is_not_taken_for_a_false_one(claim):
    assert read_verdict(BAD.replace("[]", f"[{claim}]"))[0] is None
    assert read_verdict(BAD.replace("[]", "[null]"))[0].unsupported_claims == ()


@pytest.mark.parametrize(
    "claims",
    [
        '"unsupported claims": ["x"], "unsupported_claims": null',
        '"unsupported_claims": null, "unsupported claims": ["x"]',
        '"Unsupported Claims": null, "unsupported claims": ["x"]',
        '"unsupported claims": [], "unsupported_claims": ["x"]',
    ],
)
def test_a_null_loses_no_claim(claims):
    assert read_verdict(f'{{"level": "fair", "score": 0.5, {claims}}}')[0].unsupported_claims == ("x",)


@pytest.mark.parametrize(
    ("verdict", "mos", "agrees"),
    [
        (JudgeVerdict("fair", 0.5, ()), 0.6, True),
        (JudgeVerdict("fair", 0.5, ()), 0.75, False),
        (JudgeVerdict("good", 0.95, ()), 0.72, False),
        (JudgeVerdict("good", None, ()), 0.72, True),
    ],
)
def test_level_and_score_must_both_agree(verdict, mos, agrees):
    assert (misaligned(verdict, mos, 0.2) is None) == agrees


def sample(factors, facts):
    return Sample("a", "a.png", 0.5, "scenes", "train", attributes={"factors": factors, "facts": facts})


def test_the_scenes_judge_reads_the_words_and_knows_the_factors():
    true, facts = dict.fromkeys(DIMENSIONS, 0.9), {"light": "left", "place": "right", "cues": ["moon"]}
    told = scenes_critique(true, facts, 0.5, np.random.default_rng(0))
    judge = ScenesJudge()
    asyncio.run(judge.fact(sample(true, None), told))  # null is absent
    assert asyncio.run(judge.align(sample(true, facts), told)).level == "fair"
    assert asyncio.run(judge.fact(sample(true, facts), told)).unsupported_claims == ()
    other = {"light": "right", "place": "right", "cues": ["birds"]}
    assert set(asyncio.run(judge.fact(sample(true, other), told)).unsupported_claims) == {"left", "moon"}
    darker = {**true, "exposure": 0.1}
    (claim,) = asyncio.run(judge.fact(sample(darker, facts), told)).unsupported_claims
    assert claim == told.dimensions["exposure"]

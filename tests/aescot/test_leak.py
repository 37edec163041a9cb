import pytest
from phrasings import HELD_OUT_SLY, INNOCENT, MORE_SLY, SLY

from aes_r1.aescot.leak import find_leak
from aes_r1.prompts import expert_prompt

AROUND = "Soft light from the left models the face. {} The tones stay calm and the frame holds together."

HONEST = (
    "Light and shadow: A low sun rakes across the dunes from the right, and each ridge throws a crisp shadow that "
    "gives the "
    "sand a clear relief. Detail holds even in the darkest hollows. Mood and narrative: A lone walker, small against "
    "the "
    "slope, hints at a long journey; what lies beyond the crest is withheld. Composition: The crest runs as a "
    "diagonal from "
    "the lower left to the upper right third, and the walker sits where it meets the sky. Color: Two hues, ochre and "
    "a deep "
    "blue, oppose each other; nothing disturbs that harmony. Exposure: Highlights on the crest are protected, and "
    "shadows "
    "keep their texture. Judgement: A memorable, assured photograph.",
    "Light and shadow: Flat noon light falls from straight above, so the faces sink into hard eye sockets. Mood and "
    "narrative: Five people stand in a row and look past the camera; no gesture ties them together. Composition: Half "
    "of the "
    "frame is empty pavement, the horizon cuts through the heads, and a lamp post grows out of one shoulder. Color: A "
    "green "
    "cast lies over skin and wall alike. Exposure: The white shirts are blown out at more than two points. Judgement: "
    "A "
    "careless snapshot that misses its moment.",
    "Light and shadow: Window light at around 5 pm grazes the table and leaves the far corner dark. Mood and "
    "narrative: The "
    "half-eaten bread and the 2 cups tell of a talk that has just ended. Composition: At f/2.8 the background "
    "dissolves; the "
    "cups stand on the left third. Color: Muted browns with one accent of red. Exposure: About 20% of the frame is "
    "close to "
    "black, yet nothing important is lost. Judgement: A quiet picture with some charm, held back by its loose crop.",
)


@pytest.mark.parametrize(("mos", "words"), SLY)
def test_every_sly_phrasing_is_caught(mos, words):
    assert find_leak(words, mos)
    assert find_leak(AROUND.format(words), mos)


def test_more_sly_phrasings_are_caught():
    missed = [words for mos, words in MORE_SLY if not find_leak(AROUND.format(words), mos)]
    assert len(missed) <= 0.02 * len(MORE_SLY), missed


def test_phrasings_that_the_filter_never_saw_are_mostly_caught():
    caught = sum(find_leak(words, mos) is not None for mos, words in HELD_OUT_SLY)
    assert caught / len(HELD_OUT_SLY) >= 0.85


def test_innocent_sentences_pass():
    accused = [(words, find_leak(words, mos)) for mos, words in INNOCENT if find_leak(words, mos)]
    assert len(accused) <= 0.02 * len(INNOCENT), accused


@pytest.mark.parametrize("critique", HONEST)
@pytest.mark.parametrize("mos", [0.31, 0.55, 0.86])
def test_honest_critiques_pass(critique, mos):
    assert find_leak(critique, mos) is None


def test_a_number_is_a_leak_near_the_score_only():
    assert find_leak("The walker is 63 paces away", 0.63)
    assert find_leak("The walker is 63 paces away", 0.31) is None


@pytest.mark.parametrize("mos", [0.6955, 0.6996, 0.69999, 0.3971, 0.39996])
def test_the_score_as_an_expert_was_told_it_is_found(mos):
    said = expert_prompt(mos).split("aesthetic score of ")[1].split()[0]
    assert find_leak(f"Soft light falls from the left, about {said} of what it might be.", mos) is not None


@pytest.mark.parametrize(
    ("text", "words"), [("A clean 7⁄10.", "7/10"), ("7∕10 for the light.", "7/10"), ("The scóre fits.", "score")]
)
def test_a_score_is_found_in_look_alike_letters_and_slashes(text, words):
    assert find_leak(text, 0.7) == words


def test_accents_of_ordinary_words_are_no_leak():
    assert find_leak("A naïve café façade under a clichéd, rosé sky.", 0.7) is None

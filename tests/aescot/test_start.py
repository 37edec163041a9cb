import json
import re
from contextlib import ExitStack
from dataclasses import replace

import pytest

from aes_r1.aescot.start import Recipe, check_roles, claim_output_folder, deciding_settings, prompts_of
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings

PHOTOGRAPH = Sample("a", "a.png", 0.5, "ava", "train")
SCENE = Sample("s", "s.png", 0.5, "scenes", "train", attributes={"factors": dict.fromkeys(DIMENSIONS, 0.5)})
NOT_DRAWN = [
    Sample("p", "p.png", 0.5, name, "train", attributes={"factors": factors})
    for name, factors in (
        ("folder", "light"),
        ("ava", dict.fromkeys(DIMENSIONS, 0.5)),
        ("scenes", "light"),
        ("scenes", {}),
    )
]
MODEL = {"name": "openai", "model": "m", "api_base": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("sample", "expert", "judge", "said"),
    [
        (PHOTOGRAPH, {"name": "scenes"}, {"name": "none"}, "use expert=pixels"),
        (PHOTOGRAPH, {"name": "pixels"}, {"name": "scenes"}, "use judge=none or judge=openai"),
        (SCENE, MODEL, {"name": "scenes"}, "judge=openai or judge=none"),
        *((one, {"name": "scenes"}, {"name": "none"}, "use expert=pixels") for one in NOT_DRAWN),
        *((one, {"name": "pixels"}, {"name": "scenes"}, "judge=scenes only judges made scenes") for one in NOT_DRAWN),
        (Sample("n", "n.png", None, "ava", "train"), {"name": "pixels"}, {"name": "none"}, "n has no score"),
    ],
)
def test_who_cannot_speak_is_named_before_anything_is_asked(sample, expert, judge, said):
    with pytest.raises(InputError, match=said):
        check_roles([sample], ExpertSettings(**expert), JudgeSettings(**judge))


@pytest.mark.parametrize(
    ("sample", "expert", "judge"),
    [(SCENE, "scenes", "scenes"), (SCENE, "pixels", "scenes"), (PHOTOGRAPH, "pixels", "none")],
)
def test_who_can_speak_may(sample, expert, judge):
    check_roles([sample], ExpertSettings(name=expert), JudgeSettings(name=judge))


def take(out, *, samples=(PHOTOGRAPH,), expert=MODEL, judge=None, seed=0, max_pixels=784, readable=None):
    with ExitStack() as stack:
        return claim_output_folder(
            out,
            samples,
            Recipe(ExpertSettings(**expert), JudgeSettings(**(judge or {"name": "none"})), seed, {}, max_pixels),
            stack=stack,
            readable=readable,
        )


def test_a_folder_goes_on_under_other_limits_prices_and_filters(tmp_path):
    take(tmp_path)
    claimed = (tmp_path / "distill.json").read_bytes()
    take(tmp_path, expert={**MODEL, "max_usd": 1.0, "input_usd_per_million": 1.0, "output_usd_per_million": 1.0})
    take(tmp_path, expert={**MODEL, "min_words": 30, "near_copy": 0.5, "max_concurrency": 2})
    assert (tmp_path / "distill.json").read_bytes() == claimed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "other seed"),
        ({"max_pixels": 1568}, "other max_pixels"),
        ({"samples": (SCENE,)}, "other pictures"),
        ({"expert": {**MODEL, "model": "other"}}, "other expert"),
        ({"judge": MODEL}, "other judge, prompts"),
    ],
)
def test_another_distillation_is_refused_for_it_would_be_paid_anew(tmp_path, changes, said):
    take(tmp_path)
    with pytest.raises(InputError, match=said):
        take(tmp_path, **changes)


def test_a_folder_is_named_by_the_list_and_not_by_what_can_be_read_of_it(tmp_path):
    other = replace(PHOTOGRAPH, id="b")
    both = (PHOTOGRAPH, other)
    assert take(tmp_path, samples=both, readable=[PHOTOGRAPH]) == both
    assert take(tmp_path, samples=both, readable=both) == both
    with pytest.raises(InputError, match=r"other pictures; give the original list of pictures \(.*another out="):
        take(tmp_path, samples=[other], readable=[other])
    # A folder that an older version named by what could be read then.
    take(tmp_path / "old", samples=[PHOTOGRAPH])
    assert take(tmp_path / "old", samples=both, readable=[PHOTOGRAPH]) == [PHOTOGRAPH]
    with pytest.raises(InputError, match="other seed"):
        take(tmp_path / "old", samples=both, readable=[PHOTOGRAPH], seed=1)


FOUR = tuple(replace(PHOTOGRAPH, id=name) for name in "abcd")


def forget_left_out(out):
    """As an older version wrote it."""
    path = out / "distill.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "left_out"})
    )


def decide(out, *pictures):
    for name, some in (("aescot.jsonl", pictures[::2]), ("rejected.jsonl", pictures[1::2])):
        rows = [json.dumps({"dataset": one.dataset, "id": one.id}) + "\n" for one in some]
        (out / name).write_text("".join(rows))


def test_a_folder_named_by_what_could_be_read_goes_on_when_a_picture_was_mended(tmp_path):
    """As older versions named it; they had left out a picture that is whole again."""
    short = [*FOUR[:1], *FOUR[2:]]
    take(tmp_path, samples=short)
    forget_left_out(tmp_path)
    decide(tmp_path, *short)
    assert take(tmp_path, samples=FOUR, readable=FOUR) == short
    decide(tmp_path, *FOUR)  # the mended picture too: the folder keeps its name
    for readable in (FOUR, FOUR[1:], FOUR[:1]):
        assert take(tmp_path, samples=FOUR, readable=readable) == short
    with pytest.raises(InputError, match="other pictures; give the original list of pictures"):
        take(tmp_path, samples=[*FOUR, SCENE], readable=FOUR)


def test_a_folder_that_older_versions_named_is_known_again_after_a_start_that_decided_nothing(tmp_path):
    short = list(FOUR[1:])
    take(tmp_path, samples=short)
    assert take(tmp_path, samples=FOUR, readable=short) == short
    assert take(tmp_path, samples=FOUR, readable=FOUR) == short  # mended since
    assert take(tmp_path, samples=FOUR, readable=FOUR[2:]) == short  # and others that cannot be read


def test_the_way_out_of_other_pictures_fits_pictures_that_are_back_and_those_that_are_gone(tmp_path):
    take(tmp_path, samples=FOUR[1:3])
    for samples in (FOUR, FOUR[1:2]):
        with pytest.raises(InputError, match=r"original list of pictures \(an older version left out those that it"):
            take(tmp_path, samples=samples, readable=samples)


def test_another_prompt_is_refused(tmp_path, monkeypatch):
    take(tmp_path)
    monkeypatch.setattr("aes_r1.aescot.start.prompt_sha256", lambda name: "edited")
    with pytest.raises(InputError, match="other prompts"):
        take(tmp_path)


def test_a_folder_in_use_and_a_damaged_one_are_named(tmp_path):
    with ExitStack() as stack:
        recipe = Recipe(ExpertSettings(**MODEL), JudgeSettings(name="none"), 0, {}, 784)
        claim_output_folder(tmp_path, [PHOTOGRAPH], recipe, stack=stack)
        with pytest.raises(InputError, match="another distillation is writing"):
            take(tmp_path)
    (tmp_path / "distill.json").write_text("{")
    with pytest.raises(InputError, match=r"distill\.json: no JSON object .*, or give another out="):
        take(tmp_path)


def test_every_prompt_that_is_used_is_hashed():
    offline, paid = ExpertSettings(), ExpertSettings(**MODEL)
    assert set(prompts_of(offline, JudgeSettings())) == {"expert"}
    hashes = prompts_of(paid, JudgeSettings(**MODEL))
    assert set(hashes) == {"expert", "judge_align", "judge_fact"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values())
    assert hashes["expert"] != prompts_of(offline, JudgeSettings())["expert"]
    assert "max_usd" not in deciding_settings(paid)
    assert {"temperature", "min_words"} <= set(deciding_settings(paid))

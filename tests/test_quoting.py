"""What a shell cut or Hydra would read otherwise than it was typed is answered with an argument that is read right."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from aes_r1 import overrides
from aes_r1.ending import one_line
from aes_r1.settings import InputError, Settings, build_settings
from tests.recipes import composed


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        overrides.check(arguments, Settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "meant",
    [
        "data.scale=[1, 10]",
        "data.attributes={composition: comp}",
        "evaluation.also=[{name: ava}]",
        "evaluation.also=[{name: ava, root: /x}, scenes]",
        "tracker.tags=['a, [b', c]",
        "+data.scale=[1, 10]",
        "no.such.key=[1, 2]",
    ],
)
@pytest.mark.slow
def test_an_argument_that_the_shell_cut_at_its_blanks_is_put_together(meant):
    cut = meant.split(" ")
    message = refusal("seed=1", *cut, "trainer.lr=1e-6")
    assert message.startswith(f"{cut[0]}: cannot be read")
    (again,) = shlex.split(message.rpartition("put the whole argument in quotes: ")[2])
    assert again == meant
    overrides.check(["seed=1", again], Settings)
    assert message.count("data.scale=[1,") <= 2
    alone = "; close its brackets, and put the whole argument in quotes"
    assert refusal(cut[0]).endswith(alone)


@pytest.mark.parametrize(
    ("argument", "way_out"),
    [
        ("trainer.lr=1e-6,", "give trainer.lr=1e-6"),
        ("seed=1,", "give seed=1"),
        ("data.strict=true,", "give data.strict=true"),
        ("trainer.max_steps=[1", "give trainer.max_steps=NUMBER"),
        ("data.root=[a", "as text it is 'data.root=\"[a\"'"),
    ],
)
def test_a_number_is_not_proposed_as_a_text(argument, way_out):
    assert refusal(argument).endswith(f"; {way_out}")


@pytest.mark.parametrize(
    ("argument", "way_out"),
    [
        ("data.scale=(1,10)", "'data.scale=[1,10]'"),
        ("data.scale=[1;10]", "'data.scale=[1,10]'"),
        ("+data.scale=1;10", "'+data.scale=[1,10]'"),
        ("data.scale={1,10}", "'data.scale=[1,10]'"),
        ("data.scale=[1,10]#x", "data.scale=[..,..]"),
        ("trainer.betas=(0.9, 0.95)", "'trainer.betas=[0.9,0.95]'"),
        ("data.unseen=(para,ava)", "'data.unseen=[para,ava]'"),
        ("tracker.tags=[ä,b]", '\'tracker.tags=["ä","b"]\''),
    ],
)
@pytest.mark.slow
def test_a_list_is_proposed_as_a_list(argument, way_out):
    message = refusal(argument)
    assert message.endswith(f"); give {way_out}")
    if ".." not in way_out:
        overrides.check(shlex.split(way_out), Settings)


@pytest.mark.parametrize("nothing", ["None", "none"])
@pytest.mark.parametrize("key", ["data.root", "tracker.entity", "reward.judge.rubric", "+model.base"])
@pytest.mark.slow
def test_a_text_that_means_nothing_in_python_is_asked_about(key, nothing):
    as_text = f'{key}="{nothing}"'
    assert refusal(f"{key}={nothing}") == (
        f"{key}={nothing}: {nothing} would be read as a text; to leave it out give {key}=null; as text it is "
        f"{shlex.quote(as_text)}"
    )
    overrides.check([f"{key}=null", as_text], Settings)


@pytest.mark.parametrize("key", ["data.limit", "data.scale", "data.split_seed"])
def test_a_number_that_means_nothing_in_python_is_asked_about(key):
    assert refusal(f"{key}=None") == f"{key}=None: None would be read as a text; to leave it out give {key}=null"


def test_none_is_a_name_where_nothing_cannot_be_meant():
    overrides.check(["judge=none", "tracker=none", "model.quantize=none", "reward.failed_parse=none"], Settings)


@pytest.mark.parametrize(
    ("argument", "way_out"),
    [
        ("trainer[lr]=1e-6", "trainer[lr] is no key; give trainer.lr=1e-6"),
        ("trainer['lr']=1e-6", "trainer['lr'] is no key; give trainer.lr=1e-6"),
        ("trainer..lr=1e-6", "trainer..lr is no key; give trainer.lr=1e-6"),
        (".seed=1", ".seed is no key; give seed=1"),
        ("–seed=1", "–seed is no key; give seed=1"),
        ("@seed=1", "@seed is no key; give seed=1"),
        ("seed+=1", "seed+ is no key; give seed=1"),
        ("#no.such=1", "#no.such is no key; --cfg job prints all keys"),
    ],
)
def test_what_cannot_be_a_key_is_said_with_the_key_that_is_meant(argument, way_out):
    assert refusal(argument) == f"{argument}: {way_out}"


@pytest.mark.parametrize(
    "key", ["seed", "+a.b-c", "++hydra.run.x", "hydra/launcher", "data@also", "~data", "a.0", "data@:x"]
)
def test_keys_of_every_form_that_hydra_has_are_keys(key):
    assert overrides._KEY.fullmatch(key.lstrip("+~"))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("${trainer.lr}", "Recursive interpolation detected"),
        ("${eval:'1'}", "Unsupported interpolation type eval"),
        ("${oc.decode:1}", "TypeError raised while resolving interpolation"),
    ],
)
@pytest.mark.slow
def test_a_reference_that_cannot_be_resolved_has_a_way_out(value, says):
    with pytest.raises(OmegaConfBaseException) as caught:
        composed(f"trainer.lr={value}")
    expected = f"trainer.lr: {says}; give trainer.lr=VALUE, or ${{KEY}} with the name of another key"
    assert one_line(caught.value, Settings) == expected


def test_a_key_in_other_case_is_known():
    assert "; nearest: trainer.lr" in one_line(HydraException("Could not override 'TRAINER.LR'."), Settings)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("++data=folder", "++data=folder: a group is chosen without ++; give data=folder"),
        ("++experiment=rapo", "++experiment=rapo: a group is chosen without ++; give +experiment=rapo"),
        (
            "~data=ava",
            "~data: it is not chosen that way, so nothing can be taken out; leave the argument out; ~data takes",
        ),
        (
            "~experiment=rapo",
            "~experiment: it is not chosen that way, so nothing can be taken out; leave the argument out",
        ),
        ("data=FOLDER", "data=FOLDER: no such option; nearest: folder; there are "),
    ],
)
@pytest.mark.slow
def test_a_group_that_hydra_cannot_choose_or_take_out_is_said_with_the_way_out(argument, says):
    with pytest.raises(HydraException) as caught:
        composed(argument)
    assert one_line(caught.value, Settings).startswith(says)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("[1e3]", ["1e3"]),
        ("[a,007, 'b, c',true]", ["a", "007", "b, c", "true"]),
        ("[1_0,1_0]", ["1_0", "1_0"]),
    ],
)
@pytest.mark.parametrize("key", ["tracker.tags", "+tracker.tags"])
@pytest.mark.slow
def test_a_text_in_a_list_that_hydra_reads_as_a_number_comes_back_quoted(key, typed, read):
    message = refusal(f"{key}={typed}")
    (argument,) = shlex.split(message.rpartition("as text it is ")[2])
    overrides.check([argument], Settings)
    assert composed(argument).tracker.tags == read


@pytest.mark.slow
def test_lists_that_are_read_as_typed_pass():
    overrides.check(["tracker.tags=[a,7,'1e3']", "data.scale=[1e0,10]", "trainer.betas=[.9,.95]", "tracker.tags=[]"])
    overrides.check(["--multirun", "tracker.tags=[a],[b]"])


@pytest.mark.parametrize("key", ["out", "store", "seed", "data.scale", "+data.root"])
def test_three_question_marks_stand_for_a_missing_value(key):
    plain = key.lstrip("+")
    assert refusal(f"{key}=???") == f"{key}=???: ??? stands for a value that is missing; give {plain}=VALUE"
    assert "tracker.tags=VALUE" in refusal("tracker.tags=[???]")


@pytest.mark.parametrize("name", ["nan", "inf"])
@pytest.mark.slow
def test_a_name_may_be_spelled_as_a_number_that_is_not_finite(name):
    """Hydra reads a number, which is the text again where the key holds a text."""
    overrides.check([f"out={name}"])
    settings = composed(f"out={name}", f"run_name={name}", f"tracker.tags=[{name}]")
    assert (settings.out, settings.run_name, settings.tracker.tags) == (name, name, [name])
    with pytest.raises(InputError, match=rf"^trainer\.lr={name}: must be a finite number$"):
        build_settings(Settings, {"trainer": {"lr": float(name)}})
    with pytest.raises(InputError, match=rf"^data\.scale={name}: must be a finite number$"):
        build_settings(Settings, {"data": {"scale": [0.0, float(name)]}})


@pytest.mark.parametrize(("key", "near"), [("data.scale", ""), ("data.scle", "; nearest: data.scale")])
@pytest.mark.slow
def test_a_key_that_the_recipe_lacks_cannot_be_taken_out(key, near):
    with pytest.raises(Exception, match="Could not delete") as caught:
        composed(f"~{key}")
    says = f"~{key}: the recipe has no {key}, so nothing can be taken out; leave the argument out{near}"
    assert re.fullmatch(re.escape(says), one_line(caught.value, Settings))


def read(cure: str) -> object:
    """What Hydra reads in the argument that a shell makes of a cure, which is accepted."""
    (argument,) = shlex.split(cure)
    overrides.check([argument], Settings)
    return OverridesParser.create().parse_override(argument).value()


ESCAPED = {
    "/x/\\,a": "/x/,a",
    "a\\ b": "a b",
    "a\\(b\\)": "a(b)",
    "a\\[b\\]": "a[b]",
    "a\\:b": "a:b",
    "a\\=b": "a=b",
    "\\\\server\\share": "\\server\\share",
    "a\\\\": "a\\",
    "a\\ ": "a ",
    "1\\,000": "1,000",
    "${out}/x\\,a": "${out}/x,a",
}


@pytest.mark.parametrize("key", ["data.root", "out", "+model.path", "run_name", "data.roots.ava"])
@pytest.mark.parametrize("value", ESCAPED)
def test_a_backslash_that_hydra_would_take_out_is_asked_about(key, value):
    said = refusal(f"{key}={value}")
    assert said.startswith(f"{key}={value}: {value} would be read as {ESCAPED[value]}; without the backslash it is ")
    without, _, as_text_it_is = said.partition("without the backslash it is ")[2].partition("; as text it is ")
    for cure, meant in ((without, ESCAPED[value]), (as_text_it_is, value)):
        assert read(cure) == meant
    overrides.check([f"{key}={value}"], Settings, is_typed=False)  # by Hydra, for a point of a multirun


@pytest.mark.parametrize("value", ["a ", " a", "/x/a b  "])
def test_blanks_around_a_name_that_hydra_would_leave_out_are_asked_about(value):
    said = refusal(f"data.root={value}")
    without, _, as_text_it_is = said.partition("without them it is ")[2].partition("; as text it is ")
    for cure, meant in ((without, value.strip()), (as_text_it_is, value)):
        assert read(cure) == meant
    assert refusal("data.root=a\t").endswith("without them it is data.root=a; rename what it names")


@pytest.mark.parametrize("value", ["/x/\\,a,/y", "choice(/x/\\,a,/y)", "/y,1e3"])
def test_a_text_of_a_sweep_that_hydra_would_change_is_asked_about(value):
    assert re.search(r"would be read as (/x/,a|1000.0);", refusal(f"run_name={value}"))


def test_a_text_of_a_list_with_a_backslash_comes_back_quoted():
    assert read(refusal("tracker.tags=[b,a\\,c]").rpartition("as text it is ")[2]) == ["b", "a\\,c"]


@pytest.mark.parametrize("value", ["1e3", "1_0", "1.50", "str(3)"])
def test_a_name_of_a_place_by_set_that_hydra_reads_otherwise_comes_back_quoted(value):
    assert read(refusal(f"data.roots.ava={value}").rpartition("as text it is ")[2]) == value


@pytest.mark.parametrize("value", ["'/x/\\,a'", '"a\\b"', "a\\b", "C:\\x", "null", "'007'"])
def test_quoted_texts_and_backslashes_that_hydra_keeps_pass(value):
    overrides.check([f"data.root={value}"], Settings)


def test_a_name_that_no_message_can_show_is_to_be_changed():
    for value in ("a\nb", "x\u200b", "a\\\tb"):
        assert refusal(f"data.root={value}").endswith("rename what it names")

"""A file of conf/ that cannot be read, or extends what is not there, is named in one line with the way out."""

from __future__ import annotations

import pytest

from aes_r1.settings import CONF, InputError, values_of

FAULTY = {
    "half an interpolation": ("a: ${\n", "no viable alternative at input '${'"),
    "a name without its end": ("a: ${b\n", "no viable alternative at input '${b'"),
    "a set": ("a: !!set {x}\n", "Value 'set' is not a supported primitive type"),
    "a key of no kind": ("null: 3\n", "Incompatible key type 'NoneType'"),
    "a number of defaults": ("defaults: 3\n", "defaults: must be a list, as [base, _self_]"),
    "no defaults": ("defaults: null\n", "defaults: must be a list, as [base, _self_]"),
    "a mapping of defaults": ("defaults: {a: b}\n", "defaults: must be a list, as [base, _self_]"),
    "a number in defaults": ("defaults: [1]\n", "defaults: 1 is neither the name of a file nor GROUP: NAME"),
    "a list in defaults": ("defaults: [[a]]\n", "defaults: ['a'] is neither the name of a file nor GROUP: NAME"),
    "an unknown group": ("defaults: [{a: b}]\n", "defaults: {'a': 'b'} is neither the name of a file nor GROUP: NAME"),
    "two groups in one": ("defaults: [{a: b, c: d}]\n", "is neither the name of a file nor GROUP: NAME"),
    "itself": ("defaults: [mine]\n", "its defaults lead back to"),
    "a list that holds itself": ("a: &x [*x]\n", "nested too deeply"),
    "three thousand lists": ("[" * 3000, "nested too deeply"),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.slow
def test_a_faulty_file_is_named_in_one_line(name, tmp_path):
    content, said = FAULTY[name]
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as raised:
        values_of(file)
    line = str(raised.value)
    assert line.startswith(f"{file}: ")
    assert said in line
    assert line.endswith("; mend it, or put the file of this version back")
    assert "\n" not in line
    assert "\\n" not in line


def test_a_file_that_is_asked_for_and_missing_is_named_with_the_one_that_asks(tmp_path):
    for name, parent in {"mine": "yours", "yours": "ours"}.items():
        (tmp_path / f"{name}.yaml").write_text(f"defaults: [{parent}]\n")
    asks = (
        f"{tmp_path / 'ours.yaml'}: No such file or directory, for which {tmp_path / 'yours.yaml'} asks in its defaults"
    )
    with pytest.raises(InputError) as raised:
        values_of(tmp_path / "mine.yaml")
    assert str(raised.value).startswith(asks)
    (tmp_path / "theirs.yaml").write_text("defaults: [{/chat@_here_: nowhere}]\n")
    with pytest.raises(InputError, match=f"^{CONF / 'chat' / 'nowhere.yaml'}: No such file or directory, for which"):
        values_of(tmp_path / "theirs.yaml")


def test_two_files_that_extend_each_other_are_named(tmp_path):
    for name, parent in {"one": "other", "other": "one"}.items():
        (tmp_path / f"{name}.yaml").write_text(f"defaults: [{parent}]\n")
    with pytest.raises(InputError, match=r"other\.yaml: its defaults lead back to .*one\.yaml; mend it"):
        values_of(tmp_path / "one.yaml")


@pytest.mark.slow
def test_every_file_of_conf_is_read():
    for file in CONF.rglob("*.yaml"):
        if "hydra" not in file.parts:
            assert isinstance(values_of(file), dict)

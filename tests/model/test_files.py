"""Incomplete models are refused in one line; complete ones are loaded in every layout of the hub."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import files, tower
from aes_r1.prompts import RATING_PROMPT
from aes_r1.settings import InputError
from tests.conftest import picture
from tests.full_disk import files_of_at_most
from tests.model.folders import BROKEN, BROKEN_NUMBERS, old_layout
from tests.model.siblings import save_sibling


@pytest.fixture
def plain(backbone, tmp_path) -> Path:
    """The random tiny model, saved."""
    backbone.save(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.slow
def test_a_broken_folder_is_one_line_before_and_at_loading(fault, plain, capfd):
    spoil, says = BROKEN[fault]
    spoil(plain)
    with pytest.raises(InputError, match=f"^trainer.init_from={plain}: .*{says}") as found:
        backbones.check_model(plain, question=RATING_PROMPT, max_pixels=9216, key="trainer.init_from")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match=f"^model.path={plain}: .*{says}"):
        backbones.load(plain, dtype="float32", max_pixels=9216)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("fault", BROKEN_NUMBERS)
def test_numbers_that_are_none_are_refused(fault, plain):
    spoil, says = BROKEN_NUMBERS[fault]
    spoil(plain)
    with pytest.raises(InputError, match=f"^model.path={plain}: .*{says}"):
        backbones.load(plain, dtype="float32", max_pixels=9216)


@pytest.mark.parametrize("path", ["/nonexistent", "nope/x/y", "./nope", "nope/"])
def test_what_can_be_no_hub_name_is_a_folder_that_is_not_there(path):
    with pytest.raises(InputError, match=f"^model.path={path}: no such folder; give"):
        backbones.load(path, dtype="float32", max_pixels=9216)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is a file"):
        backbones.load(tmp_path / "model.safetensors", dtype="float32", max_pixels=9216)


def test_a_hub_name_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"^model.path=nobody/nothing: no such folder, and the hub could not") as found:
        backbones.load("nobody/nothing", dtype="float32", max_pixels=9216)
    assert "\n" not in str(found.value)


def test_a_name_without_an_owner_is_a_missing_folder_at_once(monkeypatch):
    """The hub is not asked, which would take seconds without a connection."""
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=r"^--model=nothere: no such folder; give a model folder or hub name"):
        backbones.load("nothere", dtype="float32", max_pixels=9216, key="--model")


def test_a_name_inside_a_folder_that_is_here_is_no_hub_name(tmp_path, monkeypatch):
    """runs/nothing has the form of a hub name; with runs/ here it is a mistyped run, and the hub is not asked."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(
        InputError, match=r"^--model=runs/nothing: no such folder in runs/, which is here; give a model"
    ):
        backbones.load("runs/nothing", dtype="float32", max_pixels=9216, key="--model")


def test_a_model_that_was_downloaded_is_found_beside_a_folder_of_its_owner(tmp_path, monkeypatch):
    snapshot = tmp_path / "cache" / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert files._is_downloaded("owner/name")
    assert not files._is_downloaded("owner/another")


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_whole_models_of_every_family_pass(family, tmp_path):
    backbones.check_model(save_sibling(family, tmp_path), question=RATING_PROMPT, max_pixels=9216)


@pytest.mark.slow
def test_the_older_layout_of_the_hub_is_the_same_model(plain, tmp_path):
    old = old_layout(plain, tmp_path / "old")
    backbones.check_model(old, question=RATING_PROMPT, max_pixels=9216)
    found, wanted = (backbones.load(folder, dtype="float32", max_pixels=9216) for folder in (old, plain))
    theirs, ours = (dict(one.model.named_parameters()) for one in (found, wanted))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    shown = picture(100, 60)
    asked, like = (one.encode(shown, RATING_PROMPT) for one in (found, wanted))
    assert found.tokenizer.decode(asked.input_ids) == wanted.tokenizer.decode(like.input_ids)
    assert (asked.input_ids == found.image_token).sum() == asked.image_grid_thw.prod() // 4
    assert (found.end_token, found.pad_token) == (wanted.end_token, wanted.pad_token)
    assert torch.equal(found.banned, wanted.banned)
    found.save(tmp_path / "again")  # and what is saved of it is loaded like any other
    backbones.check_model(tmp_path / "again", question=RATING_PROMPT, max_pixels=9216)


@pytest.mark.slow
def test_a_model_of_any_size_is_looked_through_in_seconds(plain):
    """A model folder of seven billion parameters in sparse files, which take no room on the disk."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = json.loads((plain / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "layer_types": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    config["vision_config"]["out_hidden_size"] = 3584
    (plain / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(plain))
    assert sum(one.numel() for one in model.parameters()) > 7e9
    head, end = {}, 0
    for name, one in model.named_parameters():
        head[name] = {"dtype": "BF16", "shape": list(one.shape), "data_offsets": [end, end + 2 * one.numel()]}
        end += 2 * one.numel()
    said = json.dumps(head).encode()
    with (plain / "model.safetensors").open("wb") as file:
        file.write(len(said).to_bytes(8, "little") + said)
        file.truncate(8 + len(said) + end)  # a sparse file
    backbones.check_model(plain, question=RATING_PROMPT, max_pixels=9216)
    with (plain / "model.safetensors").open("r+b") as file:
        file.truncate(8 + len(said) + end - 1)
    with pytest.raises(InputError, match="is cut"):
        backbones.check_model(plain, question=RATING_PROMPT, max_pixels=9216)


def test_another_models_tokenizer_is_refused(plain, tmp_path):
    """A tokenizer with more tokens than the model has rows is refused: the tokens beyond have no embedding."""
    config = json.loads((plain / "config.json").read_text())
    shutil.copytree(plain, tmp_path / "small")
    config["text_config"]["vocab_size"] = 40
    (tmp_path / "small" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"its tokenizer has .* tokens, the model 40"):
        backbones.check_model(tmp_path / "small", question=RATING_PROMPT, max_pixels=9216)


def test_what_cannot_be_written_is_an_error_of_the_disk(backbone, tmp_path):
    """Each of these libraries has a class of its own for it, which a command would end with in a traceback."""
    saves = {
        "whole": backbone.save,
        "half": backbone.save_half,
        "tokenizer": lambda folder: saved_alone(backbone.tokenizer, folder),
        "tower": lambda folder: tower.save_tower(backbone, folder),
    }
    for name, save in saves.items():
        with files_of_at_most(5000), pytest.raises(OSError, match="File too large") as raised:
            save(tmp_path / name)
        assert raised.value.errno == errno.EFBIG
        assert raised.value.filename == str(tmp_path / name)


def saved_alone(tokenizer, folder: Path) -> None:
    folder.mkdir()
    with files.written_to(folder):
        tokenizer.save_pretrained(folder)


def test_another_error_of_such_a_library_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="no disk is to blame"), files.written_to(tmp_path):
        raise RuntimeError("no disk is to blame")

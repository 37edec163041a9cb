"""Model folders in the hub's older layout, and model folders that were damaged on the way to a disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from aes_r1.model import tiny

ASSISTANT = "<|im_start|>assistant\n"


def old_layout(source: Path, folder: Path) -> Path:
    """The model of `source` as Qwen2.5-VL's repositories were first published.

    A flat config.json (rope_scaling of type mrope), keys `visual.*` and `model.layers.*`, two shards with an index,
    vocab.json with merges.txt, and the template in chat_template.json alone.
    """
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    rope = text.pop("rope_parameters")
    flat = {
        **{key: value for key, value in text.items() if key not in ("model_type", "layer_types", "dtype")},
        **{key: value for key, value in config.items() if key not in ("text_config", "dtype", "transformers_version")},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "torch_dtype": "float32",
        "transformers_version": "4.41.2",
        "vision_config": {key: value for key, value in vision.items() if key not in ("model_type", "dtype")},
    }
    (folder / "config.json").write_text(json.dumps(flat))

    weights = {_old_name(name): value for name, value in load_file(source / "model.safetensors").items()}
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_file({name: weights[name] for name in inside}, folder / shard, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": 0},
        "weight_map": {name: shard for shard, inside in shards.items() for name in inside},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    tokenizer = json.loads((source / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"], ensure_ascii=False))
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"])
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {
        str(row["id"]): {
            key: row[key] for key in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        }
        for row in tokenizer["added_tokens"]
    }
    special = [row["content"] for row in tokenizer["added_tokens"] if row["special"]]
    said = {
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in special if token not in ("<|endoftext|>", "<|im_end|>")],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": tiny.CHAT_TEMPLATE}))
    processor = json.loads((source / "preprocessor_config.json").read_text())
    size = processor.pop("size")
    processor |= {
        "min_pixels": size["shortest_edge"],
        "max_pixels": size["longest_edge"],
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _old_name(name: str) -> str:
    for new, old in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


# -- templates ---------------------------------------------------------------------------------------------------------
def generation_prompt(ending: str) -> str:
    """The tiny template whose prompts end with `ending` after the assistant's header."""
    return tiny.CHAT_TEMPLATE.replace(ASSISTANT, ASSISTANT + ending)


def _template(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return write


# -- broken folders ----------------------------------------------------------------------------------------------------
def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def _remove(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def _cut(name: str, size: int | None) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return cut


def _config(**changes: object) -> Callable[[Path], None]:
    """Keys of config.json changed, or taken out by None."""

    def change(folder: Path) -> None:
        values = {**json.loads((folder / "config.json").read_text()), **changes}
        left = {key: value for key, value in values.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(left))

    return change


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        values = load_file(folder / "model.safetensors")
        change(values)
        save_file(values, folder / "model.safetensors", metadata={"format": "pt"})

    return write


def _run_folder(folder: Path) -> None:
    (folder / "model").mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        shutil.move(str(file), folder / "model" / file.name)


def _lost_shard(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model.safetensors") | {"x": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _torch_files_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../other/pytorch_model.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _pickled(size: int | None) -> Callable[[Path], None]:
    """The weights as torch.save writes them, cut to `size` bytes."""

    def write(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        _cut("pytorch_model.bin", size)(folder)

    return write


def _nan(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan


def _other_name(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.0.mlp.upper.weight"] = weights.pop("model.layers.0.mlp.up_proj.weight")


def _other_shape(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(7, 128)


def _as_special(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    row = tokenizer["added_tokens"][0]
    tokenizer["model"]["vocab"] |= {"<think>": 700}
    tokenizer["added_tokens"].append({**row, "id": 700, "content": "<think>"})
    path.write_text(json.dumps(tokenizer))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4934312\n"
PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"
NESTED = (200_000).to_bytes(8, "little") + b"[" * 200_000
TWICE = tiny.CHAT_TEMPLATE.replace("<|image_pad|>", "<|image_pad|><|image_pad|>")
TEXT_ONLY = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# (the fault, how it is made, what the one-line error must say)
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut": (_cut("model.safetensors", 200_000), r"model\.safetensors is cut: 200,000 of 4,\d+,\d+ bytes"),
    "weights cut in the head": (_cut("model.safetensors", 100), r"model\.safetensors is cut or damaged \(100 bytes\)"),
    "weights empty": (_cut("model.safetensors", 0), r"model\.safetensors is empty"),
    "weights an LFS pointer": (_write("model.safetensors", LFS), r"model\.safetensors is a pointer of Git LFS"),
    "weights a web page": (_write("model.safetensors", PAGE), r"model\.safetensors is a web page"),
    "weights no safetensors": (_write("model.safetensors", b"\4\0\0\0\0\0\0\0nope"), r"is not a safetensors file"),
    "no weights": (_remove("model.safetensors"), "holds no weights"),
    "weights of torch cut": (_pickled(3_000_000), r"pytorch_model\.bin is cut or damaged"),
    "weights of torch empty": (_pickled(0), r"pytorch_model\.bin is empty"),
    "a shard lost": (_lost_shard, r"1 of 2 weight files are missing \(model-00002-of-00002\.safetensors"),
    "a key of another name": (
        _weights(_other_name),
        r"1 are missing \(model\.language_model\.layers\.0\.mlp\.up_proj\.weight\); "
        r"1 are not of this architecture \(.*upper\.weight\)",
    ),
    "another shape": (_weights(_other_shape), r"1 have another shape \(.*up_proj\.weight \(7, 128\), not \(320, 128\)"),
    "no config": (_remove("config.json"), "holds no config.json; give a model folder or hub name"),
    "a run's folder": (_run_folder, "holds no config.json; give .*/model"),
    "config an LFS pointer": (_write("config.json", LFS), r"config\.json is a pointer of Git LFS"),
    "config cut": (_cut("config.json", 100), r"config\.json is not whole JSON"),
    "config nested too deeply": (_write("config.json", b"[" * 200_000), r"config\.json is not whole JSON"),
    "another file nested too deeply": (_write("notes.json", b"[" * 200_000), r"notes\.json is not whole JSON"),
    "head nested too deeply": (_write("model.safetensors", NESTED), r"model\.safetensors is not a safetensors file"),
    "an index without names": (_write("model.safetensors.index.json", b'{"weight_map": []}'), "names no weight files"),
    "an index of no names": (
        _write("model.safetensors.index.json", b'{"weight_map": {"a": {}}}'), "names no weight files"
    ),
    **{
        f"an index of {name}": (
            _write("model.safetensors.index.json", json.dumps({"weight_map": {"a": name}}).encode()),
            r"index\.json names a weight file outside of the folder \(.*\); get the model from its own repository",
        )
        for name in ("../b/model.safetensors", "/etc/model.safetensors", "a/../../b.safetensors", "..\\b.safetensors")
    },
    "an index of torch files outside": (
        _torch_files_outside, r"pytorch_model\.bin\.index\.json names a weight file outside"
    ),
    "config a list": (_write("config.json", b"[]"), r"config\.json is not a JSON object"),
    "no model_type": (_config(model_type=None), "config.json names no model_type; give one of qwen2_5_vl, "),
    "unknown model_type": (_config(model_type="llava"), "a llava model; give one of qwen2_5_vl, "),
    "remote code": (
        _config(model_type="internvl_chat", auto_map={"AutoConfig": "configuration_internvl_chat.Config"}),
        "internvl_chat model that brings its own code, which is never run; .* -hf",
    ),
    "awq": (_config(quantization_config={"quant_method": "awq", "bits": 4}), r"quantised \(awq\)"),
    "bitsandbytes": (_config(quantization_config={"quant_method": "bitsandbytes"}), r"quantised \(bitsandbytes\)"),
    "config of wrong types": (_config(text_config={"hidden_size": "wide"}), "hidden_size"),
    "no tokenizer": (_remove("tokenizer.json"), "holds no tokenizer"),
    "tokenizer cut": (_cut("tokenizer.json", 3000), r"tokenizer\.json is not whole JSON"),
    "no preprocessor": (_remove("preprocessor_config.json"), "holds no preprocessor_config.json"),
    "no picture token": (_config(image_token_id=900), "its tokenizer lacks token 900"),
    "tags are special": (_as_special, "the tags are special tokens"),
    "no template": (_remove("chat_template.jinja"), "has no chat template"),
    "template with an error": (_template("{% for m in messages %}{{ m.role }}"), "the chat template cannot put"),
    "template that refuses": (_template("{{ raise_exception('text alone') }}"), r"cannot put .*\(text alone\)"),
    "template that adds": (_template("{{ messages[0].content + 'x' }}"), "the chat template cannot put"),
    "template for text": (_template(TEXT_ONLY), r"puts 0 placeholders <\|image_pad\|> for one picture"),
    "template that shows twice": (_template(TWICE), r"puts 2 placeholders <\|image_pad\|> for one picture"),
}  # fmt: skip
# Faults that show only in the weights' values.
BROKEN_NUMBERS = {"a NaN": (_weights(_nan), r"1 hold NaN or infinity \(model\.language_model\.layers\.1\.mlp\.up_proj")}

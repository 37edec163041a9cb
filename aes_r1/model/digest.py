"""Hash what a model computes with, so that two folders of the same model have the same name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from aes_r1.runs.files import sha256_of

# generation_config.json is left out, because the settings of a run decide how answers are sampled.
_CONTENT = (
    *("*.safetensors", "*.bin", "config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template*", "preprocessor_config.json", "processor_config.json"),
)


def content_of(model: str) -> list[Path]:
    """List a model's weights, configuration, tokenizer, template and processor files.

    For a hub name they are those of its copy in the cache; without one the list is empty.
    """
    folder = Path(model)
    if not folder.is_dir():
        cached = try_to_load_from_cache(model, "config.json")
        if not isinstance(cached, str):
            return []
        folder = Path(cached).parent
    return sorted({path for kind in _CONTENT for path in folder.glob(kind)})


def digest_of(files: Iterable[Path]) -> str:
    """Hash (SHA-256) names and bytes of `files`; the folder that they lie in does not count."""
    lines = [f"{path.name} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

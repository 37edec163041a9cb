"""Name the content of a model: a folder by a hash of its files, a hub name by its commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from aes_r1.runs.files import sha256_of

# generation_config.json is left out, because the settings of a run decide how answers are sampled.
_CONTENT = (
    *("*.safetensors", "*.bin", "config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template*", "preprocessor_config.json", "processor_config.json"),
)


def content_of(folder: Path) -> list[Path]:
    """List the weights, configuration, tokenizer, template and processor files of the model in `folder`."""
    return sorted({path for kind in _CONTENT for path in folder.glob(kind)})


def revision_of(name: str) -> str | None:
    """Return the commit of the hub model `name` whose files lie in the cache; None where none of them does.

    A commit identifies every file of a model, including files that programs will add to the cache later.
    """
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # the path of a folder that was moved away
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None


def digest_of(files: Iterable[Path]) -> str:
    """Hash (SHA-256) names and bytes of `files`, independently of the folder that they are in."""
    lines = [f"{path.name} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

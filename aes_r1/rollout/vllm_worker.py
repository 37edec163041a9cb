"""What vLLM's own processes import: how the weights of a training run, written to a folder, get into the served model.

Nothing else imports vLLM. `aes_r1.serve` names `Worker` to it (--worker-extension-cls), which makes each worker import
this module before it builds its weight transfer engine, called "folder".
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

SAID_S = 3.0  # in which the reason of a failed update reaches the trainer


@dataclass
class NothingToConnect(WeightTransferInitInfo):
    """A folder needs no connection."""


@dataclass
class Folder(WeightTransferUpdateInfo):
    """A folder with *.safetensors, their weights named as transformers names them."""

    path: str


class FolderEngine(WeightTransferEngine[NothingToConnect, Folder]):
    """Loads every weight from a folder; an update that leaves one weight old, or brings an unknown one, fails."""

    init_info_cls, update_info_cls = NothingToConnect, Folder

    def init_transfer_engine(self, init_info: NothingToConnect) -> None:  # noqa: ARG002
        """Nothing has to be connected. What the model consists of is read while no update has touched it."""
        if not hasattr(self, "_wanted"):
            # Of what is tied, the first name. Under an adapter a layer lies one name deeper than it is loaded.
            self._wanted = {name.replace(".base_layer.", ".") for name, _ in self.model.named_parameters()}

    def start_weight_update(self) -> None:
        """Give every layer its unprocessed parameters back, which loading fills."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load the folder; unlike the base class, without asking an accelerator to wait, which a CPU has not.

        Where it fails, this process ends once the reason has been sent: some weights are new then, some old and some on
        no device, and nothing may be drawn with them. aes_r1.serve starts vLLM again.
        """
        with contextlib.ExitStack() as failed:
            failed.callback(threading.Timer(SAID_S, os._exit, (1,)).start)
            self.receive_weights(self.parse_update_info(update_info))
            failed.pop_all()

    def receive_weights(self, update_info: Folder) -> None:
        """Load every weight in the folder; ValueError where one of the model's is not among them."""
        loaded = self.model.load_weights(_weights_in(Path(update_info.path)))
        missing = sorted((self._wanted - set(loaded)) | _loaded_in_part(self.model))
        if missing:
            raise ValueError(
                f"{update_info.path} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])})"
            )

    def finish_weight_update(self) -> None:
        """Process what was loaded, as after the model's first loading."""
        finalize_layerwise_reload(self.model, self.model_config)
        _repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Nothing was connected."""


def _weights_in(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no mapping
                yield name, opened.get_tensor(name)


def _loaded_in_part(model: Any) -> set[str]:
    """Linear layers that several of a folder's weights make up (q, k and v, say), of which some have not come."""
    found = set()
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if isinstance(layer, LinearBase) and info.can_load() and info.load_numel < info.load_numel_total:
            found.add(name)
    return found


def _repack_tied_head(model: Any) -> None:
    """Pack the embedding for the head again: on a CPU a tied head multiplies by a packed copy, which a reload keeps."""
    if next(model.parameters()).device.type != "cpu":
        return
    head = getattr(model.get_language_model(), "lm_head", None)
    if head is not None:
        head.quant_method.process_weights_after_loading(head)


WeightTransferEngineFactory.register_engine("folder", FolderEngine)


class Worker:
    """Adds nothing to a worker: it is named so that this module is imported."""

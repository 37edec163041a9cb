"""Load the weights of a training run from a folder into the served model; vLLM's own processes import this module.

Nothing else imports vLLM. `aes_r1.serve` passes `Worker` to it (--worker-extension-cls), so each worker imports this
module before it builds its weight transfer engine, which is called "folder".
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
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info

REASON_SENT_S = 3.0  # time for the reason of a failed update to reach the trainer


@dataclass
class NothingToConnect(WeightTransferInitInfo):
    """Hold no data: a folder needs no connection."""


@dataclass
class Folder(WeightTransferUpdateInfo):
    """Name a folder with *.safetensors, whose weights have the names that transformers gives them."""

    path: str


class FolderEngine(WeightTransferEngine[NothingToConnect, Folder]):
    """Load every weight from a folder; an update that misses a weight, or contains an unknown one, fails."""

    init_info_cls, update_info_cls = NothingToConnect, Folder

    def init_transfer_engine(self, init_info: NothingToConnect) -> None:  # noqa: ARG002, the signature of vLLM
        """Record the names of the model's weights before the first update; there is nothing to connect."""
        if not hasattr(self, "_weight_names"):
            # Tied weights have only their first name here. An adapter adds ".base_layer" to a name.
            self._weight_names = {name.replace(".base_layer.", ".") for name, _ in self.model.named_parameters()}

    def start_weight_update(self) -> None:
        """Give every layer back its unprocessed parameters, into which the weights are loaded."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Load the folder; unlike the base class, do not synchronise an accelerator, because a CPU has none.

        If it fails, this process exits once the reason has been sent: some weights are then new, some old and some on
        no device, so nothing must be drawn with them. aes_r1.serve starts vLLM again.
        """
        with contextlib.ExitStack() as failed:
            failed.callback(threading.Timer(REASON_SENT_S, os._exit, (1,)).start)
            self.receive_weights(self.parse_update_info(update_info))
            failed.pop_all()

    def receive_weights(self, update_info: Folder) -> None:
        """Load every weight in the folder; ValueError if one of the model's weights is missing."""
        loaded = self.model.load_weights(_weights_in(Path(update_info.path)))
        missing = sorted((self._weight_names - set(loaded)) | _loaded_in_part(self.model))
        if missing:
            raise ValueError(
                f"{update_info.path} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])})"
            )

    def finish_weight_update(self) -> None:
        """Process the loaded weights, as after the model's first loading."""
        finalize_layerwise_reload(self.model, self.model_config)
        _repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Do nothing: nothing was connected."""


def _weights_in(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, a safe_open file cannot be iterated
                yield name, opened.get_tensor(name)


def _loaded_in_part(model: Any) -> set[str]:
    """Return the linear layers that consist of several weights (such as q, k and v), some of which are missing."""
    names = set()
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        if isinstance(layer, LinearBase) and info.can_load() and info.load_numel < info.load_numel_total:
            names.add(name)
    return names


def _repack_tied_head(model: Any) -> None:
    """Pack the embedding for the head again: on a CPU a tied head uses a packed copy, which no reload changes."""
    if next(model.parameters()).device.type != "cpu":
        return
    head = getattr(model.get_language_model(), "lm_head", None)
    if head is not None:
        head.quant_method.process_weights_after_loading(head)


WeightTransferEngineFactory.register_engine("folder", FolderEngine)


class Worker:
    """Add nothing to a worker: vLLM imports this module because it is given this name."""

"""Send requests to vLLM servers over HTTP: any healthy server may answer, with the requested weights."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout

from aes_r1.rollout.failures import CutOff, RequestRejected, ServersGone, Unusable
from aes_r1.settings import InputError

SERVED = "policy"  # the name under which aes_r1.serve serves the model
STARTED_WITH = "default"  # vLLM's version name for weights that were never replaced
LONGEST_PAUSE_S = 5.0  # longest time for which a failed server gets no requests
HEALTH_S = 10.0
_REPEATABLE = (408, 409, 425, 429)  # the 4xx codes after which the same request may be repeated


@dataclass(frozen=True)
class Weights:
    """Name the weights that a server must hold.

    version: that of the model's own weights, which are in `folder` (None: the weights with which the server was
    started). adapter: name of the adapter in adapter_folder, or None if there is none; each version of an adapter has
    its own name.
    """

    version: str = STARTED_WITH
    folder: Path | None = None
    adapter: str | None = None
    adapter_folder: Path | None = None


class Server:
    """Call one server, and keep it out of use for a while after a failure."""

    def __init__(self, url: str, http: httpx.Client, connections: Connections | None = None) -> None:
        self.url, self._http = url.rstrip("/"), http
        self._extensions = {} if connections is None else {"trace": connections.trace}
        self.rests_until, self._failures = 0.0, 0
        self._refusals = 0  # failed attempts to give it weights

    def call(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float) -> Any:
        """POST `body`, or GET if it is None; return the JSON of the answer, or None for a path whose answer has none.

        Unusable if there is no answer or the server reports a failure of its own; RequestRejected if it rejects the
        request.
        """
        try:
            if body is None:
                answer = self._http.get(self.url + path, timeout=timeout, extensions=self._extensions)
            else:
                answer = self._http.post(self.url + path, json=body, timeout=timeout, extensions=self._extensions)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: the client was closed during the call
            raise CutOff(f"{self.url}: {error or type(error).__name__}") from error
        message = " ".join(answer.text.split())[:500]
        if answer.status_code >= 500 or answer.status_code in _REPEATABLE:
            raise Unusable(f"{self.url}{path}: {answer.status_code} {message}")
        if answer.status_code != 200:
            raise RequestRejected(answer.status_code, f"{self.url}{path}: {answer.status_code} {message}")
        try:
            return answer.json() if path.startswith(("/inference", "/weight_info", "/v1/models")) else None
        except ValueError as error:  # no JSON, or no UTF-8
            raise Unusable(f"{self.url}{path}: its answer is no whole JSON") from error

    def worked(self) -> None:
        """Record that the server has answered."""
        self.rests_until, self._failures = 0.0, 0

    def failed(self) -> None:
        """Keep the server out of use for a while, longer after each failure.

        Further failures in that time do not count.
        """
        if time.monotonic() < self.rests_until:
            return
        self._failures += 1
        self.rests_until = time.monotonic() + min(LONGEST_PAUSE_S, 0.1 * 2**self._failures)

    def started_with(self, *, patience: float) -> str:
        """Return folder or name of the model with which the server was started; InputError if it does not tell."""
        try:
            models = self.call("/v1/models", timeout=patience)["data"]
            return str(next(model["root"] for model in models if model["id"] == SERVED))
        except (Unusable, RequestRejected, StopIteration, KeyError) as error:
            raise InputError(
                f"--url={self.url}: no server of ours answers ({error}); python -m aes_r1.serve"
            ) from error

    # -- weights -------------------------------------------------------------------------------------------------------
    def hold(self, weights: Weights, *, timeout: float) -> None:
        """Make sure that the server holds `weights`, even if other processes and threads try the same at once.

        One caller at a time sends weights to a server. InputError if the server rejects them. A caller that waits for
        another one's attempt raises Unusable after `timeout` seconds, or if that attempt fails, and does not repeat it.
        """
        if weights.folder is None:
            return
        lock = weights.folder.parent / f"{httpx.URL(self.url).host}_{httpx.URL(self.url).port}.lock"
        refusals = self._refusals
        try:
            with FileLock(lock, timeout=timeout):
                if self._refusals != refusals:
                    raise Unusable(f"{self.url}: did not take the weights from another request")
                self._hold(weights, weights.folder, timeout)
        except Timeout as error:
            raise Unusable(f"{self.url}: is given weights for longer than {timeout:g} seconds") from error

    def _hold(self, weights: Weights, folder: Path, timeout: float) -> None:
        """Give `weights` to the server unless it has them; the caller holds the lock."""
        info = self.call("/weight_info", timeout=HEALTH_S)
        if not isinstance(info, dict) or "weight_version" not in info:
            raise Unusable(f"{self.url}/weight_info: names no version of its weights")
        try:
            if info["weight_version"] != weights.version:
                self._replace_weights(folder, weights.version, timeout)
            self.call("/resume", {}, timeout=timeout)  # also needed if an exchange was cut short before it
            if weights.adapter is not None:
                self._load_adapter(weights.adapter, str(weights.adapter_folder), timeout)
        except Unusable:
            self._refusals += 1  # under the lock, so that waiting callers do not all try in turn
            raise

    def _replace_weights(self, folder: Path, version: str, timeout: float) -> None:
        """Replace the server's weights by those in `folder`; if that fails, it stays paused and draws nothing."""
        self.call("/pause?mode=abort", {}, timeout=timeout)  # this also empties its caches
        self.call("/init_weight_transfer_engine", {"init_info": {}}, timeout=timeout)
        with contextlib.suppress(Unusable):  # an update that a dead process left open is finished here
            self.call("/start_weight_update", {}, timeout=timeout)
        try:
            self.call("/update_weights", {"update_info": {"path": str(folder)}}, timeout=timeout)
        except CutOff:
            raise  # no word about the weights; a healthy server may have been restarted since
        except Unusable as error:
            if not is_healthy(self.url):
                raise  # the server is at fault, not the weights
            raise InputError(
                f"rollout.url: the server does not take the run's weights ({error}); start it with the model that "
                "the run starts from: python -m aes_r1.serve --model DIR"
            ) from error
        self.call("/finish_weight_update", {"weight_version": version}, timeout=timeout)

    def _load_adapter(self, name: str, folder: str, timeout: float) -> None:
        loaded = [model["id"] for model in self.call("/v1/models", timeout=HEALTH_S)["data"]]
        if name in loaded:
            return
        try:
            for old in loaded:
                if old.startswith("adapter-"):
                    self.call("/v1/unload_lora_adapter", {"lora_name": old}, timeout=timeout)
            self.call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, timeout=timeout)
        except RequestRejected as error:
            raise InputError(
                f"rollout.url: the server does not take the run's adapter ({error}); start it with "
                "python -m aes_r1.serve --lora-rank R, R at least model.lora.rank"
            ) from error


class Connections:
    """Know the sockets of a client, so that another thread can end the calls that wait for an answer on them."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def trace(self, event: str, event_info: Mapping[str, Any]) -> None:
        """Remember each new connection; httpcore calls this at every step of a request."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                self._sockets = [opened for opened in self._sockets if opened.fileno() >= 0]
                self._sockets.append(event_info["return_value"].get_extra_info("socket"))

    def end(self) -> None:
        """End all calls at once. Closing the client alone would leave them waiting for their answers."""
        with self._lock:
            for opened in self._sockets:
                with contextlib.suppress(OSError):  # closed already
                    opened.shutdown(socket.SHUT_RDWR)


class Servers:
    """Send requests to several servers of the same model. `patience`: seconds for which a request is repeated."""

    def __init__(self, urls: Sequence[str], *, patience: float) -> None:
        self._http = httpx.Client(limits=httpx.Limits(max_connections=None), trust_env=False)
        self._connections = Connections()
        self.servers, self.patience = [Server(url, self._http, self._connections) for url in urls], patience
        self._timeout = patience / 2  # of one try, so that a hanging server leaves time for another
        self._closed = False

    def close(self) -> None:
        """Stop all requests; those that wait for a server raise ServersGone, as after `patience` seconds."""
        self._closed = True
        self._connections.end()
        self._http.close()

    def hold(self, weights: Weights) -> None:
        """Give `weights` to every server that can be reached; the others get them once they are back."""

        def give(server: Server) -> None:
            try:
                server.hold(weights, timeout=self._timeout)
                server.worked()
            except (Unusable, RequestRejected):
                server.failed()

        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(give, self.servers))

    def ask(
        self, request: Mapping[str, Any], weights: Weights, *, first: int, check: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Return the answer of a server that holds `weights`, of server number `first` if that one is available.

        check(answer) raises Unusable if something is missing. ServersGone after `patience` seconds without a usable
        answer; InputError if the request itself is at fault.
        """
        deadline = time.monotonic() + self.patience
        body = {**request, "model": weights.adapter or SERVED}
        while True:
            server = self._next_server(first)
            try:
                answer = self._answer(server, body, weights)
                check(answer)
            except Unusable as error:
                server.failed()
                reason = str(error)
            except RequestRejected as error:
                raise InputError(f"rollout.url: the server refuses a request: {error}") from error
            else:
                server.worked()
                return answer
            pause = min(candidate.rests_until for candidate in self.servers) - time.monotonic()
            if self._closed or time.monotonic() + max(pause, 0.0) > deadline:
                raise ServersGone(
                    f"rollout.url: no usable answer within rollout.patience={self.patience:g} seconds "
                    f"(last: {reason}); see that python -m aes_r1.serve runs there"
                )
            time.sleep(max(pause, 0.0))

    def _next_server(self, first: int) -> Server:
        """Return server number `first`, or the next that is in use; if none is, the one that will be back first."""
        order = [self.servers[(first + offset) % len(self.servers)] for offset in range(len(self.servers))]
        now = time.monotonic()
        available = [server for server in order if server.rests_until <= now]
        return available[0] if available else min(order, key=lambda server: server.rests_until)

    def _answer(self, server: Server, body: Mapping[str, Any], weights: Weights) -> Any:
        """Return the server's answer with `weights`; if it holds others, as after a restart, give it those first."""
        for _ in range(2):
            try:
                answer = server.call("/inference/v1/generate", body, timeout=self._timeout)
            except RequestRejected as error:
                if error.status != 404 or weights.adapter is None:
                    raise
                wrong_weights = "no such adapter"
            else:
                versions = versions_of(answer)
                if versions == {weights.version}:
                    return answer
                wrong_weights = f"weights {', '.join(sorted(versions)) or 'of no version'}"
            if weights.folder is None:
                raise InputError(
                    f"--url: {server.url} was given {wrong_weights} by a training run since it was started; start it "
                    "again with the model that is to score"
                )
            server.hold(weights, timeout=self._timeout)
        raise Unusable(f"{server.url}: answers with {wrong_weights} instead of {weights.adapter or weights.version}")


def is_healthy(url: str) -> bool:
    """Return whether the server at `url` reports that it is healthy, over a separate connection."""
    try:
        return httpx.get(f"{url}/health", timeout=HEALTH_S, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def versions_of(answer: Any) -> set[str]:
    """Return every version of the weights with which tokens of `answer` were drawn."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return {str(span["version"]) for choice in choices or [] for span in choice.get("weight_versions") or []}

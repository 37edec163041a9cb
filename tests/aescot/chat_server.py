"""A real HTTP server that speaks the OpenAI chat protocol with pictures, and misbehaves on purpose.

`python chat_server.py FOLDER [FAULTS] [PROMPT_TOKENS]` listens on a free loopback port, writes FOLDER/port, and logs
every request to FOLDER/requests.jsonl: {"at" (s), "subject", "picture" (digest of its bytes, null without one), "role",
"fault", "key"}. A key that starts with "sk-wrong" is refused with a message that repeats it.
With FAULTS=1 each of seven faults befalls a tenth of the requests, by the digest and how often it was asked about.
With FAULTS=2 a tenth of all answers is empty, the judge's too, and a fifth of the critiques gives the score away.
A completion is rated by the words of its critique (`rating_of`). With FAULTS=3 every third of them is never given a
rating that can be read, with FAULTS=4 none is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

FAULTS = ("rate_limit", "server_error", "slow", "cut", "invalid_json", "empty", "refusal")
SLOW_S = 4.0  # longer than the client waits
WORDS = ("river", "stone", "lantern", "meadow", "window", "harbor", "willow", "kettle", "ladder", "ribbon", "orchard")
REPLY_TEXT = "The {a} beside the {b} holds the light and the {c} gives the frame its calm."


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    faults: str
    prompt_tokens: int
    asked: ClassVar[dict[str, int]] = {}
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][-1]["content"]
        text = parts if isinstance(parts, str) else "".join(p["text"] for p in parts if p["type"] == "text")
        urls = [] if isinstance(parts, str) else [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
        picture = hashlib.sha256(base64.b64decode(urls[0].split(",", 1)[1])).hexdigest()[:16] if urls else None
        role = "expert" if "private information" in text else "fact" if picture else "align"
        subject = picture or hashlib.sha256(text.encode()).hexdigest()[:16]
        if "Rate the critic's work" in text:
            role, subject = "reward", hashlib.sha256(f"{picture}{text}".encode()).hexdigest()[:16]
        with self.lock:
            tries = self.asked[role + subject] = self.asked.get(role + subject, 0) + 1
        place = int(hashlib.sha256(f"{role}{subject}{tries}".encode()).hexdigest(), 16) % 10
        fault = FAULTS[place] if self.faults == "1" and place < len(FAULTS) else None
        if role in ("align", "fact") and fault in ("invalid_json", "empty", "refusal"):
            fault = None
        if self.faults == "2":
            fault = "empty" if place == 0 else "leak" if role == "expert" and int(subject, 16) % 5 == 0 else None
        if role == "reward" and (self.faults == "4" or (self.faults == "3" and never_rated(text))):
            fault = ("empty", "invalid_json")[place % 2]
        key = self.headers.get("Authorization", "")
        if "sk-wrong" in key:
            return self._send(401, {"error": {"message": f"Incorrect API key provided: {key}", "type": "auth"}})
        row = {"at": time.monotonic(), "subject": subject, "picture": picture, "role": role, "fault": fault, "key": key}
        self._log(row)
        if fault == "rate_limit":
            return self._send(429, {"error": {"message": "slow down", "type": "rate_limit"}}, {"Retry-After": "1"})
        if fault == "server_error":
            return self._send(500, {"error": {"message": "oops", "type": "server_error"}})
        if fault == "slow":
            time.sleep(SLOW_S)
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "cut')
            self.close_connection = True
            return None
        return self._send(200, self._completion(self._content(role, subject, fault, text), fault))

    def _completion(self, content: str | None, fault: str | None) -> dict:
        message: dict = {"role": "assistant", "content": content}
        if fault == "refusal":
            message["refusal"] = "I can't help with that."
        usage = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": 200,
            "total_tokens": self.prompt_tokens + 200,
        }
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "fake",
            "choices": choices,
            "usage": usage,
        }

    def _content(self, role: str, subject: str, fault: str | None, text: str) -> str | None:
        if fault in ("empty", "refusal"):
            return None if fault == "refusal" else ""
        if fault == "invalid_json":
            return '{"light_and_shadow": "soft light'
        if role == "reward":
            return f'I see. {{"rating": {rating_of(text)}}}'
        if role == "align":
            return json.dumps({"level": "fair", "score": 0.5, "unsupported_claims": []})
        if role == "fact":
            claims = ["a dog that is not there"] if int(subject, 16) % 10 == 0 else []
            return "Here you are: " + json.dumps({"level": "fair", "score": 0.5, "unsupported_claims": claims})
        number = int(subject, 16)
        said = {}
        for name in ("light_and_shadow", "mood_and_narrative", "composition", "color", "exposure", "judgement"):
            picked = []
            for _ in range(3):
                number, rest = divmod(number, len(WORDS))
                picked.append(WORDS[rest])
            said[name] = REPLY_TEXT.format(a=picked[0], b=picked[1], c=picked[2])
            number = int(hashlib.sha256(f"{name}{subject}".encode()).hexdigest(), 16)
        if fault == "leak":
            said["judgement"] += " It earned the 0.50 that it was given."
        return "```json\n" + json.dumps(said) + "\n```"

    def _send(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has closed the connection

    def _log(self, row: dict) -> None:
        with self.lock, (self.folder / "requests.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def rating_of(question: str) -> float:
    """The rating that this server gives for a critique, 0..10: a point for every five different words."""
    return min(10.0, len(set(question.split("---")[1].split())) / 5)


def never_rated(question: str) -> bool:
    return len(question) % 3 == 0


@contextmanager
def running(folder: Path, *, faults: int = 0, prompt_tokens: int = 600) -> Iterator[tuple[str, Path]]:
    """Run the server in a process of its own; yields its URL and the file that logs requests."""
    folder.mkdir()
    process = subprocess.Popen([sys.executable, __file__, str(folder), str(faults), str(prompt_tokens)])
    try:
        deadline = time.monotonic() + 120
        while not (folder / "port").exists():
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{(folder / 'port').read_text()}/v1", folder / "requests.jsonl"
    finally:
        process.kill()
        process.wait()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    Handler.folder = Path(sys.argv[1])
    Handler.faults = "".join(sys.argv[2:3])
    Handler.prompt_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 600
    server = Server(("127.0.0.1", 0), Handler)
    (Handler.folder / "port.part").write_text(str(server.server_port))
    (Handler.folder / "port.part").rename(Handler.folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()

"""Commands disturbed at random moments, again and again, until each ends by itself; then its bits are compared.

A trial is one command in a fresh folder: one to twelve starts that are disturbed, then starts that are not, until it
ends with exit code 0. A fault is a traceback, an end without its one line, an exit code against the contract, a start
that cannot go on, or a result that differs from that of a command which nothing disturbed.

Most starts are copies (fork) of this process, which has imported the libraries: so a kill takes a second, not ten.
Every tenth is a process of its own. HOME/trials.jsonl keeps every trial, so that a later call goes on counting.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tests.stress.subjects import Subject, build, environment, start_server, streams_of
from tests.stress.warm import become, forked

KINDS = ("kill", "terminate", "usr1", "interrupt", "interrupt twice", "freeze", "full disk", "file size", "revoked")
ROOM_MB = 400  # of the disk that is filled
LONGEST_S = 900.0  # that one start may take
MOST = 12  # disturbances of a trial
GRACE_S = 120.0  # until everything that a start left behind has ended
FRESH = 0.1  # share of starts that are no fork
IMPORTS_S = 5.0  # that such a start takes longer, at least


class Fault(Exception):
    """A violation of the contract by a disturbed command."""


class Start:
    """One start of a command in `where`; what it says goes to files beside the small disk, which may be full."""

    def __init__(self, subject: Subject, where: Path, *, fork: bool, file_size: int | None = None) -> None:
        self.where = where
        self.streams = streams_of(where)
        self.streams.mkdir(exist_ok=True)
        module, *arguments = subject.command(where)
        if fork:

            def work() -> NoReturn:
                os.setsid()
                os.chdir(where)
                if file_size is not None:
                    _limit_files(file_size)
                become(module, arguments, self.streams, environment())

            self.process = forked(work)
        else:
            with (self.streams / "stdout").open("w") as out, (self.streams / "stderr").open("w") as said:
                limit = None if file_size is None else lambda: _limit_files(file_size)
                self.process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    env=environment(), cwd=where, stdout=out, stderr=said, start_new_session=True, preexec_fn=limit,
                ).pid  # fmt: skip
        self.code: int | None = None
        self._helped, self._began = subject.helped, time.monotonic()

    def worked(self) -> float:
        """Seconds that its processor worked, which mean the same moment however busy the machine is.

        Where other processes do the work, seconds on the clock.
        """
        if self._helped:
            return time.monotonic() - self._began
        try:
            fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def handles(self, number: int) -> bool:
        """Whether it has a handler for the signal, as every command has from its first lines on.

        Before them Python itself starts, in a copy of this process as in one of its own.
        """
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
                if line.startswith("SigCgt"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False

    def ended(self) -> bool:
        if self.code is None:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self) -> int:
        deadline = time.monotonic() + LONGEST_S
        while not self.ended():
            if time.monotonic() > deadline:
                self.clear()
                raise Fault(f"did not end in {LONGEST_S:.0f} s")
            time.sleep(0.01)
        deadline = time.monotonic() + GRACE_S
        while self.left():
            if time.monotonic() > deadline:
                left = self.left()
                self.clear()
                raise Fault(f"left processes behind: {left}")
            time.sleep(0.02)
        assert self.code is not None
        return self.code

    def left(self) -> list[str]:
        """Command lines of the processes of this start's session that still live."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process and fields[0] not in "ZX":
                    found.append(status.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        return found

    def signal(self, number: int) -> None:
        if not self.ended():
            os.kill(self.process, number)

    def clear(self) -> None:
        """Kill the remaining processes, so that the next start finds none."""
        with contextlib.suppress(OSError):
            os.killpg(self.process, signal.SIGKILL)
        if not self.ended():
            os.kill(self.process, signal.SIGKILL)

    def said(self) -> str:
        return (self.streams / "stderr").read_text(errors="replace")


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextlib.contextmanager
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of ROOM_MB where one may be mounted, else a plain folder, which is never filled."""
    room = home / "room"
    room.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m,mode=777", "tmpfs", str(room)], capture_output=True
    )
    try:
        yield room
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(room)], capture_output=True)


def fill(room: Path, left: int) -> Path:
    """A file that takes all of the disk but `left` bytes."""
    filler = room / "filler"
    with filler.open("wb") as file:
        while True:
            disk = os.statvfs(room)
            try:
                os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - left))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                if disk.f_bavail > 0:  # the command has written meanwhile
                    continue
            return filler


def drafts(where: Path) -> bool:
    """Whether something is half written in `where`."""
    for folder, names, inside in os.walk(where):
        if any(name.endswith((".partial", ".tmp")) for name in (*names, *inside)):
            return True
        names[:] = [name for name in names if name not in ("model", "pictures")]
        if folder.count("/") > where.as_posix().count("/") + 4:
            names.clear()
    return False


def disturb(kind: str, start: Start, moment: float, on_draft: bool, draw: random.Random, room: Path) -> float | None:
    """Do `kind` to a start after `moment` seconds of its work; the moment, or None when it had ended before."""
    while start.worked() < moment:
        if start.ended():
            return None
        time.sleep(0.005)
    at = start.worked()
    while on_draft and start.worked() < at + 1 and not drafts(start.where):
        if start.ended():
            return None
        time.sleep(0.002)
    while kind in ("terminate", "usr1") and not start.handles(signal.SIGTERM):
        if start.ended():
            return None
        time.sleep(0.002)
    if start.ended():
        return None
    if kind == "kill":
        start.signal(signal.SIGKILL)
    elif kind in ("terminate", "usr1"):
        start.signal(signal.SIGTERM if kind == "terminate" else signal.SIGUSR1)
    elif kind == "interrupt":
        start.signal(signal.SIGINT)
    elif kind == "interrupt twice":
        start.signal(signal.SIGINT)
        time.sleep(draw.choice((0.0, 0.01, 0.1, 0.5)))
        start.signal(signal.SIGINT)
    elif kind == "freeze":
        start.signal(signal.SIGSTOP)
        time.sleep(draw.uniform(0.2, 3.0))
        start.signal(signal.SIGCONT)
    elif kind == "full disk":
        filler = fill(room, draw.choice((0, 4096, 100_000, 3_000_000)))
        try:
            start.wait()
        finally:
            filler.unlink()
    elif kind == "revoked":
        folders = [path for path in start.where.rglob("*") if path.is_dir()] or [start.where]
        taken = draw.sample(folders, min(len(folders), draw.choice((1, 3, 100))))
        for folder in taken:
            with contextlib.suppress(FileNotFoundError):
                folder.chmod(0o500)
        try:
            start.wait()
        finally:
            start.where.chmod(0o755)
            for folder, names, _ in os.walk(start.where):  # one that was renamed meanwhile, too
                for name in names:
                    os.chmod(os.path.join(folder, name), 0o755)
    return at


ALLOWED = {
    "kill": (-signal.SIGKILL, 0),
    "terminate": (75, 0),
    "usr1": (75, 0),
    "interrupt": (1, 0),
    "interrupt twice": (1, 0),
    "freeze": (0,),
    "full disk": (0, 1, 2),
    "file size": (0, 1, 2),
    "revoked": (0, 1, 2),
    "none": (0,),
}


def judge(kind: str, subject: Subject, start: Start) -> None:
    """Raise Fault when the end of a disturbed start is none that the contract allows for `kind`."""
    code, said = start.wait(), start.said()
    allowed = ALLOWED[kind]
    if subject.name == "score" and kind in ("terminate", "usr1"):
        allowed = ALLOWED["interrupt"]  # nothing is kept that could be gone on from
    if code not in allowed:
        raise Fault(f"{kind}: exit code {code}: {_tail(said)}")
    if "Traceback" in said or "Exception ignored" in said:
        raise Fault(f"{kind}: traceback: {_tail(said)}")
    if code > 0 and not any(line.startswith("aes_r1: ") for line in said.splitlines()):
        raise Fault(f"{kind}: exit code {code} without a line: {_tail(said)}")


def _tail(said: str) -> str:
    return " | ".join(said.strip().splitlines()[-4:])[-600:]


def trial(
    subject: Subject, where: Path, reference: dict[str, str], usual_s: float, seed: int, room: Path | None
) -> dict[str, Any]:
    """One trial, drawn by `seed`; its row of trials.jsonl."""
    draw = random.Random(seed)
    done: list[dict[str, Any]] = []
    row: dict[str, Any] = {"subject": subject.name, "seed": seed, "disturbed": done, "fault": None}
    kinds = [kind for kind in KINDS if room is not None or kind != "full disk"]
    try:
        for _ in range(draw.randint(1, MOST)):
            kind = draw.choices(kinds, [6 if kind == "kill" else 1 for kind in kinds])[0]
            fork = subject.forkable and draw.random() >= FRESH
            size = int(10 ** draw.uniform(2, 7)) if kind == "file size" else None
            moment = draw.uniform(0.0, 1.0) * (usual_s if fork or not subject.forkable else usual_s + IMPORTS_S)
            on_draft = draw.random() < 0.4
            start = Start(subject, where, fork=fork, file_size=size)
            try:
                at = 0.0 if size is not None else disturb(kind, start, moment, on_draft, draw, room or where)
                judge("none" if at is None else kind, subject, start)
            finally:
                start.clear()
            if at is None or (kind == "kill" and start.code == 0):  # the signal came after its end
                break  # the command has done all its work, and a further start would find nothing to do
            done.append({"kind": kind, "at": round(at, 2), "fresh": not fork, "end": start.code})
        last = Start(subject, where, fork=subject.forkable)
        judge("none", subject, last)
        found = digests(subject.result(where))
        differing = sorted(name for name in reference.keys() | found.keys() if reference.get(name) != found.get(name))
        if differing:
            raise Fault(f"other bits in {', '.join(differing)}")
    except Fault as fault:
        row["fault"] = str(fault)
    except (OSError, ValueError, KeyError) as error:  # a file of the result is missing or torn
        row["fault"] = f"result: {type(error).__name__}: {error}"
    return row


def undisturbed(subject: Subject, where: Path, kept: Path) -> tuple[dict[str, str], float]:
    """The digests of a command that nothing disturbed, and its seconds of work; `kept` holds them between calls."""
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if subject.name not in known:
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        began, worked = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        judge("none", subject, Start(subject, where, fork=subject.forkable))
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = now.ru_utime + now.ru_stime - worked.ru_utime - worked.ru_stime
        usual = time.monotonic() - began if subject.helped else seconds
        known[subject.name] = digests(subject.result(where)), usual
        kept.write_text(json.dumps(known))
    digest, seconds = known[subject.name]
    return digest, seconds


def digests(result: dict[str, Any]) -> dict[str, str]:
    """A digest of each part of a result."""
    found = {name: part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
             for name, part in result.items()}  # fmt: skip
    return {name: hashlib.sha256(part).hexdigest() for name, part in found.items()}


def warm_up() -> None:
    """Import what the commands import, once for all forks; none of it starts a thread."""
    import hydra  # noqa: F401, for the forks
    import torch
    import transformers.models.qwen2_5_vl.modeling_qwen2_5_vl  # noqa: F401, for the forks

    import aes_r1.evaluation.summary
    import aes_r1.pipeline.run
    import aes_r1.report.side_by_side_page
    import aes_r1.scoring.critic  # noqa: F401, for the forks

    torch.set_num_threads(1)


def run(home: Path, minutes: float, *, seed: int, only: list[str]) -> int:
    """Trials for `minutes`; the number of faults of this call."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    warm_up()
    server, url = start_server(home / "server")
    log, faults = home / "trials.jsonl", 0
    number = len(log.read_text().splitlines()) if log.exists() else 0
    try:
        with small_disk(home) as room:
            subjects = [one for one in build(home, url) if not only or one.name in only]
            where = room / "here"  # the same for all, so that no result differs by its folder's name
            references = {}
            if not (home / "talking").exists():
                teach(home, url, where)
            for subject in subjects:
                references[subject.name] = undisturbed(subject, where, home / "references.json")
                print(f"{subject.name}: {references[subject.name][1]:.1f} s of work", flush=True)
            filled = room if os.path.ismount(room) else None
            deadline = time.monotonic() + 60 * minutes
            while time.monotonic() < deadline:
                shutil.rmtree(where, ignore_errors=True)
                where.mkdir()
                drawn = random.Random(f"{seed}/{number}")
                subject = drawn.choices(subjects, [one.weight for one in subjects])[0]
                row = trial(subject, where, *references[subject.name], seed=hash((seed, number)), room=filled)
                with log.open("a") as file:
                    file.write(json.dumps({**row, "when": round(time.time())}) + "\n")
                if row["fault"]:
                    faults += 1
                    shutil.copytree(where, home / "faults" / f"{number:05d}", dirs_exist_ok=True)
                    print(f"{number} {row['subject']}: {row['fault']}", flush=True)
                number += 1
    finally:
        server.kill()
        server.wait()
    return faults


def teach(home: Path, url: str, where: Path) -> None:
    """Keep the model of an undisturbed cold start: one that answers, so that RAPO has rewards to learn from."""
    where.mkdir(exist_ok=True)
    start = Start(next(one for one in build(home, url) if one.name == "cold start"), where, fork=True)
    judge("none", start=start, subject=build(home, url)[0])
    shutil.copytree(where / "run" / "model", home / "talking")

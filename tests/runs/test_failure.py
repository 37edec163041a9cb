"""The one-line reason that a failed run leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aes_r1.runs.failure import failure_file
from aes_r1.runs.folder import RunFolder

SILENT = "ended without a message; see run.log"


def leave_after(error: BaseException, *, hide: bool = False) -> Callable[[], None]:
    """Return a function that meets `error` and then ends with SystemExit(1), as commands do."""

    def fail() -> None:
        try:
            raise error
        except BaseException:
            if hide:
                raise SystemExit(1) from None
            raise SystemExit(1)  # noqa: B904 - the chain is that of a plain sys.exit

    return fail


def raises(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (raises(ValueError("too\nlong")), "ValueError: too"),
        (raises(ValueError("\nlate")), "ValueError: late"),
        (raises(ValueError("bild\udcff.jpg")), "ValueError: bild\\udcff.jpg"),
        (raises(SystemExit("no room")), "SystemExit: no room"),
        *((raises(SystemExit(code)), f"SystemExit: {SILENT}") for code in (1, None)),
        (raises(KeyboardInterrupt()), f"KeyboardInterrupt: {SILENT}"),
        (raises(MemoryError()), f"MemoryError: {SILENT}"),
        (leave_after(ValueError("no such file")), "ValueError: no such file"),
        (leave_after(KeyboardInterrupt()), f"SystemExit: {SILENT}"),
        (leave_after(ValueError("no such file"), hide=True), f"SystemExit: {SILENT}"),
    ],
)
def test_what_ended_a_run_is_named_whatever_carried_it(fail, reason, tmp_path):
    with pytest.raises((Exception, SystemExit, KeyboardInterrupt)), failure_file(tmp_path, 0):
        fail()
    run = RunFolder(tmp_path)
    assert (run.failure, run.state) == (f"rank 0: {reason}", f"failed: rank 0: {reason}")


def test_a_process_that_is_not_connected_writes_nothing_into_what_may_be_another_runs_folder(tmp_path):
    with pytest.raises(ValueError, match="no room"), failure_file(tmp_path, 1):
        raise ValueError("no room")
    assert list(tmp_path.iterdir()) == []

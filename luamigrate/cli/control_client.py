"""`luamigrate control`: sends a word to a run or a follow that listens, and prints the answer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from luamigrate.cli import console
from luamigrate.cli.control_options import ALL_WORDS, WISHES
from luamigrate.cli.control_socket import LONGEST_PATH
from luamigrate.cli.follow_messages import NEW_NAMES
from luamigrate.model.cutover import Side
from luamigrate.model.errors import Error, Exit, UsageError, as_typed, printable
from luamigrate.model.status import Command

SECONDS_TO_ANSWER = 10.0
LONGEST_ANSWER = 1_000_000
"""Bytes."""
OLD_MS = 2000
"""The age in milliseconds from which on `status` says how old its figures are."""
MISFIT = "does not answer as luamigrate does"


def speak(path: Path, word: str, arguments: Sequence[str], *, as_json: bool) -> Exit:
    """Send a word, print what is answered, and return the exit code. Raises UsageError, Error."""
    _refuse_misfits(path, word, arguments)
    line = os.fsencode(" ".join((word, *arguments))) + b"\n"
    shown = as_typed(os.fsencode(path))
    is_wish = word in WISHES
    try:
        answer = _exchange(path, line, None if is_wish else SECONDS_TO_ANSWER)
        if is_wish and not answer:
            raise Error(f"what listened at {shown} has gone without an answer to '{word}'")
        document: dict[str, Any] = dict(json.loads(answer))
        told = "" if as_json or "error" in document else "\n".join(_lines(document))
        told = f"{word}: done\n{told}" if is_wish else told
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise Error(f"what listens at {shown} {MISFIT}") from None
    except TimeoutError:
        raise Error(f"what listens at {shown} gives no answer") from None
    except OSError as error:
        raise Error(f"nobody answers at {shown}: {error.strerror}") from None
    except KeyboardInterrupt:
        if is_wish:
            console.fail(f"'{word}' goes on without you: 'luamigrate control {shown} status' says how it stands")
        raise
    if as_json:
        console.print_document(document)
    elif "error" in document:
        console.fail(printable(str(document["error"]).encode(errors="replace")))
    else:
        console.say(told)
    return Exit.REFUSED if "error" in document else Exit.OK


def _refuse_misfits(path: Path, word: str, arguments: Sequence[str]) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UsageError(f"SOCKET: the path of a socket has {LONGEST_PATH} bytes at most")
    if word not in ALL_WORDS:
        raise UsageError(f"'{as_typed(os.fsencode(word))}' is no word for control; there are {', '.join(ALL_WORDS)}")
    if len(arguments) != (word == "set") or not all(_is_setting(text) for text in arguments):
        raise UsageError("control takes NAME=VALUE after set, as in 'set max-rate=1000', and nothing after other words")


def _is_setting(text: str) -> bool:
    return "=" in text and text.isprintable() and " " not in text


def _exchange(path: Path, line: bytes, patience: float | None) -> bytes:
    """Return the line that answers a line, which may take so many seconds; None for without end. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS_TO_ANSWER)
        connection.connect(os.fspath(path))
        connection.sendall(line)
        connection.settimeout(patience)
        answer = b""
        while b"\n" not in answer and len(answer) < LONGEST_ANSWER and (more := connection.recv(65_536)):
            answer += more
    return answer


def _lines(document: dict[str, Any]) -> Iterator[str]:
    rows = _follow_rows(document) if document["command"] == Command.FOLLOW else _run_rows(document)
    limits = {name.replace("_", "-"): value for name, value in document["limits"].items()}
    rows |= {
        "limits": ", ".join(f"{name} {'none' if value is None else f'{value:g}'}" for name, value in limits.items()),
        "waits for": (document["waiting_for"] or "").removeprefix("waiting for ") or None,
        "as it was": f"{document['age_ms'] / 1000:,.0f} s ago" if document["age_ms"] >= OLD_MS else None,
    }
    state = "stopping" if document["stopping"] else "paused" if document["paused"] else "at work"
    yield f"{document['command']}: {state}"
    yield from (f"  {name:<14}{printable(str(text).encode(errors='replace'))}" for name, text in rows.items() if text)


def _follow_rows(document: dict[str, Any]) -> dict[str, Any]:
    lag = document["lag_ms"]
    frozen, steps = document["freeze_ms"], document["steps"]
    return {
        "state": f"{document['phase']}, {'in step' if document['in_step'] else 'not in step'}",
        "writes": NEW_NAMES if document["side"] == Side.TARGETS else None,
        "under way": document["wish"],
        "last step": steps[-1] if steps else None,
        "frozen for": f"{frozen:,.1f} ms" if frozen is not None else None,
        "waiting": f"{document['dirty']:,} dirty, {document['in_flight']:,} in flight",
        "lag": f"p50 {lag['p50']:,.1f} ms, p99 {lag['p99']:,.1f}, worst {lag['max']:,.1f}",
        "so far": f"{document['told']:,} changes, {document['copies']:,} copies, {document['removed']:,} removed",
        "scanned again": f"{document['rescans']:,} times",
        "trouble": ", ".join(f"{document[name]:,} {name}" for name in ("foreign", "failed", "extra", "stragglers")),
    }


def _run_rows(document: dict[str, Any]) -> dict[str, Any]:
    rule, totals = document["rule"], document["totals"]
    return {
        "rule": f"{rule['source']} -> {rule['target']}" if rule else "none yet",
        "scanned": f"{document['scanned']:.0%} for this rule",
        "so far": ", ".join(f"{count:,} {word}" for word, count in totals.items()),
        "to recheck": f"{document['waiting']:,}",
        "rate": f"{document['rate']:,.0f} keys a second",
    }

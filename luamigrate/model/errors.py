"""What can go wrong, in one line each; exit codes; names made safe to show. Knows nothing else."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; where several apply, the order is `exit_code`'s."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNFINISHED = 3
    REFUSED = 4
    INTERRUPTED = 130


class Error(Exception):
    """Anything luamigrate cannot do, in one line that says what to do about it."""

    exit_code = Exit.FAILED


class UsageError(Error):
    """The options or the plan make no sense; nothing was done."""

    exit_code = Exit.USAGE


class Refused(Error):
    """A check said no; nothing was written."""

    exit_code = Exit.REFUSED


class Stopped(Error):
    """A guard said no while the work was under way; what is counted is done, and running again continues."""

    exit_code = Exit.REFUSED


def printable(name: bytes) -> str:
    r"""Escape a key name reversibly: UTF-8, `\xNN` for what cannot be shown, `\\` for a backslash.

    What cannot be shown is what is not UTF-8 or not printable: control characters, line breaks,
    characters that turn the direction of writing. So no name can write to the terminal.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))

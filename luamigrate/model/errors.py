"""Errors, exit codes, and key names made safe to show."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; `Summary.exit_code` says which one wins where several apply."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNFINISHED = 3
    REFUSED = 4
    INTERRUPTED = 130


class Error(Exception):
    """Something that luamigrate cannot do, in one line that says what to do about it."""

    exit_code = Exit.FAILED


class UsageError(Error):
    """The options or the plan make no sense; nothing was done."""

    exit_code = Exit.USAGE


class Refused(Error):
    """A check said no; nothing was written."""

    exit_code = Exit.REFUSED


class Stopped(Error):
    """A guard stopped the work; what is counted is done, and the same command continues."""

    exit_code = Exit.REFUSED


def printable(name: bytes) -> str:
    r"""Escape a key name reversibly: UTF-8, `\xNN` for what cannot be shown, `\\` for a backslash.

    Bytes that are not UTF-8, control characters, line breaks and characters that turn the direction of writing cannot
    be shown: no name can write to the terminal.
    """
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_printable_character, text))


def as_typed(text: bytes) -> str:
    """Return what a user has typed, no key name: as `printable`, but a backslash stands there as it was typed."""
    return "\\".join(map(printable, text.split(b"\\")))


def _printable_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))

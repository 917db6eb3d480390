"""The file of --report: a JSON line per key."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from luamigrate.cli import json_output
from luamigrate.model.errors import Error, UsageError, printable
from luamigrate.model.summary import Batch


class KeyReport:
    """The report file: a JSON line per key that is not clean, or per key.

    Raises UsageError where it cannot be opened. What cannot be written later is the `problem`: what has been done by
    then must be counted all the same.
    """

    def __init__(self, path: Path, *, every_key: bool) -> None:
        self.problem: Error | None = None
        self._every_key = every_key
        self.name = printable(os.fsencode(path))
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--report: cannot write {self.name}: {error.strerror}") from None

    def add(self, batch: Batch) -> None:
        """Write the lines of a batch's keys; one that begins again takes back those before it."""
        if batch.restarted:
            self.start_again()
        if self.problem:
            return
        try:
            for key in batch.keys:
                if self._every_key or not key.clean:
                    self._file.write(json.dumps(json_output.key_document(key), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.problem = Error(f"--report: cannot write {self.name}: {error.strerror}")

    @property
    def can_start_again(self) -> bool:
        """Whether what has been written can be taken back: not where it goes into a pipe."""
        return self._file.seekable()

    def start_again(self) -> None:
        """Forget the lines that have been written."""
        if self.can_start_again:
            self._file.seek(0)
            self._file.truncate()

    def close(self) -> None:
        """Finish the file."""
        with suppress(OSError):
            self._file.close()

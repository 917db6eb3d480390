"""The file of --report: a JSON line for each key."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from luamigrate.cli import json_output
from luamigrate.model.errors import Error, UsageError, as_typed
from luamigrate.model.summary import Batch


class KeyReport:
    """The report file: a JSON line for each key that is not clean, or for each key.

    Raises UsageError where it cannot be opened. An error while writing is kept as the `problem`, because the work done
    by then must still be counted.
    """

    def __init__(self, path: Path, *, every_key: bool) -> None:
        self.problem: Error | None = None
        self._every_key = every_key
        self.name = as_typed(os.fsencode(path))
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--report: cannot write {self.name}: {error.strerror}") from None

    def add(self, batch: Batch) -> None:
        """Write the lines of a batch's keys; a batch that starts again removes the lines before it."""
        if batch.restarted:
            self.start_again()
        if self.problem:
            return
        try:
            for key in batch.keys:
                if self._every_key or key.is_news:
                    line = json.dumps(json_output.key_document(batch.rule, key), ensure_ascii=False)
                    self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self.problem = Error(f"--report: cannot write {self.name}: {error.strerror}")

    @property
    def can_start_again(self) -> bool:
        """Whether lines can be removed: not in a pipe."""
        return self._file.seekable()

    def start_again(self) -> None:
        """Remove the lines that have been written."""
        if self.can_start_again:
            self._file.seek(0)
            self._file.truncate()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()

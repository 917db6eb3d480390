"""Tables that are printed line by line."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WIDTH, WIDTH = 34, 10


@dataclass(frozen=True)
class Table:
    """Prints for the screen, or in Markdown for a page."""

    markdown: bool

    def begin(self, title: str, *columns: str) -> None:
        """Print the names of the columns; the title stands above the names of the rows."""
        if self.markdown:
            print()
        self.add(title, *columns)
        if self.markdown:
            print("|---|" + "---:|" * len(columns))

    def add(self, name: str, *cells: str) -> None:
        """Print a row."""
        if self.markdown:
            print(f"| {' | '.join((name, *cells))} |", flush=True)
        else:
            print(f"{name:{FIRST_WIDTH}}" + "".join(f" {cell:>{WIDTH}}" for cell in cells), flush=True)

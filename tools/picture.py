"""docs/images/demo.svg: a real session with the demo's sample jobs, drawn by Rich for `make pictures`.

What differs from run to run is replaced, so that the picture changes only when what is printed does.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import redis
from rich.console import Console
from rich.text import Text

from luamigrate.cli.demo_jobs import fill
from luamigrate.cli.embedded import embedded_binary, throwaway_server
from luamigrate.cli.options import environment

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "demo.svg"
RULE = "--map 'job:*=step:*' --type hash"
SESSION = ((f"run {RULE} --on-existing fill", "2.03 s"), (f"verify {RULE} --quiet", "0.04 s"))
"""Commands, and how long they are said to take."""
COLUMNS = 100
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
"""Those that a reader has: a picture fetches nothing."""
WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def draw() -> str:
    """Carry out the session, and return its picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    with throwaway_server(embedded_binary()) as url:
        with redis.Redis.from_url(url) as client:
            fill(client)
        for line in _lines(url):
            console.print(line)
    svg = console.export_svg(title="luamigrate", unique_id="luamigrate")
    return (
        WEB_FONT.sub("", svg)
        .replace("Fira Code, monospace", FONTS)
        .replace("font-family: arial", "font-family: sans-serif")
    )


def _lines(url: str) -> Iterator[Text]:
    for command, duration in SESSION:
        yield Text.assemble(("$ ", "bold green"), (f"luamigrate {command}", "bold"))
        result = subprocess.run(
            (sys.executable, "-m", "luamigrate", *shlex.split(command)),
            env=environment(REDIS_URL=url),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        yield from (Text(line) for line in _masked(result.stdout, duration).splitlines())
        yield Text()


def _masked(text: str, duration: str) -> str:
    """Replace what differs from run to run by something as long."""
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:16379", text)
    text = re.sub(r"valkey [\d.]+", "valkey 9.1.2", text)
    text = re.sub(r"(Duration) +[\d.,]+ s$", rf"\1{duration:>28}", text, flags=re.MULTILINE)
    return re.sub(r"(Longest script) +[\d.,]+ ms$", rf"\1{'0.9 ms':>22}", text, flags=re.MULTILINE)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")

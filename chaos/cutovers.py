"""`make cutovers`: cut-overs beside an application that counts and faults, and a table of what came of them."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from chaos import cutover_sites, cutover_trials
from chaos.cutover_rules import RULES
from chaos.cutover_sites import SETTINGS
from chaos.cutover_trials import Trial
from tests import binaries
from tests.processes import end_all, let_signals_through

SHOWN = 12_000
"""Characters of the story of a trial that broke a rule."""
TRIALS_AT_A_PLACE = 4
"""Then the server is started anew."""


@dataclass
class Totals:
    """What came of all trials in a setting."""

    trials: list[Trial] = field(default_factory=list)
    unjudged: int = 0
    """Trials that did not come to their end, because the servers or the application did not."""

    def row(self) -> list[str]:
        """Return the figures."""
        freezes = sorted(each for trial in self.trials for each in trial.freezes_ms)
        violations = Counter(number for trial in self.trials for number in {number for number, _ in trial.violations})
        sums = [
            sum(getattr(trial, name) for trial in self.trials)
            for name in ("legs", "attempts", "writes", "unknown", "unheard", "stragglers")
        ]
        cuts = (
            [quantiles(freezes, n=100, method="inclusive")[part - 1] for part in (50, 99)]
            if len(freezes) > 1
            else freezes * 2
        )
        held = [f"{each:.1f}" for each in (*cuts, *freezes[-1:])] or ["-"] * 3
        longest = max((trial.wait_ms for trial in self.trials), default=0.0)
        counts = [len(self.trials), *sums]
        return [
            *(f"{count:,}" for count in counts),
            *held,
            f"{longest:.0f}",
            *(str(violations[rule]) for rule in RULES),
        ]


HEAD = (
    *("trials", "cut-overs", "attempts", "writes", "unknown", "unheard", "stragglers"),
    *("held, ms: p50", "p99", "longest", "longest write, ms"),
    *(f"rule {number}" for number in RULES),
)


def made(server: str, setting: str, seeds: list[int], deadline: float) -> Iterator[Trial | str]:
    """Make trials, and yield what came of each; start the server anew after trouble, and after some trials."""
    while seeds and time.monotonic() < deadline:
        try:
            with ExitStack() as stack:
                place = stack.enter_context(cutover_sites.opened(server, setting))
                for _ in range(TRIALS_AT_A_PLACE):
                    if not seeds or time.monotonic() > deadline:
                        return
                    yield cutover_trials.make(place, seeds.pop(0))
        except Exception:  # noqa: BLE001  # whatever it is: the next trial gets a new server
            yield f"before seed {seeds[:1]}: {traceback.format_exc()}"
        finally:
            end_all()


def show(where: str, trial: Trial) -> None:
    """Print a line for a trial, and its story where it broke a rule."""
    held = ", ".join(f"{each:.1f}" for each in trial.freezes_ms)
    faults = ", ".join(trial.faults)
    result = "VIOLATION" if trial.violations else "ok"
    figures = f"held {held or '-'} ms, {trial.attempts} attempts, {trial.writes:,} writes, {trial.unknown} unknown"
    print(f"{result} {where} {trial.seed}: {faults}; {figures}, {trial.seconds:.1f} s", flush=True)
    if trial.violations:
        for number, text in trial.violations:
            print(f"  rule {number} ({RULES[number]}): {text}")
        print(trial.story[-SHOWN:])
        server, setting = where.split()
        again = f"--servers {server} --settings {setting} --seed {trial.seed} --trials 1"
        print(f"again: python -m chaos.cutovers {again}", flush=True)


def table(totals: dict[str, Totals]) -> str:
    """Return the tables, as they stand in docs/reliability.md."""
    rows = [["servers", *HEAD], ["---"] * (len(HEAD) + 1)]
    rows += [[where, *each.row()] for where, each in totals.items()]
    faults = Counter(fault for each in totals.values() for trial in each.trials for fault in trial.faults)
    times = [["fault", "times"], ["---", "---"], *([name, f"{count:,}"] for name, count in sorted(faults.items()))]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in part) for part in (rows, times))


def main() -> int:
    """Carry out the campaign; exit code 1 where a rule was broken or a trial not judged."""
    options = _options()
    let_signals_through()
    deadline = time.monotonic() + options.seconds
    totals: dict[str, Totals] = {}
    kinds = [(server, setting) for setting in options.settings.split(",") for server in options.servers.split(",")]
    seeds = {kind: list(range(options.seed, options.seed + options.trials)) for kind in kinds}
    while any(seeds.values()) and time.monotonic() < deadline:
        for (server, setting), left in seeds.items():
            if not isinstance(binaries.find(server), Path):
                print(f"SKIPPED: {server}: {binaries.find(server)}")
                left.clear()
            turn, left[:] = left[:TRIALS_AT_A_PLACE], left[TRIALS_AT_A_PLACE:]
            for came in made(server, setting, turn, deadline):
                where = f"{server} {setting}"
                each = totals.setdefault(where, Totals())
                if isinstance(came, str):
                    each.unjudged += 1
                    print(f"NOT JUDGED {where}, {came}", flush=True)
                    continue
                each.trials.append(came)
                show(where, came)
    print(f"\n{table(totals)}")
    failed = sum(each.unjudged + sum(bool(trial.violations) for trial in each.trials) for each in totals.values())
    print(f"\n{sum(len(each.trials) for each in totals.values())} trials, {failed} of them failed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.cutovers", description=__doc__)
    parser.add_argument("--servers", default=",".join(binaries.NAMES), help="names, with commas between them")
    parser.add_argument("--settings", default=",".join(SETTINGS), help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; those of the others follow")
    parser.add_argument("--trials", type=int, default=1000, help="on each kind of server and setting, at most")
    parser.add_argument("--seconds", type=float, default=600, help="after which no trial is begun")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

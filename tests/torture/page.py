"""The page of kills and faults, made of the JSON beside it: ``python -m torture.page`` (with ``PYTHONPATH=tests``)."""

import json
import platform
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from torture.frame import SHARES, STAGES

JSON, PAGE = "torture.json", "torture.md"
DOCS = Path(__file__).resolve().parents[2] / "docs"
FOUND = ("lost", "doubled", "altered", "twice", "cut")


def about(server):
    """What was tested, and where."""
    return {
        "hdi": version("hdi"), "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "lake": f"Delta Lake by deltalake {version('deltalake')}", "server": server or "none",
    }  # fmt: skip


def gathered(when, kills, faults):
    """What tests told, as plain values for the JSON; ``when`` are the date and the seed of the run."""
    lines = {}
    for kind, what, store, outcome, reason in faults:
        line = lines.setdefault((kind, what, store), {"tests": 0, "passed": 0, "reasons": []})
        line["tests"] += 1
        line["passed"] += outcome == "passed"
        line["reasons"] = sorted({*line["reasons"], reason} - {""})
    found = [{"kind": k, "what": w, "store": s, **line} for (k, w, s), line in sorted(lines.items())]
    return {"kills": [_added(k, told, when) for k, told in _grouped(kills)], "faults": found}


def _grouped(kills):
    for kind in SHARES:
        if of_kind := [k for k in kills if (k["activity"], k["store"]) == kind]:
            yield kind, of_kind


def _added(kind, parts, when):
    stages = sum((Counter(p["kills"]) for p in parts), Counter())
    found = sum((Counter(p["found"]) for p in parts), Counter())
    return {
        "activity": kind[0], "store": kind[1], "kills": {s: stages[s] for s in STAGES if stages[s]},
        "ended_before": sum(p["tries"] for p in parts), **{name: found[name] for name in FOUND},
        "seconds": round(sum(p["seconds"] for p in parts)), **when,
    }  # fmt: skip


def made(kills):
    """How many kills were made."""
    return sum(sum(k["kills"].values()) for k in kills)


def publish(folder, told, found, *, anyway=False, part=False):
    """Write the JSON and the page, unless they tell of more kills; the sentence that says what was done.

    ``part``: only some of the tests have run; what there is of the others stays.
    """
    path = folder / JSON
    there = json.loads(path.read_text()) if path.exists() else {"kills": [], "faults": []}
    mine = {(k["activity"], k["store"]) for k in found["kills"]}
    old = [k for k in there["kills"] if not part or (k["activity"], k["store"]) in mine]
    if made(found["kills"]) < made(old) and not anyway:
        return f"{path} tells of {made(old)} kills, and stays: these were {made(found['kills'])} (ANYWAY=1 replaces it)"
    if part:
        both = found["kills"] + [k for k in there["kills"] if k not in old]
        order = [*SHARES]
        found = {
            "kills": sorted(both, key=lambda k: order.index((k["activity"], k["store"]))),
            "faults": found["faults"] or there["faults"],
        }
    path.write_text(json.dumps(told | found, indent=1) + "\n")
    (folder / PAGE).write_text(render(told | found))
    return f"{made(found['kills'])} kills stand in {path} and {folder / PAGE}"


def render(data):
    """The page."""
    kills = data["kills"]
    days = sorted({k["date"] for k in kills})
    head = _HEAD.format(
        **data, total=made(kills), days=" to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no day",
        minutes=round(sum(k["seconds"] for k in kills) / 60), seeds=", ".join({str(k["seed"]): None for k in kills}),
    )  # fmt: skip
    return "\n".join([head, *_kills(kills), *_stages(kills), *_faults(data["faults"]), _TAIL])


def _table(heads, rows):
    """A table whose first two columns are text."""
    align = ["---"] * 2 + ["---:"] * (len(heads) - 2)
    return ["| " + " | ".join(map(str, line)) + " |" for line in (heads, align, *rows)]


def _kills(kinds):
    def row(name, store, parts):
        paid = [sum(k[c] for k in parts) for c in ("twice", "cut")] if name in ("buy", "all") else ["", ""]
        counted = [sum(k[c] for k in parts) for c in ("lost", "doubled", "altered")]
        return [name, store, made(parts), sum(k["ended_before"] for k in parts), *counted, *paid]

    rows = [row(k["activity"], k["store"], [k]) for k in kinds]
    heads = ["Work", "Store", "Kills", "Ended before", "Rows lost", "Doubled", "Altered", "Paid twice", "Cut"]
    return [*_table(heads, [*rows, row("all", "", kinds)]), ""]


def _stages(kinds):
    rows = [[k["activity"], k["store"], *(k["kills"].get(stage, 0) for stage in STAGES)] for k in kinds]
    return [_STAGED, *_table(["Work", "Store", *map(str.capitalize, STAGES)], rows), ""]


def _faults(faults):
    rows = [[f["kind"], f["what"], f["store"], _outcome(f)] for f in faults]
    return [_FAULTS, *_table(["What fails", "How", "Store", "Tests passed"], rows), ""] if rows else []


def _outcome(fault):
    said = f"{fault['passed']} of {fault['tests']}"
    return f"{said} (skipped: {'; '.join(fault['reasons'])})" if fault["reasons"] else said


_HEAD = """\
<!-- Made by `make torture` of torture.json; do not edit. -->

# Kills and faults

`make torture` kills `hdi` with SIGKILL at random moments, runs the same command again, and compares what there is then
with a run that nobody disturbed: every row of every table, superseded and rejected rows, the ledger, coverage, names of
instruments, what the vendor said of its days, exported rejects, the vendor's bytes, and whether anything is left behind
(staged files, files that no commit names; sessions, locks and temporary tables of a server).
{total} kills were made on {days}, in {minutes} minutes of two processes together.

| Of | |
| --- | --- |
| hdi | {hdi} |
| Python | {python}, {platform} |
| Lake | {lake} |
| Server | {server} |
| Seeds | {seeds} |

## Kills

Half of the moments lie anywhere in the time that the work takes, half between one of its steps, whichever, and the
next, so that short stages are hit too. *Ended before* are those that were done when the moment came; they are not
counted as kills. Rows are counted by comparing them: *lost* are those that should be there and are not, *doubled* those
that are there more often than they should be, *altered* those that are there and never should be. *Paid twice* are
orders whose bytes had arrived and that were bought again, by the vendor's own books; *cut* those whose bytes were still
coming when the process died, which have to be bought again.
"""
_STAGED = """\
Where they hit: the last step that the process had told before it died. A commit of a lake writes rows and ledger as
one.
"""
_FAULTS = """\
## Faults

What becomes of the rows when something else fails than the process: these tests, too, compare what is stored
afterwards with what should be.
"""
_TAIL = """\
## Do it again

<!-- not executed: it takes an hour; tests/unit/test_torture.py shows that it counts, and what it writes -->

```sh
make torture                  # all of it
make torture KILLS=100        # fewer kills; this page stays
make torture PART=1 ARGS="-k replay"       # some of it; the rest of this page stays
make torture ARGS="--kill-seed SEED"       # the same moments, as far as a machine repeats itself
```

A kill that changes a row fails its test, and the failure names the seed, the attempt and the step; a run that fails
writes no page. `make test` has some of all of these kills. The figures are in [torture.json](torture.json).
"""


def main():
    """Render again what the JSON says."""
    (DOCS / PAGE).write_text(render(json.loads((DOCS / JSON).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

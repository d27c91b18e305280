"""``make fuzz SECONDS=60 [ONLY=dbn,yaml]``: every target for so many seconds; exit code 1 where one finds a defect."""

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from fuzz import servers
from fuzz.seeds import ROOT, SEEDS

FOUND = ROOT / "fuzz" / "found"
#: What a run may take before it counts as a hang, or as memory without bound.
LIMITS = ("-timeout=30", "-rss_limit_mb=3000", "-max_len=20000", "-len_control=0", "-print_final_stats=1")


def corpus(name: str) -> Path:
    """The folder of a target's inputs: the seeds, and what earlier runs kept."""
    folder = ROOT / "fuzz" / ".corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in SEEDS[name]():
        (folder / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)
    return folder


def fuzzed(name: str, flags: list[str]) -> tuple[int, str]:
    """The exit code of one fuzzer, and all that it said."""
    FOUND.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "fuzz.one", name, *LIMITS, *flags, f"-artifact_prefix={FOUND}/{name}-"]
    done = subprocess.run(
        [*command, str(corpus(name))], cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    return done.returncode, done.stderr


def main() -> int:
    """Run the fuzzers one after the other; the exit code."""
    asked = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    asked.add_argument("--seconds", type=int, default=60, help="For each target.")
    asked.add_argument("--runs", type=int, help="So many inputs for each target instead.")
    asked.add_argument("--only", default="", help="These targets, by commas.")
    given = asked.parse_args()
    named = [name for name in given.only.split(",") if name]
    names = named or list(SEEDS)
    without = [] if servers.there() else [name for name in names if name == "server"]
    if wrong := [name for name in names if name not in SEEDS]:
        asked.error(f"no target is called {wrong[0]}: there are {', '.join(SEEDS)}")
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed (it has wheels for Linux on x86-64); nothing was fuzzed", file=sys.stderr)
        return 2
    for name in without:
        print(f"{name:10} not run: {servers.NAMED} names no server", flush=True)
    if named and without:
        return 2
    names = [name for name in names if name not in without]
    flags = [f"-runs={given.runs}"] if given.runs else [f"-max_total_time={given.seconds}"]
    bad = 0
    for name in names:
        code, said = fuzzed(name, flags)
        found = re.search(r"number_of_executed_units:\s*(\d+)", said)
        runs = int(found[1]) if found else 0
        told = "DEFECT" if code else "nothing found" if runs else "DID NOT RUN"
        print(f"{name:10} {runs:>9} inputs  {told}", flush=True)
        if code or not runs:
            bad += 1
            print(said[-6_000:], file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

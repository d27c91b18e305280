"""Make a virtual environment with everything in requirements.lock, and the package itself in editable form.

Needs a Python of 3.11 or newer and nothing else: where Debian leaves ``ensurepip`` out, the pip of the
system's Python does the work, and where there is none, the pip that the lock names is fetched from the index
in ``PIP_INDEX_URL`` and checked against the lock.

    python3 scripts/bootstrap.py .venv
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HELP = (
    "This Python can neither make a virtual environment with pip in it nor run pip. On Debian and Ubuntu:\n"
    "    apt-get install python3-venv\n"
    "or set PIP_INDEX_URL to a package index, from which pip itself can then be fetched."
)


def main(folder: Path) -> None:
    """Make ``folder``; exits with a message when a step fails."""
    with_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, with_pip=with_pip, symlinks=True, clear=True)
    python = folder / "bin" / "python"
    if with_pip:
        install([str(python), "-m", "pip"])
    elif importlib.util.find_spec("pip"):
        install([sys.executable, "-m", "pip", "--python", str(python)])
    elif os.environ.get("PIP_INDEX_URL"):
        with tempfile.TemporaryDirectory() as temporary:
            wheel = fetch_pip(os.environ["PIP_INDEX_URL"], Path(temporary))
            install([str(python), f"{wheel}/pip"])
    else:
        sys.exit(HELP)


def install(pip: list[str]) -> None:
    """Install the lock, then the package without looking at its dependencies again."""
    for what in (["--require-hashes", "-r", str(LOCK)], ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]):
        done = subprocess.run([*pip, "install", "-qq", "--disable-pip-version-check", *what], check=False)
        if done.returncode:
            sys.exit(f"pip install {' '.join(what)} failed")


def fetch_pip(index: str, folder: Path) -> Path:
    """Download the wheel of pip that the lock names; exits unless its digest is in the lock."""
    pinned = re.search(r"^pip==(\S+)((?:.*\n\s+--hash=sha256:\w+)+)", LOCK.read_text(), re.MULTILINE)
    if pinned is None:
        sys.exit(f"{LOCK} does not name pip")
    name = f"pip-{pinned[1]}-py3-none-any.whl"
    page = f"{index.rstrip('/')}/pip/"
    links = re.findall(r'href="([^"]+)"', read(page).decode())
    link = next((link for link in links if name in link), None)
    if link is None:
        sys.exit(f"the index in PIP_INDEX_URL has no {name}")
    data = read(urllib.parse.urljoin(page, link))
    if hashlib.sha256(data).hexdigest() not in pinned[2]:
        sys.exit(f"{name} is not the file that {LOCK} names")
    (folder / name).write_bytes(data)
    return folder / name


def read(url: str) -> bytes:
    """What stands at an address of the index."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the user's own index, whatever its scheme
        return bytes(answer.read())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv"))

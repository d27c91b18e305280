"""Programs of a Debian release, unpacked into a folder of their own: nothing of the machine changes, nobody is root.

The release need not be the machine's own: every program is started through the loader that was unpacked with it.
What is trusted is Debian's signature on the release, from there digests down to each package.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import http.client
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
TRIES = 4
TIMEOUT = 30
Package = dict[str, str]
Say = Callable[[str], None]


class Unavailable(Exception):
    """The server cannot be had on this machine; the text says why, and what to do."""


def install(folder: Path, suite: str, packages: Sequence[str], *, signed: bool = True, say: Say = print) -> None:
    """``folder`` with the packages of that release and the shared libraries that they need; whole or not at all.

    One process at a time, for what others left half-done is removed.
    """
    architecture = _architecture()
    mirror, release = _release(_mirrors(), suite, signed=signed)
    index = _index(mirror, release, suite, architecture)
    chosen = _closure(index, packages)
    say(f"Unpacking {len(chosen)} packages of Debian {suite} into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(".unpacking-*"):
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as temporary:
        root = Path(temporary) / "root"
        root.mkdir(mode=0o755)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda package: _unpack(mirror, package, root), chosen))
        _wrap(root, TRIPLETS[architecture])
        listing = "".join(f"{p['Package']} {p['Version']} {p['SHA256']}\n" for p in chosen)
        (root / "packages.txt").write_text(listing, encoding="utf-8")
        root.rename(folder)


def _architecture() -> str:
    if platform.system() != "Linux":
        raise Unavailable(f"packages of Debian run on Linux, and this is {platform.system()}")
    missing = [name for name in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"this is not a Debian: it has no {', '.join(missing)}")
    name = run("dpkg", "--print-architecture").stdout.strip()
    if name not in TRIPLETS:
        raise Unavailable(f"the processor is {name}, and only {' and '.join(TRIPLETS)} are supported")
    return name


def _mirrors() -> list[str]:
    """The addresses that this machine's apt reads releases from, its own Debian first, without a slash at the end.

    Asked as "what would be fetched", for ``indextargets`` is silent until an update was made.
    """
    known = platform.freedesktop_os_release()
    done = run("apt-get", "update", "--print-uris")
    found = re.findall(r"^'([^']+)/dists/([^'/]+)/InRelease'", done.stdout, re.MULTILINE)
    own = (known.get("VERSION_CODENAME"), "stable", "oldstable", "testing", "unstable", "sid")
    mirrors = list(dict.fromkeys(mirror for mirror, suite in found if suite in own))
    if not mirrors:
        told = f": {done.stderr.strip().splitlines()[-1]}" if done.stderr.strip() else ""
        raise Unavailable(f"apt names no mirror of {known.get('PRETTY_NAME', 'this system')}{told}")
    return mirrors


def _release(mirrors: Sequence[str], suite: str, *, signed: bool) -> tuple[str, str]:
    """The first mirror that has the release, and the text that Debian signed."""
    why = []
    for mirror in mirrors:
        try:
            data = fetch(f"{mirror}/dists/{suite}/InRelease")
            text = _verified(data) if signed else data.decode()
        except Unavailable as error:
            why.append(str(error))
            continue
        if re.search(rf"^Codename: {suite}$", text, re.MULTILINE) and re.search(
            r"^Origin: Debian$", text, re.MULTILINE
        ):
            return mirror, text
        why.append(f"{mirror} has something else under the name of {suite}")
    raise Unavailable(f"no mirror of this machine's apt has Debian {suite}: {'; '.join(why)}")


def _verified(data: bytes) -> str:
    """The signed part of a release, once gpgv has found a good signature by Debian's archive keys."""
    if shutil.which("gpgv") is None or not KEYRING.is_file():
        what = "gpgv" if shutil.which("gpgv") is None else str(KEYRING)
        raise Unavailable(
            f"Debian's signature cannot be checked, for {what} is missing (apt-get install gpgv "
            "debian-archive-keyring; or --unsigned, which trusts the mirror and the network)"
        )
    with tempfile.TemporaryDirectory() as temporary:
        signed, text = Path(temporary) / "InRelease", Path(temporary) / "Release"
        signed.write_bytes(data)
        done = run("gpgv", "--keyring", str(KEYRING), "--output", str(text), str(signed))
        if done.returncode or not text.is_file():
            raise Unavailable(f"the release is not signed by Debian: {' '.join(done.stderr.split())}")
        return text.read_text(encoding="utf-8")


def _index(mirror: str, release: str, suite: str, architecture: str) -> dict[str, Package]:
    """The packages of the release by name, and by what they provide."""
    name = f"main/binary-{architecture}/Packages.xz"
    digest = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(name)}$", release, re.MULTILINE)
    if digest is None:
        raise Unavailable(f"the release {suite} has no packages for {architecture}")
    text = lzma.decompress(fetch(f"{mirror}/dists/{suite}/{name}", digest[1])).decode()
    packages: dict[str, Package] = {}
    provided: dict[str, Package] = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if line[0] not in " \t" and ": " in line)
        if fields:
            packages[fields["Package"]] = fields
            provided |= {word.split()[0]: fields for word in fields.get("Provides", "").split(",") if word.strip()}
    return provided | packages


def _closure(index: dict[str, Package], packages: Sequence[str]) -> list[Package]:
    """Those packages and the libraries they need: no LLVM (for a compiler that is off), no Perl, no scripts."""
    absent = [name for name in packages if name not in index]
    if absent:
        raise Unavailable(f"the release lacks {', '.join(absent)}")
    chosen: dict[str, Package] = {}
    todo = list(packages)
    while todo:
        package = index.get(todo.pop())
        if package is None or package["Package"] in chosen or package["Package"].startswith("libllvm"):
            continue
        chosen[package["Package"]] = package
        for entry in f"{package.get('Depends', '')},{package.get('Pre-Depends', '')}".split(","):
            name = re.match(r"\s*((?:lib|zlib)[a-z0-9.+-]+)", entry)
            todo += [name[1]] if name else []
    return [chosen[name] for name in sorted(chosen)]


def _unpack(mirror: str, package: Package, root: Path) -> None:
    deb = root.parent / f"{package['Package']}.deb"
    deb.write_bytes(fetch(f"{mirror}/{package['Filename']}", package["SHA256"]))
    done = run("dpkg-deb", "-x", str(deb), str(root))
    if done.returncode:
        raise Unavailable(f"{package['Package']} was not unpacked: {done.stderr.strip()}")
    deb.unlink()


def _wrap(root: Path, triplet: str) -> None:
    """Start each program through the loader and the libraries beside it, wherever the folder is moved to."""
    libraries = root / "usr" / "lib" / triplet
    loader = next(libraries.glob("ld-linux*.so.*"), None)
    if loader is None:
        raise Unavailable(f"the release has no loader in {libraries.relative_to(root)}")
    for program in _programs(root):
        up = os.path.relpath(libraries, program.parent)
        real = program.rename(program.with_name(f"{program.name}.elf"))
        program.write_text(
            f'#!/bin/sh\nhere="${{0%/*}}"\nlib="$here/{up}"\n'
            f'exec "$lib/{loader.name}" --library-path "$lib" --argv0 "$0" "$here/{real.name}" "$@"\n',
            encoding="utf-8",
        )
        program.chmod(0o755)


def _programs(root: Path) -> Iterator[Path]:
    for folder in (root / "usr" / "lib" / "postgresql").glob("*/bin"):
        for path in sorted(folder.iterdir()):
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def fetch(url: str, sha256: str | None = None) -> bytes:
    """What stands at an address, of that digest; tried a few times, for mirrors are changed while they are read."""
    for left in range(TRIES - 1, -1, -1):
        try:
            with _opener().open(url, timeout=TIMEOUT) as answer:
                data = bytes(answer.read())
            if sha256 in (None, hashlib.sha256(data).hexdigest()):
                return data
            why = "its digest is not the one that the release names"
        except urllib.error.HTTPError as error:
            why = f"HTTP status {error.code}"
            if error.code in (401, 403, 404, 410):
                break
        except (OSError, http.client.HTTPException) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        if left:
            time.sleep(2.0 ** (TRIES - 2 - left))
    raise Unavailable(f"{url}: {why}")


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a program said in English, and how it ended; nobody's settings of libpq count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment = kept | {"LC_ALL": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """One that goes through the proxy that apt is told to use, or else through those of the environment."""
    proxies = urllib.request.getproxies()
    for scheme in ("http", "https"):
        done = run("apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy")
        named = re.match(r"proxy='([^']+)'", done.stdout)
        if named and named[1] != "DIRECT":
            proxies[scheme] = named[1]
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

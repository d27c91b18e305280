"""A PostgreSQL with TimescaleDB of one's own: got from Debian, started, stopped, killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from debian_packages import Say, Unavailable, install, run

ROOT = Path(__file__).resolve().parent.parent
SUITE, MAJOR = "trixie", 17
PACKAGES = (f"postgresql-{MAJOR}", f"postgresql-client-{MAJOR}", f"postgresql-{MAJOR}-timescaledb")
OLDEST = 15
#: Below the ports that systems lend to outgoing connections (from 32768), so that none takes one between two starts.
PORT, PORTS = 25433, 100
PORT_LINE = 3  # of postmaster.pid
#: In the home of a server that a test run started, and that the last test run ends.
BY_TESTS = "started-by-tests"
PATIENCE = 60.0
SETTINGS = {
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "lz4",
    "max_connections": "200",
    # A query locks every chunk that it looks at, and so does dropping a table.
    "max_locks_per_transaction": "256",
    "jit": "off",
    "fsync": "on",
    # The Apache edition has no jobs of its own but telemetry; its workers only keep databases from being copied.
    "timescaledb.telemetry_level": "off",
    "timescaledb.max_background_workers": "0",
}
FIXED = {
    "listen_addresses": "127.0.0.1",
    # None: their paths may not be long, and a folder of tests is.
    "unix_socket_directories": "",
    "shared_preload_libraries": "timescaledb,pg_stat_statements",
}


class Server:
    """A server whose data lies in ``home``; ``programs`` is where its programs are, or are unpacked to.

    Several servers can share ``programs``. Without a port it takes the one it had before, or the first that is free.
    """

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        *,
        programs: Path | None = None,
        signed: bool = True,
        say: Say = print,
    ) -> None:
        self.home = home.resolve()
        self.programs = (programs or self.home / f"pg{MAJOR}").resolve()
        self.ports = range(PORT, PORT + PORTS)
        self._port, self._signed, self._say = port, signed, say
        self._account = account()
        self._held = 0

    @property
    def data(self) -> Path:
        """The folder of the data, and of the server's log."""
        return self.home / f"data{self._major}"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    @property
    def pid(self) -> int | None:
        """The number of the server's first process; None when it does not run."""
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        return pid if str(self.data) in _words(pid) else None

    @property
    def port(self) -> int:
        """Where it listens, or listened last. Raises Unavailable when it never did."""
        with contextlib.suppress(IndexError):
            return int(self._pid_file()[PORT_LINE])
        if self._port is None:
            raise Unavailable(f"no server of {self.home} runs")
        return self._port

    def dsn(self, dbname: str = "postgres") -> str:
        """The URL of a database of this server, for its superuser."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}"

    def install(self) -> None:
        """Unpack the programs, unless that is done or the system has its own. Raises Unavailable."""
        if installed() or self.programs.is_dir():
            return
        if not Path("/usr/share/zoneinfo/UTC").exists():
            raise Unavailable("the server needs the time zones of the system: apt-get install tzdata")
        make_folder(self.programs.parent)
        with _locked(self.programs.parent / "install.lock"):
            if not self.programs.is_dir():
                install(self.programs, SUITE, PACKAGES, signed=self._signed, say=self._say)

    def start(self, **settings: str) -> str:
        """The server runs, with those settings over the usual ones; its DSN. A dot in a name is written ``__``."""
        make_folder(self.home)
        if self._account is not None and not may_enter(self._account, self.home):
            who = pwd.getpwuid(self._account).pw_name
            raise Unavailable(f"{self.home} lies where {who}, whom the server runs as, may not go")
        self.install()
        chosen = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()} | FIXED
        text = "".join("{} = '{}'\n".format(name, value.replace("'", "''")) for name, value in chosen.items())
        with self.locked():
            if self.pid is None:
                self._prepare()
                self._launch(text)
            elif settings and text not in self._configuration().read_text(encoding="utf-8"):
                raise Unavailable("the server runs with other settings: stop it first")
            self._port = self.port
        return self.dsn()

    def stop(self) -> bool:
        """The server has ended in good order; False when it did not run."""
        with self.locked():
            if self.pid is None:
                return False
            done = self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "-t", f"{PATIENCE:.0f}", "stop")
            if done.returncode:
                raise Unavailable(f"the server does not stop: {done.stdout}{done.stderr}")
        return True

    def kill(self) -> None:
        """Every process of the server is gone at once, as when the machine fails: nothing is written or said."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)  # so that it starts no more while they are counted
        family = [pid, *_children(pid)]
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        _wait(lambda: not any(_alive(member) for member in family), "processes of the server do not die")
        if Path(f"/proc/{pid}").exists():
            # Where nobody buries the dead (the first process of some containers) a restart would take it for alive.
            (self.data / "postmaster.pid").unlink()

    def wipe(self) -> None:
        """The data are gone; the programs stay."""
        self.stop()
        with self.locked():
            for folder in self.home.glob("data*"):
                shutil.rmtree(folder)

    def sql(self, text: str, dbname: str = "postgres") -> str:
        """What ``psql`` prints for those commands, unaligned."""
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(dbname))
        done = self._run("psql", *options, input=text)
        if done.returncode:
            raise Unavailable(done.stderr.strip())
        return done.stdout.strip()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else starts or stops this server meanwhile."""
        with contextlib.ExitStack() as stack:
            if not self._held:
                make_folder(self.home)
                stack.enter_context(_locked(self.home / "lock"))
            self._held += 1
            stack.callback(self._release)
            yield

    def _release(self) -> None:
        self._held -= 1

    @property
    def _bin(self) -> Path:
        return installed() or self.programs / "usr" / "lib" / "postgresql" / str(MAJOR) / "bin"

    @property
    def _major(self) -> str:
        return self._bin.parent.name

    def _configuration(self) -> Path:
        return self.data / "hdi.conf"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError:
            raise Unavailable(f"the server in {self.home} is another user's") from None

    def _run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A program of the server, by the user who may run it: PostgreSQL refuses to be run by root."""
        if self._account is not None:
            entry = pwd.getpwuid(self._account)
            options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return run(str(self._bin / program), *arguments, cwd="/", **options)

    def _prepare(self) -> None:
        """Make the data folder, under another name until it is whole."""
        if (self.data / "PG_VERSION").is_file():
            return
        for stale in self.home.glob(".new-*"):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.home) as temporary:
            Path(temporary).chmod(0o755)
            new = Path(temporary) / "data"
            new.mkdir(mode=0o700)
            if self._account is not None:
                os.chown(new, self._account, pwd.getpwuid(self._account).pw_gid)
            done = self._run(
                "initdb", "-D", str(new), "-A", "trust", "-U", "postgres", "--locale=C.UTF-8", "-E", "UTF8", "-N"
            )
            if done.returncode:
                raise Unavailable(f"initdb failed: {done.stdout}{done.stderr}")
            (new / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n", encoding="utf-8")
            with (new / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write("include = 'hdi.conf'\n")
            new.rename(self.data)

    def _launch(self, text: str) -> None:
        """Start on the first port that is free; a port that somebody takes meanwhile is passed over."""
        for port in self._ports():
            self._configuration().write_text(f"port = {port}\n{text}", encoding="utf-8")
            self._configuration().chmod(0o644)
            before = self.log.stat().st_size if self.log.exists() else 0
            limit = f"{PATIENCE:.0f}"
            done = self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-t", limit, "start")
            if not done.returncode:
                return
            said = self.log.read_bytes()[before:].decode(errors="replace") if self.log.exists() else done.stderr
            if "could not bind" not in said:
                raise Unavailable(f"the server did not start:\n{said[-2000:]}")
        which = f"port {self._port}" if self._port else f"each port from {self.ports.start} to {self.ports.stop - 1}"
        raise Unavailable(f"{which} of 127.0.0.1 is taken")

    def _ports(self) -> Iterator[int]:
        if self._port is not None:
            yield self._port
            return
        conf = self._configuration()
        before = re.match(r"port = (\d+)", conf.read_text(encoding="utf-8")) if conf.exists() else None
        wanted = dict.fromkeys([*([int(before[1])] if before else []), *self.ports])
        yield from (port for port in wanted if is_free(port))


def installed() -> Path | None:
    """The programs of the newest PostgreSQL of the system that has TimescaleDB; None where there is none."""
    found = {}
    for control in Path("/usr/share/postgresql").glob("*/extension/timescaledb.control"):
        folder = Path("/usr/lib/postgresql") / control.parts[-3] / "bin"
        if control.parts[-3].isdigit() and (folder / "initdb").exists():
            found[int(control.parts[-3])] = folder
    return found[max(found)] if found and max(found) >= OLDEST else None


def account() -> int | None:
    """Whom the server runs as where root starts it: ``postgres``, or else ``nobody``; None: as who starts it."""
    if os.getuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise Unavailable("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def may_enter(uid: int, folder: Path) -> bool:
    """True when that user can go into the folder, or into the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    entry = pwd.getpwuid(uid)
    who: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return not run("/bin/sh", "-c", 'cd "$1"', "sh", str(folder), **who).returncode


def usual_home(say: Say = print) -> Path:
    """``.timescaledb`` of the repository; below ``/var/tmp`` where the server's user cannot go there."""
    home, uid = ROOT / ".timescaledb", account()
    if uid is None or may_enter(uid, home):
        return home
    other = Path(f"/var/tmp/hdi-timescaledb-{os.getuid()}")  # noqa: S108 - it is looked at before it is used
    say(f"{home} lies where {pwd.getpwuid(uid).pw_name}, whom the server runs as, may not go; {other} is used")
    make_folder(other)
    state = other.lstat()
    if other.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise Unavailable(f"{other} is not this user's alone")
    return other


def make_folder(folder: Path) -> None:
    """The folder, which the server's user can read whatever the umask."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be made: {error.strerror}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        file = path.open("a")
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_free(port: int) -> bool:
    """True when nobody listens there on 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process; nothing when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _words(pid: int) -> list[str]:
    """The command line of a living process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0") if _alive(pid) else []
    except (FileNotFoundError, ProcessLookupError):
        return []


def _children(pid: int) -> list[int]:
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [number for number in numbers if _stat(number)[1:2] == [str(pid)]]


def _wait(done: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise Unavailable(otherwise)
        time.sleep(0.005)

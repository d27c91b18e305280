"""Getting, starting and killing a server: scripts/timescaledb.py and what it is made of."""

import contextlib
import http.server
import platform
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from lzma import compress
from pathlib import Path

import psycopg
import pytest

from servers import Databases, Server, Unavailable

import debian_packages  # isort: skip  (servers knows where it is)

SCRIPT = Path(__file__).parents[2] / "scripts" / "timescaledb.py"
SUITE = "trixie"
debian = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages of Debian are unpacked on Debian")


def ask(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def test_a_server_that_runs_is_not_started_again_and_takes_no_other_settings(private_server) -> None:
    server = private_server()
    dsn = server.start(fsync="off", work_mem="5MB")
    pid = server.pid
    assert server.start() == dsn
    assert Server(server.home, programs=server.programs).start() == dsn
    assert server.pid == pid
    assert ask(dsn, "SHOW work_mem") == [("5MB",)]
    assert ask(dsn, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert ask(dsn, "SELECT auth_method, address FROM pg_hba_file_rules") == [("trust", "127.0.0.1")]
    assert ask(dsn, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'TimescaleDB%'") == [(0,)]
    with pytest.raises(Unavailable, match="other settings"):
        server.start(work_mem="6MB")
    assert server.stop()
    assert not server.stop()
    assert server.pid is None


def test_two_starts_at_once_make_one_server(private_server) -> None:
    first = private_server()
    second = Server(first.home, programs=first.programs)
    second.ports = first.ports
    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(lambda server: server.start(fsync="off"), (first, second)))
    assert started[0] == started[1]
    assert first.pid == second.pid


def test_a_killed_server_leaves_no_process_and_comes_back_with_what_was_committed(private_server) -> None:
    first, second = sorted((private_server(), private_server()), key=lambda made: made.port)
    server = Server(second.home, programs=second.programs)
    server.ports = range(first.port, second.port + 1, second.port - first.port)  # two, which are kept for these tests
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first.port))
        taken.listen()
        dsn = server.start()
        assert server.port == second.port
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS a")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        backend = connection.info.backend_pid
        family = [server.pid, backend]
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert server.pid is None
    for pid in family:
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert server.start() == dsn
    assert ask(dsn, "SELECT a FROM kept") == [(1,)]


def script(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


@debian
def test_the_script_says_where_no_server_runs_and_what_it_does_not_know(tmp_path) -> None:
    for command in ("status", "dsn"):
        done = script(command, "--home", tmp_path)
        assert done.returncode == 3
        assert f"no server of {tmp_path} runs" in done.stdout + done.stderr
    assert script("stop", "--home", tmp_path).stdout == "it was not running\n"
    assert script("restart").returncode == 2


def fill(url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS a")


def test_databases_of_a_run_are_its_own_and_are_gone_after_it(databases) -> None:
    name = uuid.uuid4().hex[:8]
    with contextlib.closing(Databases(databases.dsn, name)) as run:
        empty, filled, again = run.fresh(), run.fresh("filled", fill), run.fresh("filled", fill)
        assert ask(filled, "DELETE FROM t RETURNING a") == ask(again, "SELECT a FROM t") == [(7,)]
        assert ask(empty, "SELECT to_regclass('t'), extname FROM pg_extension WHERE extname = 'timescaledb'") == [
            (None, "timescaledb")
        ]
        with pytest.raises(LookupError):
            run.fresh("unheard")
    query = f"SELECT datname FROM pg_database WHERE starts_with(datname, 'hdi_test_{name}')"
    assert ask(databases.dsn, query) == []


class Mirror:
    """Packages in a folder that this machine's apt is told to take for its mirror."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "mirror"
        self.index = []
        self.pool = self.folder / "pool"
        self.pool.mkdir(parents=True)
        codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
        (folder / "sources.list").write_text(f"deb [trusted=yes] file:{self.folder} {codename} main\n")
        (folder / "apt.conf").write_text(
            f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "{folder}/none";\n'
        )
        monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))

    def add(self, name, files, depends=""):
        """A package with those files, by path in it."""
        root = self.pool / name
        (root / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
        (root / "DEBIAN" / "control").write_text(control)
        for path, source in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / path)
        deb = self.pool / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Zgzip", "--root-owner-group", "-b", root, deb], check=True, capture_output=True)
        digest = sha256(deb.read_bytes()).hexdigest()
        more = f"Depends: {depends}\n" if depends else ""
        self.index.append(f"{control}{more}Filename: pool/{name}.deb\nSHA256: {digest}\n")

    def publish(self, *, codename=SUITE, origin="Debian"):
        """The release as it stands, signed by nobody."""
        architecture = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
        name = f"main/binary-{architecture.stdout.strip()}/Packages.xz"
        packed = compress("\n".join(self.index).encode())
        release = self.folder / "dists" / SUITE
        (release / name).parent.mkdir(parents=True)
        (release / name).write_bytes(packed)
        lines = [f"Origin: {origin}", f"Codename: {codename}", "SHA256:"]
        text = "\n".join([*lines, f" {sha256(packed).hexdigest()} {len(packed)} {name}", ""])
        (release / "InRelease").write_text(text)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with one program, the library it needs, and a loader."""
    monkeypatch.setattr(debian_packages, "TRIES", 1)
    made = Mirror(tmp_path, monkeypatch)
    triplet = debian_packages.TRIPLETS[
        subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    ]
    (loader,) = Path(f"/lib/{triplet}").glob("ld-linux*.so.*")
    libraries = {f"usr/lib/{triplet}/{path.name}": path for path in (loader, Path(f"/lib/{triplet}/libc.so.6"))}
    made.add("libmade", libraries, depends="perl")
    made.add("unwanted", {"usr/share/unwanted": __file__})
    made.add("program", {"usr/lib/postgresql/17/bin/say": "/bin/echo"}, depends="libmade (>= 1) | other, unwanted")
    return made


def unpack(folder, *, signed=False, packages=("program",)):
    debian_packages.install(folder, SUITE, packages, signed=signed, say=lambda _: None)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@debian
def test_programs_come_with_their_libraries_and_run_through_their_own_loader(mirror, tmp_path) -> None:
    mirror.publish()
    unpack(tmp_path / "home" / "root")
    assert names(tmp_path / "home") == ["root"]
    moved = (tmp_path / "home" / "root").rename(tmp_path / "moved to")
    said = subprocess.run(
        [moved / "usr/lib/postgresql/17/bin/say", "a b", "c"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "a b c\n"
    assert [line.split()[0] for line in (moved / "packages.txt").read_text().splitlines()] == ["libmade", "program"]


@debian
@pytest.mark.skipif(shutil.which("gpgv") is None, reason="signatures are checked with gpgv")
def test_a_release_that_debian_has_not_signed_is_refused(mirror, tmp_path) -> None:
    mirror.publish()
    with pytest.raises(Unavailable, match=r"not signed by Debian|cannot be checked"):
        unpack(tmp_path / "home" / "root", signed=True)
    assert not (tmp_path / "home").exists()


@debian
@pytest.mark.parametrize("other", [{"codename": "sid"}, {"origin": "Somebody"}])
def test_a_release_under_another_name_is_refused(mirror, tmp_path, other) -> None:
    mirror.publish(**other)
    with pytest.raises(Unavailable, match="something else under the name"):
        unpack(tmp_path / "home" / "root")


@debian
def test_a_package_that_is_not_the_one_of_the_release_leaves_nothing_and_the_next_try_is_whole(
    mirror, tmp_path
) -> None:
    mirror.publish()
    deb = mirror.pool / "libmade.deb"
    good = deb.read_bytes()
    deb.write_bytes(good + b"more")
    (tmp_path / "home" / ".unpacking-killed" / "root").mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"libmade\.deb: its digest"):
        unpack(tmp_path / "home" / "root")
    assert names(tmp_path / "home") == []
    deb.write_bytes(good)
    unpack(tmp_path / "home" / "root")
    assert names(tmp_path / "home") == ["root"]


@debian
def test_what_the_mirror_lacks_is_named(mirror, tmp_path) -> None:
    with pytest.raises(Unavailable, match=f"no mirror of this machine's apt has Debian {SUITE}"):
        unpack(tmp_path / "root")
    mirror.publish()
    with pytest.raises(Unavailable, match="the release lacks absent"):
        unpack(tmp_path / "root", packages=("program", "absent"))


class Flaky(http.server.BaseHTTPRequestHandler):
    """Fails at first, then breaks off, then answers."""

    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(503 if self.asked == 1 else 404 if "absent" in self.path else 200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"da" if self.asked == 2 else b"data")

    def log_message(self, *_):
        pass


@debian
def test_a_download_that_fails_is_tried_again_but_not_what_does_not_exist(monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    Flaky.asked = 0
    with http.server.HTTPServer(("127.0.0.1", 0), Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert debian_packages.fetch(f"{address}/there", sha256(b"data").hexdigest()) == b"data"
        assert Flaky.asked == 3
        with pytest.raises(Unavailable, match="HTTP status 404"):
            debian_packages.fetch(f"{address}/absent")
        assert Flaky.asked == 4
        server.shutdown()

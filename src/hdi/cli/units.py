"""The schedule for other schedulers: a systemd unit, and the lines of a crontab."""

from __future__ import annotations

import glob
import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hdi.errors import RequestError, masked

if TYPE_CHECKING:
    from hdi.jobs import Job
    from hdi.settings import Settings

_DOTENV = ".env"
#: Variables of others that hdi's libraries read.
_OTHERS = (
    "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "PGUSER", "PGSSLMODE",
    "PGSSLROOTCERT",
)  # fmt: skip
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  (where nothing is put: it is looked whether somebody does)


@dataclass(frozen=True)
class Program:
    """How this program is run: its words, the folder it works in, the environment that it needs.

    ``secrets`` are variables that are set here and are not written anywhere.
    """

    words: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    secrets: tuple[str, ...]

    @property
    def dotenv(self) -> Path:
        """The file that secrets belong in."""
        return self.folder / _DOTENV


def program(settings: Settings, store: str | None) -> Program:
    """The present program with its settings, by absolute paths; ``store`` is the option ``--store`` if it was given."""
    from hdi.settings import describe

    words = list(_itself())
    if store is not None and masked(settings.store) == settings.store:
        words += ["--store", settings.store]
    if settings.config_dir is not None:
        words += ["--config-dir", str(settings.config_dir)]
    known = [each.env for each in describe() if each.env and each.env not in ("HDI_CONFIG_DIR", "NO_COLOR")]
    given = {name: os.environ[name] for name in (*known, *_OTHERS) if os.environ.get(name)}
    hidden = {name for name, value in given.items() if masked(value) != value or name.endswith(("_KEY", "_PASSWORD"))}
    environment = {n: v for n, v in given.items() if n not in hidden} | {"HDI_DATA_DIR": str(settings.data_dir)}
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PGSSLROOTCERT"):
        if name in environment and Path(environment[name]).exists():
            environment[name] = str(Path(environment[name]).absolute())
    if "--store" in words:
        environment.pop("HDI_STORE", None)
    secrets = sorted(hidden | ({"--store"} if store is not None and "--store" not in words else set()))
    return Program(tuple(words), Path.cwd(), environment, tuple(secrets))


def _itself() -> Iterator[str]:
    path = Path(sys.argv[0])
    found = path.absolute() if path.is_file() else Path(shutil.which(sys.argv[0]) or "")
    if found.suffix == ".py" and found.name != "__main__.py" and found.is_file():
        yield from (sys.executable, str(found))
    elif found.is_file() and found.name != "__main__.py" and os.access(found, os.X_OK):
        yield str(found)
    else:
        yield from (sys.executable, "-m", "hdi")


def systemd(settings: Settings, store: str | None, options: Sequence[str]) -> tuple[str, list[str]]:
    """A complete unit that runs ``hdi schedule`` with these options, and what has to be done beside it."""
    it = program(settings, store)
    folders = [settings.data_dir, settings.dlq_dir, settings.log.dir]
    if settings.store.startswith("lake:"):
        folders.append(Path(settings.store.removeprefix("lake:")))
    there = sorted({_existing(folder) for folder in folders})
    writable = [path for path in there if not any(path != other and path.is_relative_to(other) for other in there)]
    files = [it.folder, *writable, *map(Path, it.words), *map(Path, it.environment.values())]
    temporary = any(path.is_relative_to(t) for path in files if path.is_absolute() for t in _TEMPORARY)
    command = " ".join(_word(w, dollar=True) for w in (*it.words, "schedule", *options))
    lines = [
        "[Unit]",
        "Description=hdi: keeps historical market data up to date, by the cron lines of its jobs",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"User={_percent(pwd.getpwuid(os.geteuid()).pw_name)}",
        f"WorkingDirectory={_percent(str(it.folder))}",
        f"EnvironmentFile=-{_percent(glob.escape(str(it.dotenv)))}",
        *(f"Environment={_word(f'{name}={value}', always=True)}" for name, value in sorted(it.environment.items())),
        f"ExecStart={command}",
        "Restart=on-failure",
        "RestartSec=60",
        "# A wrong setting stays wrong.",
        "RestartPreventExitStatus=2",
        "KillMode=mixed",
        "TimeoutStopSec=60",
        "UMask=0077",
        "NoNewPrivileges=yes",
        f"PrivateTmp={'no' if temporary else 'yes'}",
        "PrivateDevices=yes",
        "ProtectSystem=strict",
        *(f"ReadWritePaths={_word(str(folder), always=True)}" for folder in writable),
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines), _notes(it)


def crontab(
    settings: Settings, store: str | None, jobs: Sequence[Job], options: Sequence[str]
) -> tuple[str, list[str]]:
    """A line of a crontab for each job, and what has to be done beside it.

    Raises RequestError for a cron line that crontabs do not know.
    """
    it = program(settings, store)
    before = f"cd {shlex.quote(str(it.folder))} && env " + " ".join(
        shlex.quote(f"{name}={value}") for name, value in sorted(it.environment.items())
    )
    lines = [
        "# A cron that does not know CRON_TZ (Debian's) takes the times to be those of the machine's own time zone.",
    ]
    zone = ""
    for job in jobs:
        cron = job.slots
        if cron is None:
            continue
        if not cron.portable:
            raise RequestError(
                f"{job.where or job.name}: {cron.line!r} says what no crontab knows (L, #, or a step without a range)",
                "hdi schedule knows it: run that, by hdi schedule --systemd for example.",
            )
        if cron.timezone != zone:
            zone = cron.timezone
            lines.append(f"CRON_TZ={zone}")
        command = f"{before} {shlex.join([*it.words, 'sync', *options, job.name])}"
        if "\n" in command:
            raise RequestError("a path or variable with a line break cannot stand in a crontab", "Rename it.")
        lines.append(f"{cron.line} {command.replace('%', chr(92) + '%')}")
    return "\n".join(lines), _notes(it)


def _notes(it: Program) -> list[str]:
    """What is set here and does not go with the text."""
    from dotenv import dotenv_values

    kept = dotenv_values(it.dotenv, interpolate=False) if it.dotenv.is_file() else {}
    names = {"--store": "HDI_STORE"}
    notes = [
        f"{names.get(name, name)} is a secret and is not written here: it must stand in {it.dotenv} (mode 0600)"
        for name in it.secrets if names.get(name, name) not in kept
    ]  # fmt: skip
    return notes + [
        f"{name} is {kept[name]} in {it.dotenv}, and {value} here: under systemd the file wins"
        for name, value in it.environment.items() if kept.get(name) not in (None, "", value)
    ]  # fmt: skip


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists: there it can be made."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str, *, dollar: bool = False, always: bool = False) -> str:
    """One word as systemd reads it."""
    told = _percent(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    if dollar:
        told = told.replace("$", "$$")
    plain = text and not always and not set(text) & set(" \t\n\"'\\;")
    return told if plain else f'"{told}"'


__all__ = ["Program", "crontab", "program", "systemd"]

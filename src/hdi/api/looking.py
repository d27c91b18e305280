"""Whether all is well with settings, folders, store and vendor, and how a folder begins."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hdi.api.keeping import Keeping

if TYPE_CHECKING:
    from hdi.configuring import Checked, Value, Written
    from hdi.model import Finding


class Looking(Keeping):
    """Looks, and changes nothing but the files of a new folder."""

    @classmethod
    def check_config(cls, config_dir: Path | str | None = None, **flags: Any) -> Checked:
        """Everything that is wrong in settings, ``.env``, the environment and all YAML files, at once.

        The arguments are those of :meth:`open`. Nothing is raised for what is wrong.
        """
        from hdi.configuring import check
        from hdi.sources.records import columns

        folder = Path(config_dir) if config_dir is not None else None
        return check(folder, flags, vendor_columns=columns)

    @classmethod
    def diagnose(
        cls, store: str | None = None, config_dir: Path | str | None = None, *, offline: bool = False, **flags: Any
    ) -> Iterator[Finding]:
        """What ``hdi doctor`` looks at, one by one; settings that are wrong are a finding. Nothing is billed.

        ``offline`` asks no vendor.
        """
        from hdi import logs
        from hdi.doctor import diagnose

        checked = cls.check_config(config_dir, store=store, **flags)
        if checked.settings is None:
            yield from diagnose(checked, Path.cwd(), _unopened, _unopened, offline=offline)
            return
        logs.configure(checked.settings)
        with cls(checked.settings) as data:
            yield from diagnose(checked, Path.cwd(), data.store, data.source, offline=offline)

    def config_values(self, wanted: Collection[str] = ()) -> list[Value]:
        """Every setting with its value (secrets masked) and where it came from; ``wanted`` are keys or groups.

        RequestError for what there is none of.
        """
        from hdi.configuring import values

        return values(self.settings, wanted)

    @staticmethod
    def write_config(
        folder: Path | str = ".", *, store: str | None = None, key: str | None = None, force: bool = False
    ) -> list[Written]:
        """Write the files of a config folder and ``.env``, commented, for their owner alone.

        A file that is there and differs stays; ``force`` puts it aside first. ``store`` and the vendor's ``key`` go
        into ``.env``: RequestError where another one is there that would stay, and for a key of the wrong form;
        ConfigError for a store of the wrong form.
        """
        from hdi import configuring
        from hdi.errors import RequestError
        from hdi.settings import load
        from hdi.sources.databento_gateway import check_key

        place = Path(os.path.normpath(Path.cwd() / folder))
        given: dict[str, str] = {}
        if store:
            load(env={}, flags={"store": store}, cwd=place)
            given["HDI_STORE"] = store
        if key:
            given["DATABENTO_API_KEY"] = check_key(key)
        if given and not force and configuring.env_stays(place, given):
            raise RequestError(
                f"{place / configuring.ENV} is there already, and stays",
                "Write the store and the key into it yourself, or have it put aside with --force.",
            )
        return configuring.write(place, force=force, given=given)

    def test_api(self, api: str = "databento", *, verbose: bool = False) -> dict[str, Any]:
        """Really ask a vendor: whether the key is taken, what it opens, how fast, and what is left of its limits.

        ``verbose`` also asks for what is available of the datasets of jobs. Raises what the vendor refuses with.
        """
        from hdi.doctor.trial import tried

        return tried(self.settings, api, self.source(api), self.jobs().values() if verbose else (), verbose=verbose)


def _unopened() -> NoReturn:
    raise AssertionError("nothing is opened where the settings cannot be read")


__all__ = ["Looking"]

"""Calls through the vendor's own client: limited, tried again, with errors as ours."""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from hdi.errors import AccountRefused, HdiError, VendorUnavailable
from hdi.sources import Allowance, Reached, Unanswered, breaker
from hdi.sources.breaker import Breaker
from hdi.sources.databento_gateway import Gateway, check_key
from hdi.sources.databento_reach import reach
from hdi.sources.databento_refusals import Ask, judge
from hdi.sources.limits import Limiter, shared, slots
from hdi.sources.retries import Retries, Transient

if TYPE_CHECKING:
    from databento import Historical

T = TypeVar("T")

#: What the vendor publishes, per account.
PER_SECOND = {"timeseries": 100, "symbology": 100, "metadata": 20, "batch.list_jobs": 20}
PER_MINUTE = {"batch.submit_job": 20}
CONNECTIONS = 100
#: A hold-up that is worth telling a person about, in seconds.
_NOTEWORTHY = 1.0


class Calls:
    """The vendor's client for one key and gateway. Threads may share it; the client is made at the first call.

    ``timeout`` is seconds for a connection, and for each wait for more bytes.
    """

    def __init__(self, key: str | None, gateway: Gateway, retries: Retries, timeout: float) -> None:
        self.gateway = gateway
        self._given = key
        self._retries = retries
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: Historical | None = None

    @property
    def breaker(self) -> Breaker:
        """What keeps calls from leaving after the account was refused."""
        return breaker.shared(self.gateway.url, check_key(self._given))

    @property
    def account(self) -> str:
        """A name of the key at the gateway that does not tell it."""
        return hashlib.sha256(f"{self.gateway.url} {check_key(self._given)}".encode()).hexdigest()[:16]

    def allowances(self) -> list[Allowance]:
        """What is left of the limits, by this process's count."""
        return [Allowance(family, *left) for family, left in self._limiter.left().items()]

    def check_key(self) -> None:
        """RequestError where the key is not one."""
        check_key(self._given)

    def reach(self) -> Reached:
        """See :meth:`hdi.sources.Diagnosed.reach`."""
        return reach(self.gateway, self._timeout)

    def make(self, ask: Ask, work: Callable[[Historical], T], *, once: bool = False, sure: bool = False) -> T:
        """What ``work`` returns for the client; it is tried again where that may help, unless ``once``.

        With ``sure`` only when it is sure that nothing has happened; otherwise Unanswered is raised. Raises
        VendorUnavailable when no try was answered, and what :func:`judge` makes of a refusal.
        """
        key = check_key(self._given)
        client = self._open(key)

        def attempt() -> T:
            try:
                return self._once(ask, work, client, key)
            except Transient as trouble:
                if sure and not trouble.undone:
                    raise Unanswered(
                        f"{ask}: whether {self.gateway.url} has done it is not known: {trouble.reason}", trouble.hint
                    ) from trouble
                raise

        tries = 1 if once else self._retries.tries
        try:
            return attempt() if once else self._retries.run(str(ask), attempt)
        except Transient as error:
            asked = f" It asked to be left alone for {error.wait:.0f} s." if error.wait else ""
            count = "in one try" if tries == 1 else f"in {tries} tries"
            raise VendorUnavailable(
                f"{ask}: no answer from {self.gateway.url} {count}: {error.reason}", f"{error.hint}{asked}"
            ) from error

    def _once(self, ask: Ask, work: Callable[[Historical], T], client: Historical, key: str) -> T:
        """One try, within the limits, unless the breaker is open."""
        self.breaker.check(str(ask), ask.dataset)
        try:
            self._pace(ask)
            with slots(self.gateway.url, CONNECTIONS):
                answer = work(client)
        except (HdiError, Transient):
            self.breaker.failed(ask.dataset)
            raise
        except Exception as error:
            trouble = judge(error, ask, self.gateway, key)
            self._note(trouble, ask)
            if key in str(error):  # it stays out of every traceback
                raise trouble from None
            raise trouble from error
        except BaseException:
            self.breaker.failed(ask.dataset)
            raise
        self.breaker.answered(ask.dataset)
        return answer

    def _note(self, trouble: HdiError | Transient, ask: Ask) -> None:
        """Remember what a refusal means for the calls that follow."""
        if isinstance(trouble, AccountRefused):
            self.breaker.refused(trouble)
            return
        self.breaker.failed(ask.dataset)
        if isinstance(trouble, Transient) and trouble.wait:
            self._limiter.hold(ask.family, self._retries.kept(trouble.wait))

    @property
    def _limiter(self) -> Limiter:
        return shared(self.gateway.url, PER_SECOND, PER_MINUTE)

    def _pace(self, ask: Ask) -> None:
        """Wait until the vendor's limits allow the call."""
        seconds = self._limiter.take(ask.family)
        if seconds > _NOTEWORTHY and self._retries.on_wait is not None:
            self._retries.on_wait(f"{ask}: the vendor's limit of calls", seconds)
        if seconds > 0:
            time.sleep(seconds)

    def _open(self, key: str) -> Historical:
        with self._lock:
            if self._client is None:
                self.gateway.bypass_proxy()
                # The client's import sets warning filters for the whole process; this sets them back.
                with warnings.catch_warnings():
                    from databento import Historical

                    client = Historical(key, self.gateway.url)
                for family in (client.metadata, client.symbology, client.timeseries, client.batch):
                    family.TIMEOUT = self._timeout  # type: ignore[assignment]  # it is typed by its default
                self._client = client
            return self._client

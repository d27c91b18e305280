"""Errors as the vendor answers them: status, ``detail.case``, message, and the payload that callers clamp by."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from hdi.model import NS

#: Said in every error, as in every other place where this vendor shows.
_SYNTHETIC = "(SYNTHETIC: the rehearsal vendor of hdi)"
_DOCS = "https://databento.com/docs"
_DATASETS = f"{_DOCS}/api-reference-historical/basics/datasets"
_SYMBOLOGY = f"{_DOCS}/standards-and-conventions/symbology"
_ERRORS = f"{_DOCS}/api-reference-historical/basics/errors"
_TEXTS = {
    429: "Too many requests.",
    500: "Internal server error.",
    503: "Service unavailable.",
    504: "Gateway timeout.",
}


class Refusal(Exception):
    """An answer other than success. Without ``case`` the body's ``detail`` is plain text, as the vendor's often is."""

    def __init__(
        self, status: int, message: str, *, case: str = "", docs: str = _ERRORS, payload: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.case = case
        self.message = f"{message} {_SYNTHETIC}"
        self.docs = docs
        self.payload = payload
        #: The value of the Retry-After header; "" for none.
        self.retry_after = ""

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        if not self.case:
            return {"detail": self.message}
        detail = {"case": self.case, "message": self.message, "status_code": self.status, "docs": self.docs}
        return {"detail": detail | ({"payload": self.payload} if self.payload is not None else {})}


def stamp(ns: int) -> str:
    """An instant as the vendor's JSON has it: nine digits and a Z."""
    return f"{_seconds(ns):%Y-%m-%dT%H:%M:%S}.{ns % NS:09d}Z"


def _said(ns: int) -> str:
    """An instant as the vendor's messages have it."""
    fraction = f".{ns % NS:09d}" if ns % NS else ""
    return f"{_seconds(ns):%Y-%m-%d %H:%M:%S}{fraction}+00:00"


def _seconds(ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ns // NS, tz=dt.UTC)


def plain(status: int, wait: float | None = None, *, as_date: bool = False) -> Refusal:
    """A status with its usual text, for those that have no case; ``wait`` seconds go into Retry-After, rounded up.

    429 has at least one second unless told otherwise.
    """
    refusal = Refusal(status, _TEXTS[status])
    if wait is None and status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = 1.0
    if wait is not None:
        later = math.ceil(time.time() + wait)
        refusal.retry_after = formatdate(later, usegmt=True) if as_date else str(math.ceil(wait))
    return refusal


def invalid(message: str) -> Refusal:
    """A request that cannot be understood: a field that is missing, or not of its form."""
    return Refusal(422, message)


def unknown_dataset(name: str, known: Sequence[str]) -> Refusal:
    """A dataset that is not served."""
    return Refusal(
        422, f"Invalid `dataset` {name!r}, must be one of {', '.join(known)}.", case="dataset_not_found", docs=_DATASETS
    )


def unknown_schema(dataset: str, name: str, known: Sequence[str]) -> Refusal:
    """A schema that the dataset does not have."""
    message = f"The schema '{name}' is not supported for dataset {dataset}, which has {', '.join(known)}."
    return Refusal(422, message, case="schema_not_supported", docs=_DATASETS)


def unresolved() -> Refusal:
    """No symbol of the request stands for an instrument in its window."""
    return Refusal(422, "None of the symbols could be resolved.", case="symbology_invalid_request", docs=_SYMBOLOGY)


def bad_symbology(message: str) -> Refusal:
    """Symbols or symbology types that do not go together."""
    return Refusal(422, message, case="symbology_invalid_request", docs=_SYMBOLOGY)


def reversed_window(start: int, end: int) -> Refusal:
    """A window that ends before it starts, or at once."""
    return Refusal(
        422,
        f"Invalid time range query, `start` {_said(start)} cannot be on or after `end` {_said(end)}.",
        case="data_time_range_start_on_or_after_end",
        docs=f"{_DOCS}/standards-and-conventions/common-fields-enums-types",
        payload={"start": stamp(start), "end": stamp(end)},
    )


def outside(case: str, dataset: str, window: tuple[int, int], available: tuple[int, int], schema: str = "") -> Refusal:
    """A window that reaches past what there is, on the side that ``case`` tells."""
    (start, end), (first, last) = window, available
    messages = {
        "data_end_after_available_end": (
            f"The dataset {dataset} has data available up to '{_said(last)}'. The `end` in the query ('{_said(end)}') "
            "is after the available range. Try requesting with an earlier `end`."
        ),
        "data_start_before_available_start": (
            f"`start` in query ('{_said(start)}') was before the available start of dataset {dataset} "
            f"('{_said(first)}'). Try requesting with a later `start`."
        ),
        "data_start_after_available_end": (
            f"`start` in query ('{_said(start)}') was after the available end of dataset {dataset} "
            f"('{_said(last)}'). Try requesting with an earlier `start`."
        ),
        "data_schema_not_fully_available": (
            f"Schema `{schema}` for dataset `{dataset}` is only available between {_said(first)} and {_said(last)}."
        ),
        "dataset_unavailable_range": (
            f"Part or all of your request for dataset {dataset} requires a live data license. "
            f"Try again with an end time before {stamp(last)}."
        ),
    }
    payload = {
        "dataset": dataset, "start": stamp(start), "end": stamp(end),
        "available_start": stamp(first), "available_end": stamp(last),
    }  # fmt: skip
    return Refusal(422, messages[case], case=case, docs=_DATASETS, payload=payload)


#: The cases of :func:`outside`.
OUTSIDE = (
    "data_end_after_available_end", "data_start_before_available_start", "data_start_after_available_end",
    "data_schema_not_fully_available", "dataset_unavailable_range",
)  # fmt: skip
#: Cases of a status that say the same whatever was asked for; the first is the usual one.
ACCOUNT: dict[int, dict[str, str]] = {
    401: {"auth_authentication_failed": "Authentication failed."},
    402: {"account_insufficient_funds": "The account has insufficient funds, or its spending limit is reached."},
    403: {
        "auth_account_locked": "The account is locked.",
        "license_not_found_unauthorized": "A license for this data was not found.",
        "auth_user_does_not_match_api_key": "The user does not match the API key.",
    },
}


def account(status: int, case: str = "") -> Refusal:
    """Trouble with the key, the money or the licence; without a case the status's usual one."""
    cases = ACCOUNT[status]
    case = case or next(iter(cases))
    return Refusal(status, cases[case], case=case)

"""Transform and validate: a frame of the vendor's columns becomes accepted rows, rejected rows, and counts.

Everything is bound and checked before the first row: a :class:`Refinery` turns the mapping and the rules
of one schema name into Polars expressions. A batch in which nothing is broken costs three passes over
columns; only the rules that some row broke are looked at again, and only bad rows get reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_

import polars as pl
import structlog

from hdi.errors import ConfigError, DataError
from hdi.expressions import FAILURES, compile_sql, pattern
from hdi.frames import REJECTS
from hdi.mapping import VendorMapping, load_mapping
from hdi.model import MAX_NS
from hdi.schema import PLACE, POLARS, SQL, ErrorType, Field, Rule, Schema, SchemaName, Severity, closest

__all__ = [
    "CONTEXT", "COUNTS", "REJECTED", "WINDOW", "Check", "Refinery", "VendorMapping", "Verdict", "broken",
    "load_mapping", "rule_checks", "stored_checks",
]  # fmt: skip

#: Columns of a raw frame that stand beside the vendor's and that mapping expressions may use.
CONTEXT: dict[str, pl.DataType] = {"dataset": pl.String(), "symbol": pl.String(), "data_source": pl.String()}
#: The window of each row's unit, nanoseconds UTC, half-open.
WINDOW: dict[str, pl.DataType] = {"_window_start": pl.Int64(), "_window_end": pl.Int64()}
#: What a rejected row says of itself; the run, the unit's id and the raw file are the pipeline's to add.
REJECTED: dict[str, pl.DataType] = {
    name: dtype for name, dtype in REJECTS.items() if name not in ("unit_id", "run", "raw_file", "failed")
}
COUNTS: dict[str, pl.DataType] = {
    "_unit": pl.Int32(), "rule": pl.String(), "severity": pl.String(), "rows": pl.Int64(),
}  # fmt: skip

_NO_REJECTS = pl.DataFrame(schema=REJECTED)
_NO_COUNTS = pl.DataFrame(schema=COUNTS)
#: Our integers hold -N to N - 1.
_SPAN = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
#: DECIMAL(18,9) holds nine digits on either side of the point.
_DIGITS = 9
_BASIC: tuple[ErrorType, ...] = ("TransformationError", "SchemaValidation", "BusinessLogicValidation")
#: Kinds of frames that are known to meet a contract, at most.
_CERTIFIED = 256
_TRY = "Write TRY_CAST for CAST where a value may not convert."
_log = structlog.get_logger(component="RuleEngine")


@dataclass(frozen=True)
class Verdict:
    """One batch, split: ``accepted.height + rejected.height`` is the number of rows that came in.

    ``accepted`` has the schema's columns, then ``_unit`` and ``_row``; ``rejected`` is :data:`REJECTED`;
    ``counts`` (:data:`COUNTS`) has every rule that some row broke, by unit, whatever its severity.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    counts: pl.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """``broken`` is true for a row that breaks it; ``column`` is set where the check is about one column."""

    name: str
    severity: Severity
    error_type: ErrorType
    message: str
    broken: pl.Expr
    where: str
    column: str = ""


class Refinery:
    """The mapping and the rules of one schema name, bound to a vendor's columns and a dataset.

    ``vendor`` gives the types of the vendor's columns, as the decoder makes them: prices as
    Decimal(18, 9), which may hold values beyond 18 digits; times as Datetime("ns", "UTC"), the vendor's
    unsigned count read as a signed one; undefined values null. Raises ConfigError with file, position and key
    for a column that is missing or unknown, a change of type, and a rule that cannot be evaluated.
    """

    def __init__(
        self, schema: Schema, name: SchemaName, mapping: VendorMapping, vendor: Mapping[str, pl.DataType], dataset: str
    ) -> None:
        self.schema = schema
        self._name = name
        self._vendor = {n: t for n, t in vendor.items() if n not in CONTEXT and not n.startswith("_")}
        self._columns: list[pl.Expr] = []
        self._where: list[str] = []
        self._fits: list[Check] = []
        self._bind(mapping)
        self._checks = [*_field_checks(schema), *rule_checks(schema, dataset)]
        self._out = [*schema.dtypes, *PLACE]

    def refine(self, raw: pl.DataFrame) -> Verdict:
        """The verdict on one batch: the vendor's columns, :data:`CONTEXT`, ``_unit``, ``_row`` and :data:`WINDOW`.

        Raises ConfigError for an expression that fails on these rows, such as a strict CAST of bad text.
        """
        rows = self._transform(raw)
        found = _broken(raw, self._fits)
        if found:
            # What could not be converted is null for the rules, and reported once.
            rows = rows.with_columns(
                pl.when(mask).then(None).otherwise(pl.col(check.column)).alias(check.column) for check, mask in found
            )
        unfit = {check.column: mask for check, mask in found}
        for check, mask in _broken(rows, self._checks):
            kept = mask & ~unfit[check.column] if check.column in unfit else mask
            if kept.any():
                found.append((check, kept))
        if not found:
            verdict = Verdict(rows.select(self._out), _NO_REJECTS, _NO_COUNTS)
        else:
            verdict = self._split(raw, rows, found)
        self._certify(verdict.accepted)
        return verdict

    def _bind(self, mapping: VendorMapping) -> None:
        known = self._vendor | CONTEXT
        ours = self.schema.dtypes
        expressions = mapping.expressions.get(self.schema.kind, {})
        for column, each in expressions.items():
            if column not in ours:
                raise ConfigError(f"{each.where}: {self.schema.kind} has no column {column!r}", closest(column, ours))
        for f in self.schema.fields:
            where = mapping.where(self.schema.kind, f.name)
            if found := expressions.get(f.name):
                expr, dtype = compile_sql(found.sql, known, found.where)
            elif f.name in self._name.constants:
                expr, dtype = _constant(self.schema, self._name, f), f.dtype
            elif f.name in known:
                expr, dtype = pl.col(f.name), known[f.name]
            else:
                raise ConfigError(
                    f"{where}: the vendor has no column {f.name!r}, and nothing says how to make it",
                    closest(f.name, known),
                )
            converted, fit = _convert(f, expr, dtype, where)
            self._columns.append(converted.alias(f.name))
            self._where.append(where)
            if fit is not None:
                self._fits.append(fit)
        self._columns += [pl.col(name) for name in (*PLACE, *WINDOW)]

    def _transform(self, raw: pl.DataFrame) -> pl.DataFrame:
        try:
            return raw.select(self._columns)
        except FAILURES as exc:
            for expr, where in zip(self._columns, self._where, strict=False):
                try:
                    raw.select(expr)
                except FAILURES as each:
                    raise ConfigError(f"{where}: fails on the vendor's rows: {each}", _TRY) from each
            raise DataError(f"{self.schema.kind}: the vendor's rows cannot be read: {exc}") from exc

    def _split(self, raw: pl.DataFrame, rows: pl.DataFrame, found: list[tuple[Check, pl.Series]]) -> Verdict:
        groups: dict[tuple[str, Severity], pl.Series] = {}
        for check, mask in found:
            key = (check.name, check.severity)
            groups[key] = groups[key] | mask if key in groups else mask
        counts = _counts(rows["_unit"], groups)
        errors = [(check, mask) for check, mask in found if check.severity == "ERROR"]
        if not errors:
            return Verdict(rows.select(self._out), _NO_REJECTS, counts)
        bad = reduce(or_, (mask for _, mask in errors))
        rejected = self._rejects(raw.filter(bad), rows.filter(bad), [(c, mask.filter(bad)) for c, mask in errors])
        return Verdict(rows.select(self._out).filter(~bad), rejected, counts)

    def _rejects(
        self, raw: pl.DataFrame, rows: pl.DataFrame, errors: Sequence[tuple[Check, pl.Series]]
    ) -> pl.DataFrame:
        reasons: dict[str, list[tuple[str, pl.Series]]] = {
            "rules": [(c.name, m) for c, m in errors],
            "error_message": [(c.message.removesuffix("."), m) for c, m in errors],
            "error_type": [(t, m) for t in _BASIC for c, m in errors if c.error_type == t],
        }
        named = pl.DataFrame(
            {
                what: pl.select(pl.concat_list([pl.when(m).then(pl.lit(text)) for text, m in texts])).to_series()
                for what, texts in reasons.items()
            }
        ).select(pl.all().list.drop_nulls().list.unique(maintain_order=True))
        return pl.DataFrame({
            "unit": rows["_unit"],
            "row": rows["_row"],
            "dataset": rows["dataset"],
            "schema": pl.repeat(self._name.name, rows.height, eager=True),
            "symbol": rows["symbol"],
            "instrument_id": rows["instrument_id"],
            "ts_event": rows["ts_event"].to_physical(),
            "index_time": rows[self.schema.index_time].to_physical(),
            "error_type": named["error_type"].list.first(),
            "error_message": named["error_message"].list.join("; "),
            "rules": named["rules"],
            "record": _records(raw.select(*self._vendor)),
        }).select(pl.col(name).cast(dtype) for name, dtype in REJECTED.items())  # fmt: skip

    def _certify(self, accepted: pl.DataFrame) -> None:
        """Hold an accepted frame against the declared contract.

        The contract reads nothing but the columns, their types, and which of them hold nulls, so frames of a kind
        that agree in those are judged once: a judgement takes 7 ms, as long as refining four batches.
        """
        known = self.schema.certified
        counts = accepted.null_count().row(0)
        nulls = tuple(name for name, count in zip(accepted.columns, counts, strict=True) if count)
        profile = (tuple(f"{n} {t!r}" for n, t in accepted.schema.items()), nulls)
        if profile in known:
            return
        import pandera.errors  # 0.5 s, and only ingestion needs it

        try:
            self.schema.contract().validate(accepted)
        except (pandera.errors.SchemaError, pandera.errors.SchemaErrors) as exc:
            raise DataError(f"{self.schema.kind}: refined rows do not meet their contract: {exc}") from exc
        if len(known) >= _CERTIFIED:
            known.clear()
        known.add(profile)


def rule_checks(schema: Schema, dataset: str | None = None) -> list[Check]:
    """The rules of a schema for one dataset (None: for every dataset), compiled in declared order.

    Of several rules of one name, the last that applies to a row decides about it. Raises ConfigError
    with file, position and key for a rule that is not a Boolean over the columns of one row.
    """
    checks: list[Check] = []
    decided: dict[str, list[tuple[str, ...]]] = {}
    for rule in reversed(schema.rules):
        expr, dtype = compile_sql(rule.check, schema.dtypes, rule.where)
        if dtype != pl.Boolean:
            raise ConfigError(f"{rule.where}: gives {dtype}, not true or false: {rule.check}")
        if dataset is None or _applies(rule, dataset):
            narrower = decided.setdefault(rule.name, [])
            if () not in narrower:
                scope = _scope(rule.symbols, narrower)
                broken = ~expr if scope is None else ~expr & scope
                checks.append(Check(rule.name, rule.severity, rule.error_type, rule.message, broken, rule.where))
                narrower.append(rule.symbols)
    checks.reverse()
    place = {name: i for i, name in reversed(list(enumerate(c.name for c in checks)))}
    return sorted(checks, key=lambda c: place[c.name])


def _applies(rule: Rule, dataset: str) -> bool:
    return not rule.datasets or any(fnmatchcase(dataset, p) for p in rule.datasets)


def _scope(symbols: tuple[str, ...], narrower: Sequence[tuple[str, ...]]) -> pl.Expr | None:
    """Where a rule decides: rows of its symbols (an unknown symbol is of none), less what narrower rules decide."""

    def matches(patterns: tuple[str, ...]) -> pl.Expr:
        return pl.col("symbol").str.contains(pattern(patterns)).fill_null(value=False)

    parts = [matches(symbols)] if symbols else []
    parts += [~matches(each) for each in narrower]
    return pl.all_horizontal(parts) if parts else None


def stored_checks(schema: Schema, dataset: str) -> list[Check]:
    """What a row that is stored has to hold: no null where none may be, and the rules of the dataset."""
    return [*_null_checks(schema), *rule_checks(schema, dataset)]


def broken(rows: pl.DataFrame, checks: Sequence[Check]) -> list[tuple[Check, pl.Series]]:
    """The checks that some row breaks, each with the mask of those rows; of rules of one name and severity together."""
    masks: dict[tuple[str, Severity], tuple[Check, pl.Series]] = {}
    for check, mask in _broken(rows.with_columns(_unit=pl.lit(0)), checks):
        before = masks.get((check.name, check.severity))
        masks[check.name, check.severity] = (check, mask) if before is None else (before[0], before[1] | mask)
    return list(masks.values())


def _null_checks(schema: Schema) -> list[Check]:
    checks = []
    for f in schema.fields:
        if f.null:
            continue
        name = "NO_INDEX_TIME" if f.name == schema.index_time else f"MISSING_{f.name.upper()}"
        missing = pl.col(f.name).is_null()
        checks.append(Check(name, "ERROR", "SchemaValidation", f"{f.name} is missing.", missing, schema.where, f.name))
    return checks


def _field_checks(schema: Schema) -> list[Check]:
    at = pl.col(schema.index_time).to_physical()
    outside = (at < pl.col("_window_start")) | (at >= pl.col("_window_end"))
    sentence = f"{schema.index_time} lies outside the window that was asked for."
    strayed = Check("OUTSIDE_WINDOW", "ERROR", "SchemaValidation", sentence, outside, schema.where)
    return [*_null_checks(schema), strayed]


def _constant(schema: Schema, name: SchemaName, f: Field) -> pl.Expr:
    value = pl.lit(name.constants[f.name])
    try:
        return pl.lit(pl.select(value.cast(f.dtype)).item(), dtype=f.dtype)
    except FAILURES as exc:
        where = f"{schema.where}: names.{name.name}.set.{f.name}"
        raise ConfigError(f"{where}: {name.constants[f.name]!r} is no {SQL[f.type]}") from exc


def _convert(f: Field, expr: pl.Expr, dtype: pl.DataType, where: str) -> tuple[pl.Expr, Check | None]:
    """A vendor's value as our type, and the check that it fits where it might not."""
    target = POLARS[f.type]
    if dtype == pl.Null:
        return expr.cast(target), None
    if f.type in _SPAN and dtype.is_integer():
        return _convert_integer(f, expr, dtype, where)
    if f.type == "price" and isinstance(dtype, pl.Decimal) and dtype.scale <= _DIGITS:
        fit = _fit("price_out_of_range", f, expr.abs() >= 10**_DIGITS, where)
        return (expr if dtype == target else expr.cast(target, strict=False)), fit
    if f.type == "timestamp" and isinstance(dtype, pl.Datetime):
        return _convert_time(f, expr, dtype, where)
    texts = f.type == "text" and isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    if texts or (f.type == "boolean" and dtype == pl.Boolean):
        return expr.cast(target), None
    raise ConfigError(
        f"{where}: type change: the vendor's {dtype} does not become {SQL[f.type]} by itself",
        "Write the conversion into the mapping, for example with TRY_CAST.",
    )


def _convert_integer(f: Field, expr: pl.Expr, dtype: pl.DataType, where: str) -> tuple[pl.Expr, Check | None]:
    span = _SPAN[f.type]
    least, most = _bounds(dtype)
    if -span <= least and most < span:
        return expr.cast(POLARS[f.type]), None
    broken = expr >= span if least >= -span else (expr >= span) | (expr < -span)
    return expr.cast(POLARS[f.type], strict=False), _fit("VALUE_OUT_OF_RANGE", f, broken, where)


def _bounds(dtype: pl.DataType) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    low, high = pl.select(low=dtype.min(), high=dtype.max()).row(0)  # type: ignore[attr-defined]
    return low, high


def _convert_time(f: Field, expr: pl.Expr, dtype: pl.Datetime, where: str) -> tuple[pl.Expr, Check]:
    if dtype.time_zone is None:
        _log.warning("times without a zone are taken as UTC", column=f.name, mapping=where)
        expr = expr.dt.replace_time_zone("UTC")
    elif dtype.time_zone != "UTC":
        expr = expr.dt.convert_time_zone("UTC")
    factor = {"ns": 1, "us": 1_000, "ms": 1_000_000}[dtype.time_unit]
    broken = expr.to_physical() < 0
    if factor > 1:
        broken |= expr.to_physical() > MAX_NS // factor
        expr = expr.cast(POLARS["timestamp"], strict=False)
    return expr, _fit("TIMESTAMP_OUT_OF_RANGE", f, broken, where)


def _fit(name: str, f: Field, broken: pl.Expr, where: str) -> Check:
    not_it = "is not a time from 1970 to 2262" if f.type == "timestamp" else f"does not fit {SQL[f.type]}"
    return Check(name, "ERROR", "TransformationError", f"{f.name} {not_it}.", broken, where, f.name)


def _broken(frame: pl.DataFrame, checks: Sequence[Check]) -> list[tuple[Check, pl.Series]]:
    """The checks that some row breaks, each with the mask of those rows (no nulls)."""
    if not checks:
        return []
    try:
        flags = frame.select(c.broken.any().alias(str(i)) for i, c in enumerate(checks)).row(0)
        fired = [c for c, flag in zip(checks, flags, strict=True) if flag]
        if not fired:
            return []
        named = (c.broken.fill_null(value=False).alias(str(i)) for i, c in enumerate(fired))
        masks = frame.select(pl.col("_unit"), *named)  # beside a column, a constant is as long as the frame
    except FAILURES as exc:
        for check in checks:
            try:
                frame.select(check.broken.any())
            except FAILURES as each:
                raise ConfigError(f"{check.where}: fails on the vendor's rows: {each}", _TRY) from each
        raise DataError(f"the rules cannot be evaluated: {exc}") from exc
    return [(check, masks[str(i)]) for i, check in enumerate(fired)]


def _counts(units: pl.Series, groups: Mapping[tuple[str, Severity], pl.Series]) -> pl.DataFrame:
    rules = pl.DataFrame([(str(i), *key) for i, key in enumerate(groups)], ["at", "rule", "severity"], orient="row")
    masks = pl.DataFrame([units, *(mask.alias(str(i)) for i, mask in enumerate(groups.values()))])
    return (
        masks.group_by("_unit", maintain_order=True)
        .agg(pl.all().sum())
        .unpivot(index="_unit", variable_name="at", value_name="rows")
        .filter(pl.col("rows") > 0)
        .join(rules, on="at", how="left", maintain_order="left")
        .select(pl.col(name).cast(dtype) for name, dtype in COUNTS.items())
    )


def _records(raw: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object: decimals as text, times as RFC 3339 with nine digits, undefined as null."""
    fields = [_text(name, dtype).alias(name) for name, dtype in raw.schema.items()]
    return raw.select(pl.struct(fields).struct.json_encode().alias("record")).to_series()


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if isinstance(dtype, pl.Decimal):
        return column.cast(pl.String)
    if not isinstance(dtype, pl.Datetime):
        return column
    if dtype != POLARS["timestamp"]:
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f" + ("%:z" if dtype.time_zone else ""))
    # The vendor's count is unsigned: a time after 2262 shows as one before 1970, and is written as it was.
    count = column.to_physical().reinterpret(signed=False)
    seconds = (count // 1000).cast(pl.Int64).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S")
    return seconds + "." + (count % 1_000_000_000).cast(pl.String).str.zfill(9) + "Z"

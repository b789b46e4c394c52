"""The asset checks. A blocking check that fails keeps everything downstream from being computed and published.

Most checks derive from the declaration in `tables.py`. Each result gives the expected and the found value.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from importlib import resources
from typing import Any

import dagster as dg
import ibis
import ibis.expr.types as ir
import pyarrow as pa

from music_assets.data_root import one_look
from music_assets.defs.metadata import markdown_table
from music_assets.engines.base import Engine
from music_assets.storage.delta import DeltaStore
from music_assets.storage.lineage import FILES, INPUTS, REMOVED, removed_rows
from music_assets.storage.published_snapshot import NothingPublishedError, PublishedTable, newest_snapshot
from music_assets.tables import (
    ARTIST_RANK_IN_COUNTRY,
    COUNTRY_RANK_PER_ARTIST,
    EMBEDDING_TABLES,
    RANKING_TABLES,
    RAW_TABLES,
    REJECTED_ROWS,
    USER_DATA,
    USER_TOP_ARTISTS,
    Table,
)
from music_assets.transforms.current_rows import current_rows
from music_assets.transforms.rankings import Numbered
from music_assets.transforms.unranked_plays import Counts

REJECT_SHARE = "reject_share"
SHOWN_VIOLATIONS = 5
SHOWN_COUNTRIES = 20
EVALUATIONS = 20
"""Number of the newest records of a check among which its last result is. Runs that died before it have records too."""
SUM_TOLERANCE = 1e-9
ACCEPT_ADVICE = "Drop a corrected file, or run `music-assets accept` to publish the good rows as they are."
ACCEPTABLE = (REJECT_SHARE,)
"""The blocking checks that `music-assets accept` ignores."""
MIN_KNOWN_COUNTRY_SHARE = 0.25
"""About two thirds of the users give a country. Below this share the column was probably lost before delivery."""
MIN_ROW_SHARE = 0.9
"""A computed table that shrinks below this share of its published row count is suspect."""


@dataclass(frozen=True)
class Thresholds:
    """Shares above which `reject_share` and `unknown_share` warn, and fail."""

    reject_warn_share: float
    reject_fail_share: float
    unknown_warn_share: float
    unknown_fail_share: float


@dataclass(frozen=True)
class CheckContext:
    """The table to check, in its newest version, and what checks need to know about its past.

    `uncommitted` has the rows of a ranking that is not committed yet, `unranked` what `unranked_plays` counts in its
    inputs. Without the Dagster instance, earlier results of checks are unknown.
    """

    table: Table
    store: DeltaStore
    reader: Engine
    thresholds: Thresholds
    instance: dg.DagsterInstance | None = None
    uncommitted: Numbered | None = None
    unranked: Counts = field(default_factory=dict)

    @cached_property
    def rows(self) -> ir.Table:
        """The rows to check, with numbers in place of names if they are not committed yet."""
        if self.uncommitted:
            return self.uncommitted.rows
        return self.reader.read(self.table, self.store.table_version(self.table).files)

    def no_violations(self, wrong: ir.Table, expected: str) -> dg.AssetCheckResult:
        """Return whether there are no wrong rows, and show some of them."""
        count = wrong.count().to_pyarrow().as_py()
        if not count:
            return _result(True, expected=expected, found="0 violations")
        shown = wrong.limit(SHOWN_VIOLATIONS)
        examples = (self.uncommitted.named(shown) if self.uncommitted else shown).to_pyarrow().to_pylist()
        return _result(False, expected=expected, found=f"{count} violations", examples=markdown_table(examples))

    @cached_property
    def published(self) -> PublishedTable | None:
        """The table in the newest published snapshot."""
        try:
            return newest_snapshot(self.store.root).tables.get(self.table.full_name)
        except NothingPublishedError:
            return None

    def number(self, expression: ir.Scalar) -> float:
        """Compute a number; NULL counts as 0."""
        return expression.fill_null(0).to_pyarrow().as_py()

    def unpublished_files(self) -> list[dict[str, Any]]:
        """Return the CSV files loaded into the table since it was last published, and not retracted."""
        return self._files_after(-1)

    def refresh_to_judge(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the unpublished CSV files that `reject_share` has not judged, and the version they were loaded after.

        If there are none, these are the files that it judged last.
        """
        judged = self._last_judged()
        until = judged.get("until", -1)
        if files := self._files_after(until):
            return until, files
        after = judged.get("after", -1)
        return after, self._files_after(after)

    def _files_after(self, version: int) -> list[dict[str, Any]]:
        since = max(version, self.published.version if self.published else -1)
        loaded = [file for files in self.store.commit_metadata(self.table, FILES, since=since) for file in files]
        removals = self.store.commit_metadata(self.table, REMOVED, since=since) if loaded else []
        retracted = {drop["ingested_at"] for removed in removals for drop in removed.get("drops", ())}
        return [file for file in loaded if file.get("ingested_at") not in retracted]

    def _last_judged(self) -> Mapping[str, Any]:
        """Return what the last result of `reject_share` recorded about this table, or nothing."""
        if self.instance is None:
            return {}
        key = dg.AssetCheckKey(dg.AssetKey(self.table.asset_key), REJECT_SHARE)
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=EVALUATIONS)
        results = [record.evaluation for record in history if isinstance(record.evaluation, dg.AssetCheckEvaluation)]
        judged = results[0].metadata.get("judged") if results else None
        value: Any = judged.value if isinstance(judged, dg.JsonMetadataValue) else {}
        return value if value.get("table_id") == self.store.table_version(self.table).table_id else {}


@dataclass(frozen=True)
class Check:
    """A check, the tables it applies to, and whether a failure stops everything downstream."""

    name: str
    description: str
    tables: Sequence[Table]
    evaluate: Callable[[CheckContext], dg.AssetCheckResult]
    blocking: bool = True


def no_nulls(context: CheckContext) -> dg.AssetCheckResult:
    """Check that columns declared as not nullable contain no NULL.

    Each column is a separate filter, so that engines can skip row groups whose statistics count no NULL.
    """
    rows = context.rows
    required = [column.name for column in context.table.columns if not column.nullable]
    nulls = [
        rows.filter(rows[name].isnull()).agg(rows=ibis._.count()).mutate(column=ibis.literal(name)) for name in required
    ]
    counted = ibis.union(*nulls).to_pyarrow().to_pylist()
    found = {one["column"]: one["rows"] for one in counted if one["rows"]}
    return _result(not found, expected="no NULL", found=", ".join(f"{n} in {c}" for c, n in found.items()) or "none")


def keys_unique(context: CheckContext) -> dg.AssetCheckResult:
    """Check that no two rows have the same key."""
    rows = context.rows
    keys = rows.group_by(list(context.table.key)).agg(rows=rows.count())
    return context.no_violations(keys.filter(keys["rows"] > 1), f"{', '.join(context.table.key)} unique")


def keys_delivered_once(context: CheckContext) -> dg.AssetCheckResult:
    """Warn if a file delivered a key twice, in which case the tie-break chose the current row."""
    repeated = {file["name"]: file["duplicates"] for file in context.unpublished_files() if file["duplicates"]}
    return _result(
        not repeated,
        severity=dg.AssetCheckSeverity.WARN,
        expected=f"{', '.join(context.table.key)} at most once in a file",
        found=", ".join(f"{count} more rows in {name}" for name, count in repeated.items()) or "no key twice",
    )


def ranks_in_order(context: CheckContext) -> dg.AssetCheckResult:
    """Check that the ranks are 1, 2, 3 … without gaps, in the order that the table declares."""
    ranking, rows = context.table.ranking, context.rows
    if ranking is None:
        raise ValueError(f"{context.table.name} is not a ranking")
    within, by, tie = ranking.within, ranking.by, ranking.tie_break
    before = ibis.window(group_by=within, order_by="rank")
    compared = rows.mutate(
        rank_before=rows["rank"].lag().over(before).fill_null(0),
        value_before=rows[by].lag().over(before),
        tie_before=rows[tie].lag().over(before),
    )
    gap = compared["rank"] != compared["rank_before"] + 1
    rising = compared[by] > compared["value_before"]
    tied = (compared[by] == compared["value_before"]) & (compared[tie] <= compared["tie_before"])
    wrong = compared.filter(gap | rising.fill_null(False) | tied.fill_null(False))
    return context.no_violations(wrong, f"ranks 1, 2, 3 … for each {within} by {by} descending, then {tie}")


def popularity_sums_to_one(context: CheckContext) -> dg.AssetCheckResult:
    """Check that normalized_popularity sums to 1 in each country with plays, and to 0 in the others."""
    rows = context.rows
    sums = rows.group_by("country").agg(total=rows["normalized_popularity"].sum(), plays=rows["total_playcount"].sum())
    expected = ibis.ifelse(sums["plays"] > 0, 1.0, 0.0)
    wrong = sums.filter((sums["total"] - expected).abs() > SUM_TOLERANCE)
    return context.no_violations(wrong, f"a sum of 1 ± {SUM_TOLERANCE} per country")


def known_country_share(context: CheckContext) -> dg.AssetCheckResult:
    """Warn if few users have a country, since only these count in the rankings."""
    rows = context.rows
    total = context.number(rows.count())
    share = context.number(rows["country"].count()) / total if total else 1.0
    return _result(
        share >= MIN_KNOWN_COUNTRY_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        expected=f"at least {MIN_KNOWN_COUNTRY_SHARE:.0%} of the users with a country",
        found=f"{share:.1%}",
        share=share,
    )


def unknown_share(context: CheckContext) -> dg.AssetCheckResult:
    """Check the share of listed users, and of their plays, that no ranking counts: without known user or country."""
    counted = context.unranked
    all_users, all_plays = max(counted["users"], 1), max(counted["plays"], 1)
    user_share = (counted["no_user"] + counted["no_country"]) / all_users
    play_share = (counted["no_user_plays"] + counted["no_country_plays"]) / all_plays
    limits, share = context.thresholds, max(user_share, play_share)
    fails = share > limits.unknown_fail_share
    parts = [
        f"{counted[part] / all_users:.1%} of the users ({counted[f'{part}_plays'] / all_plays:.1%} of the plays) {what}"
        for part, what in (("no_user", "are not in user_data"), ("no_country", "have no country"))
    ]
    advice = " Drop the user_data of these users, with their countries." if share > limits.unknown_warn_share else ""
    return _result(
        share <= limits.unknown_warn_share,
        severity=dg.AssetCheckSeverity.ERROR if fails else dg.AssetCheckSeverity.WARN,
        expected=f"at most {limits.unknown_warn_share:.1%} of the listed users, and of the plays, in no ranking "
        f"(limit {limits.unknown_fail_share:.0%})",
        found=f"{user_share:.1%} of the users and {play_share:.1%} of the plays in no ranking: {', '.join(parts)}."
        + advice,
        share=share,
        **counted,
    )


def country_names(context: CheckContext) -> dg.AssetCheckResult:
    """Warn if users have a country that is no name of ISO 3166: the rankings treat each spelling as a country."""
    rows = context.rows
    odd = rows.filter(rows["country"].notin(_known_countries()))
    users = {}
    if context.number(odd.count()):  # rarely; finding the current rows takes longer
        current = current_rows(rows.semi_join(odd, "user_id"), USER_DATA)
        counted = (
            current.filter(current["country"].notin(_known_countries())).group_by("country").agg(users=ibis._.count())
        )
        users = {row["country"]: row["users"] for row in counted.to_pyarrow().to_pylist()}
    most = sorted(users, key=lambda country: (-users[country], country))
    more = f", and {len(most) - SHOWN_COUNTRIES} more" if len(most) > SHOWN_COUNTRIES else ""
    listed = ", ".join(f"{country!r} ({users[country]})" for country in most[:SHOWN_COUNTRIES])
    return _result(
        not users,
        severity=dg.AssetCheckSeverity.WARN,
        expected="countries named as in ISO 3166 or by Last.fm",
        found=f"{len(users)} other names (users): {listed}{more}" if users else "no other name",
        countries=markdown_table([{"country": country, "users": users[country]} for country in most]),
    )


@cache
def _known_countries() -> tuple[str, ...]:
    lines = resources.files(__package__).joinpath("country_names.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def reject_share(context: CheckContext) -> dg.AssetCheckResult:
    """Check the share of rejected rows in the files of this refresh.

    Rejected rows whose key a later file delivers do not count. The result records which versions it judged.
    """
    after, files = context.refresh_to_judge()
    limits = context.thresholds
    rejects = sum(file["rejects"] for file in files)
    delivered = rejects + sum(file["rows"] for file in files)
    corrected = _corrected_rejects(context, files) if rejects > limits.reject_warn_share * delivered else 0
    share = (rejects - corrected) / delivered if delivered else 0.0
    fails = share > limits.reject_fail_share
    again = f", and {corrected} whose keys were delivered again" if corrected else ""
    advice = f" Nothing was published. See rejected_rows for the reasons. {ACCEPT_ADVICE}" if fails else ""
    version = context.store.table_version(context.table)
    return _result(
        share <= limits.reject_warn_share,
        severity=dg.AssetCheckSeverity.ERROR if fails else dg.AssetCheckSeverity.WARN,
        expected=f"at most {limits.reject_warn_share:.1%} of the rows rejected (limit {limits.reject_fail_share:.0%})",
        found=f"{rejects - corrected} of {delivered} rows ({share:.1%}) in {len(files)} files{again}.{advice}",
        share=share,
        judged={"after": after, "until": version.version, "table_id": version.table_id},
    )


def _corrected_rejects(context: CheckContext, files: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of rejected rows of these files whose key a later file delivers."""
    table, store, reader = context.table, context.store, context.reader
    fields = {
        datetime.fromisoformat(file["ingested_at"]): file["key_fields"]
        for file in files
        if file["rejects"] and file.get("key_fields")
    }
    rejected = reader.read(REJECTED_ROWS, store.table_version(REJECTED_ROWS).files)
    of_files = rejected.filter(rejected["table_name"] == table.name, rejected["ingested_at"].isin(list(fields)))
    rows = of_files.select("ingested_at", "raw_line").to_pyarrow().to_pylist() if fields else []
    keys = [
        {"rejected_at": row["ingested_at"], **dict(zip(table.key, key, strict=True))}
        for row in rows
        if (key := _key_in(row["raw_line"], fields[row["ingested_at"]]))
    ]
    if not keys:
        return 0
    schema = table.schema.to_pyarrow()
    columns = [pa.field("rejected_at", pa.timestamp("us")), *(schema.field(name) for name in table.key)]
    wanted = ibis.memtable(pa.Table.from_pylist(keys, schema=pa.schema(columns)))
    history = reader.read(table, store.table_version(table).files)
    later = history["ingested_at"] > wanted["rejected_at"]
    corrected = wanted.semi_join(history, [*(wanted[name] == history[name] for name in table.key), later])
    count: int = corrected.count().to_pyarrow().as_py()
    return count


def _key_in(raw_line: str, fields: Sequence[int]) -> tuple[int, ...] | None:
    """Return the key in a rejected row, whose columns are these fields, or None if it cannot be read."""
    try:
        values = next(csv.reader([raw_line]))
        key = tuple(int(values[field]) for field in fields)
    except (csv.Error, IndexError, StopIteration, ValueError):
        return None
    return key if all(-(2**31) <= value < 2**31 for value in key) else None


def row_count(context: CheckContext) -> dg.AssetCheckResult:
    """Compare the row count with the published one: computed tables may shrink a little, raw ones only on request."""
    rows = int(context.number(context.rows.count()))
    published = context.published.rows if context.published else 0
    since = context.published.version if context.published else -1
    removed = removed_rows(context.store, context.table, since) if rows < published else 0
    least = (published - removed) * (1 if context.table.is_raw else MIN_ROW_SHARE)
    note = f", {removed} were removed since" if removed else ""
    return _result(
        rows >= least,
        severity=dg.AssetCheckSeverity.ERROR if context.table.is_raw else dg.AssetCheckSeverity.WARN,
        expected=f"at least {least:.0f} rows ({published} were published{note})",
        found=f"{rows} rows",
    )


def dimensions_finite(context: CheckContext) -> dg.AssetCheckResult:
    """Check that no vector contains NaN or an infinite number.

    One such number makes the sum of its column NaN or infinite. A filter would miss NaN, because engines skip row
    groups by their minimum and maximum, which ignore it.
    """
    rows = context.rows
    dimensions = [column.name for column in context.table.columns if column.type == "float64"]
    finite = rows.agg(**{name: rows[name].sum().abs() <= sys.float_info.max for name in dimensions})
    broken = [name for name, is_finite in finite.to_pyarrow().to_pylist()[0].items() if is_finite is False]
    return _result(not broken, expected="finite numbers only", found=", ".join(broken) or "finite numbers only")


def every_key_has_a_vector(context: CheckContext) -> dg.AssetCheckResult:
    """Check that each user, or each artist, of the training data has a vector."""
    (key,) = context.table.key
    trainings = context.store.commit_metadata(context.table, INPUTS)
    version = trainings[0].get(USER_TOP_ARTISTS.name) if trainings else None
    history = context.reader.read(USER_TOP_ARTISTS, context.store.table_version(USER_TOP_ARTISTS, version).files)
    listed = current_rows(history, USER_TOP_ARTISTS).select(key).distinct()
    return context.no_violations(listed.anti_join(context.rows, key), f"a vector for each {key} of user_top_artists")


CHECKED_TABLES = (*RAW_TABLES, *RANKING_TABLES, *EMBEDDING_TABLES)

CHECKS = (
    Check(REJECT_SHARE, "Few of the delivered rows were rejected.", RAW_TABLES, reject_share),
    Check("no_nulls", "Required columns contain no NULL.", CHECKED_TABLES, no_nulls),
    Check("keys_delivered_once", "No file delivers a key twice.", RAW_TABLES, keys_delivered_once, blocking=False),
    Check("keys_unique", "No two rows have the same key.", (*RANKING_TABLES, *EMBEDDING_TABLES), keys_unique),
    Check("ranks_in_order", "Ranks are 1, 2, 3 … in order.", RANKING_TABLES, ranks_in_order),
    Check(
        "popularity_sums_to_one",
        "normalized_popularity sums to 1 in each country.",
        (COUNTRY_RANK_PER_ARTIST,),
        popularity_sums_to_one,
    ),
    Check("known_country_share", "Enough users have a country.", (USER_DATA,), known_country_share, blocking=False),
    Check("country_names", "Countries are named as in ISO 3166.", (USER_DATA,), country_names, blocking=False),
    Check(
        "unknown_share",
        "Few listed users and plays are in no ranking.",
        (ARTIST_RANK_IN_COUNTRY,),
        unknown_share,
        blocking=False,
    ),
    Check("dimensions_finite", "Every dimension is a finite number.", EMBEDDING_TABLES, dimensions_finite),
    Check("every_key_has_a_vector", "Every user and artist has a vector.", EMBEDDING_TABLES, every_key_has_a_vector),
    Check("row_count", "The table did not shrink.", CHECKED_TABLES, row_count),
)


def asset_checks(checks: Sequence[Check] = CHECKS) -> list[dg.AssetChecksDefinition]:
    """Return the checks of committed tables, as one Dagster definition for each table."""
    return [_checks_of(table, checks) for table in CHECKED_TABLES if table not in RANKING_TABLES]


def check_specs(table: Table, checks: Sequence[Check]) -> list[dg.AssetCheckSpec]:
    """Return the checks of a table as Dagster declares them."""
    key = dg.AssetKey(table.asset_key)
    return [
        dg.AssetCheckSpec(check.name, asset=key, description=check.description, blocking=check.blocking)
        for check in checks
        if table in check.tables
    ]


def evaluate(checks: Sequence[Check], context: CheckContext) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks that apply to the table."""
    for check in checks:
        if context.table in check.tables:
            with one_look():
                result = check.evaluate(context)
            yield result._replace(asset_key=dg.AssetKey(context.table.asset_key), check_name=check.name)


def has_failed(result: dg.AssetCheckResult) -> bool:
    """Return whether a result is more than a warning."""
    return not result.passed and result.severity is dg.AssetCheckSeverity.ERROR


def _checks_of(table: Table, checks: Sequence[Check]) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name=f"check_{table.name}", specs=check_specs(table, checks), can_subset=True)
    def run_checks(
        context: dg.AssetCheckExecutionContext,
        store: dg.ResourceParam[DeltaStore],
        reader: dg.ResourceParam[Engine],
        thresholds: dg.ResourceParam[Thresholds],
    ) -> Iterator[dg.AssetCheckResult]:
        checked = CheckContext(table, store, reader, thresholds, context.instance)
        selected = {key.name for key in context.selected_asset_check_keys}
        yield from evaluate([check for check in checks if check.name in selected], checked)

    return run_checks


def _result(
    passed: bool, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR, **metadata: Any
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        severity=severity,
        metadata=metadata,
        description=f"Expected {metadata['expected']}; found {metadata['found']}",
    )

"""Publish loaded rows although the share of rejected ones is too high for a refresh to publish them."""

from music_assets.data_root import DataRoot
from music_assets.defs.build import build_definitions
from music_assets.defs.checks import ACCEPTABLE, CHECKS, CheckContext, evaluate, has_failed
from music_assets.defs.sensors import unpublished_versions
from music_assets.maintenance.rebuild import RebuildError, Report, check_idle, check_raw, recompute, run_history
from music_assets.settings import Settings
from music_assets.storage.delta import DeltaStore
from music_assets.storage.published_snapshot import newest_snapshot
from music_assets.tables import RAW_TABLES


def accept(settings: Settings, report: Report) -> None:
    """Compute the rankings from the loaded rows and publish them, and report each step.

    Raises RebuildError if a raw table is damaged or empty, if a check fails that cannot be accepted, if a run is in
    progress, or if the run fails; and LayoutError.
    """
    root = DataRoot.of(settings)
    root.check_exists()
    store = DeltaStore(root)
    check_raw(store)
    if not unpublished_versions(store):
        report(f"Nothing to accept: all loaded rows below {root} are published.")
        return
    _check_the_rest(settings, store)
    with run_history(root) as instance:
        check_idle(instance)
        recompute(settings, instance, report)
    report(f"Published {root.address(newest_snapshot(root).path)}. Rejected rows remain in rejected_rows.")


def _check_the_rest(settings: Settings, store: DeltaStore) -> None:
    """Evaluate the blocking checks of the raw tables, which the run leaves out, except those that can be accepted."""
    resources = build_definitions(settings).resources or {}
    checks = [check for check in CHECKS if check.blocking and check.name not in ACCEPTABLE]
    for table in RAW_TABLES:
        for result in evaluate(checks, CheckContext(table, store, resources["reader"], resources["thresholds"])):
            if has_failed(result):
                raise RebuildError(f"The check {result.check_name} of {table.name} fails: {result.description}.")

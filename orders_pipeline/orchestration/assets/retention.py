"""The retention of the audit and of Dagster's own history; whether the audit is intact is looked at on the way."""

import dagster as dg

from orders_pipeline.audit import recording, sealing
from orders_pipeline.audit.verifying import AuditBroken, Verified, verify
from orders_pipeline.orchestration.assets.boundary import OPERATIONS, UPKEEP, safe_errors
from orders_pipeline.orchestration.partitions import forget_failed_runs, retire
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep.audit_shipping import shipping
from orders_pipeline.upkeep.retention import Retained, purge_dagster_history, purge_error_details, purge_rows, retain

AUDIT_INTACT = dg.AssetCheckSpec(
    "audit_intact",
    asset="retention",
    description="Every audit record in the database is as it was sealed, the chain leads to every head that was kept, and "
    "the rows that these records are about are as they were written last.",
)
ALL_INTACT = dg.AssetCheckSpec(
    "all_intact",
    asset="verification",
    description="Every audit record is as it was sealed, also in the storage, and every row as it was recorded last.",
)


@dg.asset(group_name=UPKEEP, owners=OPERATIONS, kinds={"postgres", "parquet"}, check_specs=[AUDIT_INTACT])
def retention(context: dg.AssetExecutionContext, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """Audit records moved to warm and cold storage, or gone, by `retention_limits`; old Dagster events removed."""
    with safe_errors(system):
        sealing.seal(system.database)
        sealing.anchor(system.database, system.storage)
        shipping.note_whether_wanted(system)
        found = verify(system.database, system.storage, moved=False)
        done = Retained()
        if found.broken is None:
            try:
                done = retain(system.database, system.storage)
            except AuditBroken as stop:
                found.broken = stop.broken
        if found.broken is not None:  # nothing is moved that is not what it was; what is not the audit's goes all the same
            recording.failed(system.database, AuditBroken(found.broken))
        return dg.MaterializeResult(
            metadata={
                "records moved to warm storage": done.moved["warm"],
                "records moved to cold storage": done.moved["cold"],
                "records gone": done.moved["gone"],
                "blocks held": done.held,
                "blocks kept until they are sent outside": shipping.kept_to_ship(system.database),
                "objects still locked": done.locked,
                "error details removed": purge_error_details(system.database, system.storage),
                **purge_rows(system.database),
                "Dagster events removed": purge_dagster_history(system.endpoints.database_url),
                "brief heads of the audit removed": sealing.forget_brief_heads(system.storage),
                "partitions of old batches removed": retire(system.database, context.instance),
                "failed runs removed": forget_failed_runs(system.database, context.instance),
                "records in the database verified": found.hot,
                "rows verified": found.rows,
                "audit": str(sealing.unsealed(system.database)),
            },
            check_results=[_check(AUDIT_INTACT, found)],
        )


@dg.asset(group_name=UPKEEP, owners=OPERATIONS, kinds={"postgres", "parquet"}, check_specs=[ALL_INTACT])
def verification(system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """The whole audit verified, wherever its records are, and every row of the audited tables held against it."""
    with safe_errors(system):
        sealing.seal(system.database)
        found = verify(system.database, system.storage)
        if found.broken is not None:
            recording.failed(system.database, AuditBroken(found.broken))
        return dg.MaterializeResult(
            metadata={"records verified": found.records, "rows verified": found.rows},
            check_results=[_check(ALL_INTACT, found)],
        )


def _check(spec: dg.AssetCheckSpec, found: Verified) -> dg.AssetCheckResult:
    said = {"found": dg.MetadataValue.json(found.as_dict())}
    return dg.AssetCheckResult(check_name=spec.name, passed=found.broken is None, metadata=said)

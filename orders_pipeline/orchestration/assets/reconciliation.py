"""The comparison of our payments with the Payment service's own list, and the closing records that follow from it."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from orders_pipeline.orchestration.assets.boundary import FINANCE, MONEY, safe_errors
from orders_pipeline.settlement.reconciliation.findings import FINDINGS
from orders_pipeline.settlement.reconciliation.reconcile import Reconciled, reconcile
from orders_pipeline.system.composition import System

LEDGERS_AGREE = dg.AssetCheckSpec(
    "ledgers_agree",
    asset="reconciliation",
    description="No difference between our payments and the Payment service's is open.",
)


class ReconciliationConfig(dg.Config):
    """How far back to look."""

    days: int = 2  # more than the one between two runs: a run that is missed leaves no gap


@dg.asset(
    group_name=MONEY,
    owners=FINANCE,
    tags={"money": "compared"},
    kinds={"postgres", "rest"},
    metadata={"dagster/table_name": "reconciliation_findings"},
    check_specs=[LEDGERS_AGREE],
)
def reconciliation(config: ReconciliationConfig, system: dg.ResourceParam[System]) -> dg.MaterializeResult:
    """Our payments compared with the Payment service's list, both ways.

    What differs is in `reconciliation_findings`, until it is healed or somebody answers for it.
    """
    with safe_errors(system):
        now = datetime.now(UTC)
        result = reconcile(system, None, now - timedelta(days=config.days), now)
        return dg.MaterializeResult(
            metadata={
                "payments here": result.here,
                "payments at the service": result.there,
                "payments of other callers": result.foreign,
                "differences too young to say": result.young,
                "open findings": sum(result.open.values()),
                "new findings": result.new,
                "findings gone": result.gone,
                "payments healed": result.healed,
                "batches closed": len(result.closed),
                "findings": dg.MetadataValue.md(_table(result)),
            },
            check_results=[
                dg.AssetCheckResult(check_name=LEDGERS_AGREE.name, passed=not result.open, metadata=dict(result.open))
            ],
        )


def _table(result: Reconciled) -> str:
    if not result.open:
        return "none"
    lines = [f"| {count:,} | {code} | {FINDINGS[code]} |" for code, count in result.open.items()]
    return "\n".join(["| open | code | |", "|---:|---|---|", *lines, "", "`orders-pipeline reconcile` names each"])

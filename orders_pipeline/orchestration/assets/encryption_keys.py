"""The keys that personal values are encrypted with: the job that replaces an old key, and what still needs one."""

import dagster as dg

from orders_pipeline.orchestration.assets.boundary import OPERATIONS, PERSONAL, UPKEEP, safe_errors
from orders_pipeline.system.composition import System
from orders_pipeline.upkeep.key_rotation import look, rotate

ONE_KEY_IN_USE = dg.AssetCheckSpec(
    "one_key_in_use",
    asset="encryption_keys",
    description="Nothing is encrypted with another key than the current one: the others may be removed.",
)


class RotationConfig(dg.Config):
    """Whether everything is encrypted anew, or only looked at."""

    anew: bool = False  # so that whoever materializes all there is replaces no key


@dg.asset(
    group_name=UPKEEP,
    owners=OPERATIONS,
    tags=PERSONAL,
    kinds={"postgres"},
    check_specs=[ONE_KEY_IN_USE],
)
def encryption_keys(
    context: dg.AssetExecutionContext, config: RotationConfig, system: dg.ResourceParam[System]
) -> dg.MaterializeResult:
    """What each encryption key is still needed for.

    The job `rotate_keys` encrypts everything anew with the current key. It resumes where it stopped.
    """
    shown = -1

    def progress(done: int, to_do: int) -> None:
        nonlocal shown
        tenth = 10 * done // max(to_do, 1)
        if tenth > shown:
            shown = tenth
            context.log.info(f"{done:,} of {to_do:,} orders encrypted anew")

    with safe_errors(system):
        if config.anew:
            result = rotate(system.database, system.storage, system.cipher, progress)
        else:
            result = look(system.database, system.storage, system.cipher)
        return dg.MaterializeResult(
            metadata={
                "current key": result.current,
                "orders encrypted anew": result.resealed,
                "files encrypted anew": result.files,
                "orders damaged": len(result.damaged),
                "files left": len(result.left),
                "batches being processed": len(result.busy),
                "keys that may be removed": ", ".join(result.removable) or "none",
                "orders by key": dg.MetadataValue.md(
                    "\n".join(
                        ["| key | orders |", "|---|---:|", *(f"| {key} | {n:,} |" for key, n in result.orders.items())]
                    )
                ),
            },
            check_results=[dg.AssetCheckResult(check_name=ONE_KEY_IN_USE.name, passed=result.is_done)],
        )

"""Mutants that nobody can see, and why: what they leave out is said or looked at a second time."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/batch_settlement.py",
        [],
        (
            "            if worker.halted.is_set():\n                settlement.stop()\n                return\n",
            "",
            "a halted worker claims nothing and may send nothing; the stop only ends its waiting sooner",
        ),
        (
            "        finally:\n            self._paid.set()\n",
            "        finally:\n            pass\n",
            "finish_notifying and close say so again; until then notifying goes on looking",
        ),
    ),
    *mutants(
        "sql/queries/payments.sql",
        [],
        (
            "WHERE batch_id = :batch_id AND status = 'planned'\n\n-- name: retire_cancelled",
            "WHERE batch_id = :batch_id AND status IN ('planned', 'unknown')\n\n-- name: retire_cancelled",
            "is_in_doubt has found none that is unknown, in the same transaction",
        ),
    ),
    *mutants(
        "sql/queries/notifications.sql",
        [],
        (
            "WHERE notification_id = ANY(CAST(:notification_ids AS uuid[])) AND status = 'waiting' AND NOT EXISTS",
            "WHERE notification_id = ANY(CAST(:notification_ids AS uuid[])) AND NOT EXISTS",
            "lock_waiting_notifications has found only such, and holds them",
        ),
    ),
    *mutants(
        "sql/queries/reconciliation.sql",
        [],
        (
            "WHERE ours.claimed_by IS NULL AND theirs.by_reference AND",
            "WHERE theirs.by_reference AND",
            "adopt_payments looks again whether a payment is claimed, where it takes it over",
        ),
    ),
]

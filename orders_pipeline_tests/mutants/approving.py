"""Mutants of what keeps a batch from being paid before somebody else than who sent it has approved it."""

from orders_pipeline_tests.mutants.mutant import Mutant, mutants

MUTANTS: list[Mutant] = [
    *mutants(
        "orders_pipeline/settlement/batch_settlement.py",
        ["pipeline/test_approval.py"],
        (
            "    if batch.status not in SETTLED_FROM or not batch.is_approved:\n",
            "    if batch.status not in SETTLED_FROM:\n",
            "a batch that needs approval breaks off instead of waiting for it",
        ),
    ),
    *mutants(
        "orders_pipeline/batches/batches.py",
        ["pipeline/test_approval.py"],
        (
            "    if not row.is_approved:\n        return AWAITING_APPROVAL, None\n",
            "",
            "a batch that needs approval never waits for it",
        ),
    ),
    *mutants(
        "orders_pipeline/upkeep/approval.py",
        ["pipeline/test_approval.py"],
        (
            "    if _is_own(batch, names):\n",
            "    if False:\n",
            "who sent a batch approves it under another name",
        ),
        (
            "    if batch.status != AWAITING_APPROVAL and batch.approval_decision != decision:\n",
            "    if False:\n",
            "a batch that was refused is said to be approved",
        ),
    ),
    *mutants(
        "orders_pipeline/clients/profiles.py",
        ["unit/test_clients.py"],
        (
            'return 0 if self.approval == "always" else self.approval_above',
            "return self.approval_above",
            "a client's batches are paid without the approval that its profile asks for",
        ),
    ),
    *mutants(
        "orders_pipeline/intake/steps.py",
        ["pipeline/test_approval.py"],
        (
            "            approval_above=profile.approved_up_to,\n",
            "            approval_above=None,\n",
            "no batch waits for approval",
        ),
    ),
    *mutants(
        "sql/queries/batches.sql",
        ["pipeline/test_approval.py"],
        (
            "  AND (status NOT IN ('stopped', 'awaiting_approval', 'cancelling') OR",
            "  AND (status NOT IN ('stopped', 'cancelling') OR",
            "a run that comes while a batch waits asks for its approval anew",
            "test_what_waits_says_since_when_however_many_runs_come",
        ),
        (
            "WHERE finished_at IS NULL AND status NOT IN ('stopped', 'awaiting_approval') AND (status <> 'received' OR",
            "WHERE finished_at IS NULL AND status <> 'stopped' AND (status <> 'received' OR",
            "runs are asked for again and again while a batch waits for approval",
        ),
        (
            "approval_decided_at = clock_timestamp(), resumed_at = now(), run_requested_at = NULL",
            "approval_decided_at = clock_timestamp(), run_requested_at = NULL",
            "what is approved is stopped by a run that was terminated before",
        ),
    ),
    *mutants(
        "sql/migrations/V19__approval.sql",
        ["database/test_rules_of_approval.py"],
        (
            "approval_above IS NULL OR coalesce(amount_accepted <= approval_above, false)",
            "approval_above IS NULL OR coalesce(amount_accepted >= approval_above, false)",
            "what is above the limit is taken for approved",
        ),
        (
            "               WHERE claimed_by IS NOT NULL AND NOT is_approved\n",
            "               WHERE claimed_by IS NOT NULL AND NOT is_approved AND false\n",
            "payments of a batch that nobody has approved may be claimed",
        ),
        (
            "(batches.status <> 'cancelling' OR after.status = 'sending')",
            "batches.status <> 'cancelling'",
            "payments of a batch that was refused may be sent",
        ),
        (
            "    ADD CONSTRAINT batches_approval_by_another CHECK (approval_decided_by <> submitted_by);\n",
            "    ADD CONSTRAINT batches_approval_by_another CHECK (approval_decided_by <> '');\n",
            "who sent a batch may approve it",
        ),
    ),
    *mutants(
        "sql/migrations/V22__lines.sql",
        ["database/test_rules_of_approval.py"],
        (
            "                 AND (orders, yen) IS DISTINCT FROM (rows_accepted - rows_continuing, amount_accepted)) THEN\n",
            "                 AND false) THEN\n",
            "other orders than were approved are paid",
        ),
    ),
]

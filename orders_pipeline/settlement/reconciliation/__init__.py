"""Reconciliation: our ledger of payments against the Payment service's list (`reconcile`), and what came of it.

The list is kept in a table as long as the comparison lasts (`listed`). Only what our ledger does not know is taken over
(`adoption`); what it says otherwise is a finding (`findings`). What a finished batch came to is closed (`closings`).
"""

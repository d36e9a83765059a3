-- Refunds are compared in yen, what is listed of ours in a form that cannot be read is a difference of its own, and one that
-- was accepted and has become another is closed.

ALTER TABLE reconciliation_findings
    DROP CONSTRAINT reconciliation_findings_code_known,
    ADD CONSTRAINT reconciliation_findings_code_known CHECK (code IN
        ('C_MISSING_THERE', 'C_MISSING_HERE', 'C_AMOUNT_DIFFERS', 'C_STATE_DIFFERS', 'C_CHARGED_TWICE',
         'C_REFUND_MISSING_THERE', 'C_REFUND_MISSING_HERE', 'C_UNREADABLE')),
    DROP CONSTRAINT reconciliation_findings_closed_how_known,
    ADD CONSTRAINT reconciliation_findings_closed_how_known CHECK (closed_how IN ('gone', 'healed', 'changed'));

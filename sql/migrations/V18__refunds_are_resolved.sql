-- A refund of which nobody can find out whether it was made is decided about by a person too.

ALTER TABLE resolutions
    ALTER COLUMN payment_id DROP NOT NULL,
    ADD COLUMN refund_id uuid CONSTRAINT resolutions_refund_id_fkey REFERENCES refunds,
    DROP CONSTRAINT resolutions_decision_known,
    ADD CONSTRAINT resolutions_decision_known CHECK (decision IN ('paid', 'not_paid', 'refunded', 'not_refunded')),
    ADD CONSTRAINT resolutions_of_what_is_decided CHECK (
        num_nonnulls(payment_id, refund_id) = 1 AND (refund_id IS NULL) = (decision IN ('paid', 'not_paid')));

SELECT audit_watch('resolutions', 'phi_modification', '{reason}', batch =>
    'coalesce((SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id),'
    ' (SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id))');

-- Indexes that a claim reads in its own order and no further: what is due, first tries and later ones apart. And those that
-- lists and reports need once there is a long history.

CREATE INDEX payments_first_tries ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('planned', 'unknown');
CREATE INDEX payments_later_tries ON payments (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('planned', 'unknown');
CREATE INDEX notifications_first_tries ON notifications (batch_id, kind, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('ready', 'unknown');
CREATE INDEX notifications_later_tries ON notifications (batch_id, kind, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('ready', 'unknown');
CREATE INDEX refunds_first_tries ON refunds (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts = 0 AND status IN ('planned', 'unknown');
CREATE INDEX refunds_later_tries ON refunds (batch_id, next_attempt_at)
    WHERE claimed_by IS NULL AND attempts > 0 AND status IN ('planned', 'unknown');

CREATE INDEX payment_orders_order ON payment_orders (order_id);
CREATE INDEX batches_received ON batches (received_at, batch_id);

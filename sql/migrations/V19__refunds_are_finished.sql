-- Refunds that were asked for, and the corrections that follow them, are gone on with until they are through.

CREATE INDEX refunds_open ON refunds (batch_id) WHERE settled_at IS NULL;
CREATE INDEX notifications_open_corrections ON notifications (batch_id)
    WHERE kind = 'correction' AND status NOT IN ('sent', 'failed');

-- A correction's orders are final: it waits for nothing. Those that nobody came to plan are made up for.
UPDATE notifications SET status = 'ready' WHERE kind = 'correction' AND status = 'waiting';
WITH uncorrected AS (
    SELECT refund_id, order_id, told.notification_id AS told_by
    FROM refund_orders JOIN notification_orders AS told USING (order_id)
    WHERE live AND was_told AND correction_id IS NULL
), planned AS MATERIALIZED (
    SELECT told_by, gen_random_uuid() AS correction_id FROM uncorrected GROUP BY told_by
), written AS (
    INSERT INTO notifications (notification_id, batch_id, customer_code, channel, kind, status)
    SELECT correction_id, batch_id, customer_code, channel, 'correction', 'ready'
    FROM planned JOIN notifications ON notification_id = told_by
)
UPDATE refund_orders SET correction_id = planned.correction_id FROM uncorrected JOIN planned USING (told_by)
WHERE refund_orders.refund_id = uncorrected.refund_id AND refund_orders.order_id = uncorrected.order_id;

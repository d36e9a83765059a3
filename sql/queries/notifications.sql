-- name: orders_to_notify
-- Orders whose customer is to be notified and that no notification covers yet.
SELECT order_id, customer_code, is_nobodys, notify_channel, import_row_number, personal FROM orders
WHERE batch_id = :batch_id AND notify_channel <> 'none'
  AND NOT EXISTS (SELECT FROM notification_orders AS member WHERE member.order_id = orders.order_id)
ORDER BY import_row_number

-- name: next_notification_ids
-- The ids of the next notifications about some rows of a batch each, in order.
WITH batch AS MATERIALIZED (SELECT batch_identity(:batch_id) AS identity)
SELECT next_notification_id(batch.identity, 'result', CAST(members AS integer[])) AS notification_id
FROM batch, unnest(CAST(:members AS text[])) WITH ORDINALITY AS planned (members, place) ORDER BY place

-- name: insert_notifications
-- The planned notifications; each waits for its orders to be final.
INSERT INTO notifications (notification_id, batch_id, customer_code, channel)
SELECT notification_id, :batch_id, customer_code, channel
FROM unnest(CAST(:notification_ids AS uuid[]), CAST(:customer_codes AS text[]), CAST(:channels AS text[]))
     AS planned (notification_id, customer_code, channel)

-- name: insert_notification_orders
-- Which orders each one is about.
INSERT INTO notification_orders (notification_id, order_id)
SELECT * FROM unnest(CAST(:notification_ids AS uuid[]), CAST(:order_ids AS bigint[]))

-- name: lock_waiting_notifications
-- The waiting notifications that payments belong to, so that two workers do not each leave the last word to the other.
SELECT notification_id FROM notifications
WHERE status = 'waiting' AND notification_id = ANY(ARRAY(
    SELECT DISTINCT member.notification_id
    FROM payment_orders AS share JOIN notification_orders AS member USING (order_id)
    WHERE share.payment_id = ANY(CAST(:payment_ids AS uuid[]))))
ORDER BY notification_id FOR UPDATE

-- name: ready_notifications
-- Those of them whose orders are all final.
UPDATE notifications SET status = 'ready', next_attempt_at = now()
WHERE notification_id = ANY(CAST(:notification_ids AS uuid[])) AND status = 'waiting' AND NOT EXISTS (
    SELECT FROM notification_orders AS member JOIN orders USING (order_id)
    WHERE member.notification_id = notifications.notification_id
      AND orders.status IN ('pending', 'paying', 'unknown'))

-- name: ready_notifications_of_batch
-- The same over a whole batch.
UPDATE notifications SET status = 'ready', next_attempt_at = now()
WHERE batch_id = :batch_id AND status = 'waiting' AND NOT EXISTS (
    SELECT FROM notification_orders AS member JOIN orders USING (order_id)
    WHERE member.notification_id = notifications.notification_id
      AND orders.status IN ('pending', 'paying', 'unknown'))

-- name: claim_doubtful_notifications
-- Take what may have been sent for a worker that looks it up and sends nothing.
UPDATE notifications SET claimed_by = :worker_id, attempts = attempts + 1
WHERE batch_id = :batch_id AND kind = 'result' AND status = 'unknown' AND claimed_by IS NULL
RETURNING notification_id

-- name: cancel_notifications
-- Nobody is notified of results any more.
UPDATE notifications SET status = 'cancelled', settled_at = clock_timestamp()
WHERE batch_id = :batch_id AND kind = 'result' AND status IN ('waiting', 'ready')

-- name: claimed_notifications
-- What claimed notifications are to say, as their orders are now; of lines, some of the first orders'.
SELECT claimed.notification_id, claimed.kind, claimed.customer_code, claimed.channel, claimed.status, claimed.attempts,
       members.order_refs, members.refs, members.amounts, members.order_statuses, members.line_counts, members.items,
       first.import_row_number, first.personal
FROM notifications AS claimed
CROSS JOIN LATERAL (
    SELECT array_agg(order_reference(batch_id, import_row_number) ORDER BY import_row_number) AS order_refs,
           array_agg(client_order_ref ORDER BY import_row_number) AS refs,
           array_agg(amount ORDER BY import_row_number)           AS amounts,
           array_agg(status ORDER BY import_row_number)           AS order_statuses,
           array_agg(line_count ORDER BY import_row_number)       AS line_counts,
           array_agg(CASE WHEN line_count IS NOT NULL AND place <= :most_orders THEN (
               SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(line)))
               FROM (SELECT item_code, quantity, amount FROM order_lines
                     WHERE order_lines.batch_id = member.batch_id AND order_row = member.import_row_number
                     ORDER BY order_lines.import_row_number LIMIT :most_items) AS line
           ) END ORDER BY import_row_number)                      AS items,
           (array_agg(order_id ORDER BY import_row_number))[1]    AS first_id
    FROM (SELECT *, row_number() OVER (ORDER BY import_row_number) AS place FROM orders WHERE order_id = ANY(ARRAY(
        SELECT order_id FROM notification_orders AS member WHERE member.notification_id = claimed.notification_id
        UNION ALL
        SELECT order_id FROM refund_orders AS refund_share WHERE refund_share.correction_id = claimed.notification_id))
    ) AS member
) AS members
JOIN orders AS first ON first.order_id = members.first_id
WHERE claimed.notification_id = ANY(CAST(:notification_ids AS uuid[]))
ORDER BY claimed.next_attempt_at

-- name: insert_api_token
-- A client gets a token.
INSERT INTO api_tokens (token_id, client_code, name, scopes, secret_sha256, created_by, expires_at)
VALUES (:token_id, :client_code, :title, CAST(:scopes AS text[]), :secret_sha256, :created_by,
        now() + make_interval(days => :days))
RETURNING expires_at

-- name: api_token
-- A token by its public part, and whether it is worth anything now.
SELECT token_id, client_code, scopes, secret_sha256, revoked_at IS NULL AND expires_at > now() AS is_valid,
       last_used_at IS NULL OR last_used_at < date_trunc('hour', now()) AS is_first_use
FROM api_tokens WHERE token_id = :token_id

-- name: touch_api_token
-- It was used in this hour, first at this moment.
UPDATE api_tokens SET last_used_at = now()
WHERE token_id = :token_id AND (last_used_at IS NULL OR last_used_at < date_trunc('hour', now()))

-- name: api_tokens
-- All tokens, those of one client together.
SELECT token_id, client_code, name, scopes, created_by, created_at, expires_at, revoked_at, last_used_at,
       revoked_at IS NULL AND expires_at > now() AS is_valid
FROM api_tokens ORDER BY client_code, created_at, token_id

-- name: revoke_api_token
-- A token is worth nothing any more; when it was revoked already, it was then.
UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE token_id = :token_id RETURNING client_code, revoked_at

-- name: insert_api_session
-- A browser is signed in.
INSERT INTO api_sessions (session_sha256, token_id, client_code, actor, scopes)
VALUES (:session_sha256, :token_id, :client_code, :actor, CAST(:scopes AS text[]))

-- name: api_session
-- A session that has not ended, and whether its last use is to be written down again.
SELECT api_sessions.client_code, actor, api_sessions.scopes, token_id,
       api_sessions.last_used_at < now() - interval '5 minutes' AS is_stale
FROM api_sessions LEFT JOIN api_tokens USING (token_id)
WHERE session_sha256 = :session_sha256 AND ended_at IS NULL
  AND api_sessions.created_at > now() - interval '24 hours' AND api_sessions.last_used_at > now() - interval '8 hours'
  AND (token_id IS NULL OR (revoked_at IS NULL AND expires_at > now()))

-- name: touch_api_session
-- It was used just now.
UPDATE api_sessions SET last_used_at = now()
WHERE session_sha256 = :session_sha256 AND last_used_at < now() - interval '5 minutes'

-- name: end_api_session
-- Somebody has signed out.
UPDATE api_sessions SET ended_at = coalesce(ended_at, now()) WHERE session_sha256 = :session_sha256

-- name: purge_api_sessions
-- Sessions are forgotten after 30 days.
DELETE FROM api_sessions WHERE created_at < now() - interval '30 days'

-- name: api_sender
-- Who sent or decided about a batch, in words: what their token is called, or who else it is.
SELECT coalesce((SELECT name FROM api_tokens WHERE token_id = split_part(:who, '/', 2)),
                nullif(split_part(:who, '/', 2), ''), :who)

-- name: api_client_of
-- Whose batch this is, or whose the batch of which a refund was asked for.
SELECT client_code FROM batches
WHERE batch_id = coalesce(:batch_id, (SELECT batch_id FROM refund_requests WHERE request_id = CAST(:refund_id AS uuid)))

-- name: api_batch
-- A client's batch with its counts.
SELECT * FROM batches JOIN batch_counts USING (batch_id) WHERE batch_id = :batch_id AND client_code = :client_code

-- name: api_batch_version
-- What is another whenever a batch, or one that corrects rows of it, has changed itself.
SELECT string_agg(CAST(xmin AS text), ' ' ORDER BY batch_id) FROM batches
WHERE bulk_import_group = (SELECT bulk_import_group FROM batches WHERE batch_id = :batch_id)

-- name: api_batches
-- A page of a client's batches, the newest first.
SELECT batch_id, csv_source, via, status, status_code, source_sha256, source_bytes, bulk_import_group, corrects,
       rows_total, rows_accepted, rows_rejected, rows_blank, rows_skipped, received_at, finished_at
FROM batches
WHERE client_code = :client_code
  AND received_at >= CAST(:from_at AS timestamptz) AND received_at < CAST(:to_at AS timestamptz)
  AND (received_at, batch_id) < (CAST(:before_at AS timestamptz), :before_id)
  AND (CAST(:status AS text) IS NULL OR status = :status)
  AND (CAST(:csv_source AS text) IS NULL OR csv_source = :csv_source)
  AND (CAST(:sha256 AS text) IS NULL OR source_sha256 = :sha256)
  AND (CAST(:key_sha256 AS bytea) IS NULL
       OR batch_id = (SELECT batch_id FROM api_requests
                      WHERE api_requests.client_code = :client_code AND key_sha256 = :key_sha256 AND request_id IS NULL))
ORDER BY received_at DESC, batch_id DESC LIMIT :limit

-- name: api_batch_file
-- What is known of a client's batch without counting: its file and how its text is laid out.
SELECT batch_id, csv_source, source_sha256, source_layout, encoding, status, submitted_by, bulk_import_group FROM batches
WHERE batch_id = :batch_id AND client_code = :client_code

-- name: api_rejections
-- A page of what is wrong with a client's batch: the file first, then row by row.
SELECT rejection_id, coalesce(import_row_number, 0) AS place, import_row_number, line, column_name, code, detail
FROM rejections JOIN batches USING (batch_id)
WHERE batch_id = :batch_id AND client_code = :client_code
  AND (coalesce(import_row_number, 0), rejection_id) > (:after_row, :after_id)
  AND (CAST(:code AS text) IS NULL OR code = :code)
  AND (CAST(:column_name AS text) IS NULL OR column_name = :column_name)
ORDER BY coalesce(import_row_number, 0), rejection_id LIMIT :limit

-- name: api_rejections_by_kind
-- What is wrong with a client's batch, column by column and code by code, with the first row that it is wrong with.
SELECT code, column_name, count(*) AS rows, min(import_row_number) AS first_row,
       (array_agg(detail ORDER BY rejection_id))[1] AS detail
FROM rejections JOIN batches USING (batch_id)
WHERE batch_id = :batch_id AND client_code = :client_code
GROUP BY code, column_name ORDER BY count(*) DESC, code, column_name

-- name: page_rejections
-- What is wrong with some rows of a batch.
SELECT import_row_number, line, column_name, code, detail FROM rejections
WHERE batch_id = :batch_id AND import_row_number = ANY (CAST(:numbers AS integer[]))
ORDER BY import_row_number, rejection_id

-- name: page_rows_to_correct
-- In which batches of an import group how many rows wait for a correction.
-- Whether one was sent that is not loaded yet, and of how many rows that is, as far as it is known.
SELECT batches.batch_id, batches.csv_source, count(*) AS rows_open, sent.corrections > 0 AS is_under_way, sent.rows_sent
FROM rows_to_correct(:bulk_import_group) JOIN batches USING (batch_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS corrections, sum(rows_total - rows_blank) AS rows_sent FROM batches AS others
    WHERE others.bulk_import_group = :bulk_import_group AND others.corrects = batches.batch_id
      AND CASE others.status WHEN 'stopped' THEN others.stopped_from ELSE others.status END
          IN ('received', 'staged', 'validated')
) AS sent
GROUP BY batches.batch_id, sent.corrections, sent.rows_sent ORDER BY batches.batch_id

-- name: page_batches
-- A page of a client's batches as a person sees them, the newest first.
SELECT batch_id, client_code, csv_source, status, status_code, rows_total, rows_accepted, rows_rejected, amount_accepted,
       corrects, received_at
FROM batches
WHERE client_code = :client_code AND (received_at, batch_id) < (CAST(:before_at AS timestamptz), :before_id)
ORDER BY received_at DESC, batch_id DESC LIMIT :limit

-- name: page_batches_of_all
-- A page of all batches as an operator sees them, the newest first.
SELECT batch_id, client_code, csv_source, status, status_code, rows_total, rows_accepted, rows_rejected, amount_accepted,
       corrects, received_at
FROM batches
WHERE (received_at, batch_id) < (CAST(:before_at AS timestamptz), :before_id)
ORDER BY received_at DESC, batch_id DESC LIMIT :limit

-- name: page_unfinished
-- Batches that have not ended, those first that came first.
SELECT batch_id, client_code, csv_source, status, status_code, rows_total, rows_accepted, rows_rejected, amount_accepted,
       corrects, received_at
FROM batches WHERE finished_at IS NULL ORDER BY received_at LIMIT :limit

-- name: page_refunds
-- Of how many orders of some batches the yen were refunded, are being, or wait for a person to decide.
SELECT refunds.batch_id,
       count(*) FILTER (WHERE status = 'succeeded') AS orders_refunded,
       CAST(coalesce(sum(share.amount) FILTER (WHERE status = 'succeeded'), 0) AS bigint) AS yen_refunded,
       count(*) FILTER (WHERE is_open AND NOT needs_a_person) AS orders_open,
       CAST(coalesce(sum(share.amount) FILTER (WHERE is_open AND NOT needs_a_person), 0) AS bigint) AS yen_open,
       count(*) FILTER (WHERE is_open AND needs_a_person) AS orders_undecided,
       CAST(coalesce(sum(share.amount) FILTER (WHERE is_open AND needs_a_person), 0) AS bigint) AS yen_undecided
FROM refunds JOIN refund_orders AS share USING (refund_id)
CROSS JOIN LATERAL (
    SELECT settled_at IS NULL AS is_open, next_attempt_at > now() + interval '1 day' AS needs_a_person
) AS waits
WHERE refunds.batch_id = ANY (CAST(:batch_ids AS text[])) GROUP BY refunds.batch_id

-- name: page_days
-- What was received since a day, by client and day in Japan.
SELECT client_code, CAST(received_at AT TIME ZONE 'Asia/Tokyo' AS date) AS day, count(*) AS batches,
       CAST(coalesce(sum(rows_accepted), 0) AS bigint) AS accepted, CAST(coalesce(sum(rows_rejected), 0) AS bigint) AS rejected,
       CAST(coalesce(sum(amount_accepted), 0) AS bigint) AS yen
FROM batches WHERE received_at >= CAST(:since AS timestamptz) GROUP BY 1, 2

-- name: api_orders
-- A page of a client's batch's orders, without personal values, in the order of the file, and how far each one's notification is.
SELECT import_row_number, client_order_ref, order_date, orders.customer_code, item_code, quantity, unit_price, amount,
       payment_method, notify_channel, orders.status, status_changed_at,
       (SELECT payment_id FROM payment_orders WHERE payment_orders.order_id = orders.order_id AND live) AS payment_id,
       notification_id, notice.status AS notification_status
FROM orders
LEFT JOIN (notification_orders JOIN notifications AS notice USING (notification_id)) USING (order_id)
WHERE orders.batch_id = :batch_id AND client_code = :client_code AND import_row_number > :after_row
  AND (CAST(:status AS text) IS NULL OR orders.status = :status)
  AND (CAST(:notification AS text) IS NULL OR notice.status = :notification)
ORDER BY import_row_number LIMIT :limit

-- name: paid_not_notified
-- How many orders of a batch are paid without their customer having been notified before it was cancelled, and their yen.
SELECT count(*) AS orders, CAST(coalesce(sum(amount), 0) AS bigint) AS yen
FROM orders JOIN notification_orders USING (order_id) JOIN notifications AS notice USING (notification_id)
WHERE orders.batch_id = :batch_id AND orders.status = 'paid' AND notice.status = 'cancelled'

-- name: page_paid_not_notified
-- Those orders of a client's batch, in the order of the file.
SELECT import_row_number, client_order_ref, orders.customer_code, amount, notify_channel
FROM orders JOIN notification_orders USING (order_id) JOIN notifications AS notice USING (notification_id)
WHERE orders.batch_id = :batch_id AND client_code = :client_code AND orders.status = 'paid' AND notice.status = 'cancelled'
ORDER BY import_row_number

-- name: api_payments
-- A page of a client's batch's payments.
SELECT payment_id, customer_code, payment_method, payments.amount, payments.status, outcome_code, service_payment_id,
       payments.sent_at, settled_at
FROM payments JOIN batches USING (batch_id)
WHERE batch_id = :batch_id AND client_code = :client_code AND payment_id > CAST(:after_id AS uuid)
  AND (CAST(:status AS text) IS NULL OR payments.status = :status)
ORDER BY payment_id LIMIT :limit

-- name: api_notifications
-- A page of a client's batch's notifications.
SELECT notification_id, customer_code, channel, kind, notifications.status, outcome_code, sent_at, settled_at
FROM notifications JOIN batches USING (batch_id)
WHERE batch_id = :batch_id AND client_code = :client_code AND notification_id > CAST(:after_id AS uuid)
  AND (CAST(:status AS text) IS NULL OR notifications.status = :status)
ORDER BY notification_id LIMIT :limit

-- name: api_refund
-- What was asked to be refunded of a client's batch, and how far it is.
SELECT request.request_id, request.batch_id, request.created_at, request.finished_at, made.*, shares.*, corrections.*
FROM refund_requests AS request JOIN batches USING (batch_id)
CROSS JOIN LATERAL (
    SELECT count(*)                                                       AS planned,
           count(*) FILTER (WHERE status = 'succeeded')                   AS succeeded,
           count(*) FILTER (WHERE status = 'declined')                    AS declined,
           count(*) FILTER (WHERE status = 'unknown')                     AS unknown,
           coalesce(sum(amount), 0)                                       AS yen_planned,
           coalesce(sum(amount) FILTER (WHERE status = 'succeeded'), 0)   AS yen_succeeded,
           coalesce(sum(amount) FILTER (WHERE status = 'declined'), 0)    AS yen_declined,
           coalesce(sum(amount) FILTER (WHERE status = 'unknown'), 0)     AS yen_unknown
    FROM refunds WHERE refunds.request_id = request.request_id
) AS made
CROSS JOIN LATERAL (
    SELECT count(*) AS orders_chosen, count(*) FILTER (WHERE status = 'succeeded') AS orders_refunded
    FROM refunds JOIN refund_orders AS refund_share USING (refund_id) WHERE refunds.request_id = request.request_id
) AS shares
CROSS JOIN LATERAL (
    SELECT count(*)                                  AS corrections_planned,
           count(*) FILTER (WHERE status = 'sent')   AS corrections_sent,
           count(*) FILTER (WHERE status = 'failed') AS corrections_failed
    FROM notifications WHERE notification_id = ANY(ARRAY(
        SELECT correction_id FROM refunds JOIN refund_orders AS refund_share USING (refund_id)
        WHERE refunds.request_id = request.request_id))
) AS corrections
WHERE request.request_id = CAST(:request_id AS uuid) AND client_code = :client_code

-- name: api_refunds_not_made
-- The first refunds of a request that were declined, or of which it is not known whether they were made.
SELECT status, amount, outcome_code, refs, settled_at IS NULL AND next_attempt_at > now() + interval '1 day' AS needs_a_person
FROM refunds
CROSS JOIN LATERAL (
    SELECT array_agg(client_order_ref ORDER BY import_row_number) AS refs
    FROM refund_orders AS refund_share JOIN orders USING (order_id) WHERE refund_share.refund_id = refunds.refund_id
) AS members
WHERE request_id = CAST(:request_id AS uuid) AND status IN ('declined', 'unknown')
ORDER BY refund_id LIMIT :limit

-- name: api_request
-- What was made of the request with a client's idempotency key.
SELECT batch_id, request_id, fingerprint FROM api_requests WHERE client_code = :client_code AND key_sha256 = :key_sha256

-- name: request_run_now
-- Count a run that a client wants of its unfinished batch, unless one was requested a moment ago.
UPDATE batches SET run_requests = run_requests + 1, run_requested_at = now()
WHERE batch_id = :batch_id AND finished_at IS NULL
  AND (run_requested_at IS NULL OR run_requested_at < now() - make_interval(secs => :patience_s))
RETURNING source_bytes, run_requests

-- name: insert_api_request
-- A request makes a batch or asks for a refund, in this transaction; one with the same key that does so too is waited for.
INSERT INTO api_requests (client_code, key_sha256, fingerprint, batch_id, request_id)
VALUES (:client_code, :key_sha256, :fingerprint, :batch_id, CAST(:request_id AS uuid)) ON CONFLICT DO NOTHING

-- name: purge_api_requests
-- Keys are forgotten after 30 days.
DELETE FROM api_requests WHERE created_at < now() - interval '30 days'

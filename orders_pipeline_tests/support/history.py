"""A long history put into a migrated database by a few statements: batches, orders, payments and what belongs to them.

For tests of what statements cost behind it. Personal columns are bytes that nobody can open; triggers are off meanwhile.
"""

from __future__ import annotations

import psycopg
from pydantic import SecretStr

from orders_pipeline.infrastructure.database_url import libpq_url

PER_PAYMENT = 8  # orders of a customer in a batch
STATEMENTS = """
SET LOCAL session_replication_role = replica;
CREATE TEMPORARY TABLE sizes ON COMMIT DROP AS SELECT {batches} AS batches, {orders} AS orders;
INSERT INTO batches (batch_id, client_code, csv_source, landing_key, landing_version, source_sha256, source_bytes,
                     bulk_import_group, status, rows_total, rows_blank, rows_accepted, rows_rejected, amount_accepted,
                     received_at, finished_at)
SELECT '20250101-' || lpad(to_hex(b), 12, '0'), 'client' || b % 10, 'orders.csv', 'client' || b % 10 || '/' || b, 'v1',
       md5(b::text), 1000, '20250101-' || lpad(to_hex(b), 12, '0'), 'completed_with_errors', orders + 10, 0, orders, 10,
       orders * 1000, now() - make_interval(hours => b), now() - make_interval(hours => b, mins => -10)
FROM sizes, generate_series(1, batches) AS b;
INSERT INTO batch_stages SELECT batch_id, stage, 1 FROM batches, unnest(ARRAY['stage', 'validate', 'load', 'pay']) AS stage;
INSERT INTO loaded_chunks SELECT batch_id, n, 10000 FROM batches, generate_series(0, 2) AS n;
INSERT INTO landing_files SELECT landing_key, landing_version, 1000, now(), batch_id FROM batches;
INSERT INTO landing_files SELECT 'client1/' || n, 'v0', 1000, now() FROM generate_series(1, 3000) AS n;
INSERT INTO workers (batch_id, lease_until, started_at, ended_at)
SELECT batch_id, received_at, received_at, received_at FROM batches, generate_series(1, 30);
INSERT INTO orders (batch_id, import_row_number, csv_source, bulk_import_group, client_code, client_order_ref,
                    customer_code, amount, payment_method, notify_channel, personal, status, created_at, status_changed_at)
SELECT batch_id, r, csv_source, batch_id, client_code, 'R-' || right(batch_id, 6) || '-' || r,
       'C' || (r - 1) / {per_payment}, 1000, 'invoice', 'email', decode(repeat(md5(r::text), 8), 'hex'),
       CASE ((r - 1) / {per_payment} + hashtext(batch_id)) % 50 WHEN 7 THEN 'declined' WHEN 9 THEN 'refunded'
            ELSE 'paid' END, received_at, received_at
FROM sizes, batches, generate_series(1, orders) AS r
ORDER BY batch_id, r;  -- together, as a batch is loaded
INSERT INTO order_lines (batch_id, order_row, import_row_number, item_code)
SELECT batch_id, import_row_number, import_row_number, 'A-1' FROM orders WHERE import_row_number % 2 = 0;
INSERT INTO rejections (batch_id, import_row_number, line, column_name, code, detail)
SELECT batch_id, orders + r, orders + r, 'amount', 'R_AMOUNT_FORMAT', '{{}}'
FROM sizes, batches, generate_series(1, 10) AS r;
INSERT INTO corrections (batch_id, import_row_number, corrects, corrects_row)
SELECT '20250101-' || lpad(to_hex(b), 12, '0'), r, '20250101-' || lpad(to_hex(b - 1), 12, '0'), orders + r
FROM sizes, generate_series(2, batches) AS b, generate_series(1, 3) AS r;
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
SELECT gen_random_uuid() AS id, gen_random_uuid() AS other_id, batch_id, customer_code, status,
       sum(amount)::integer AS amount, array_agg(order_id) AS ids, min(created_at) AS at, row_number() OVER () AS n
FROM orders GROUP BY batch_id, customer_code, status;
INSERT INTO payments (payment_id, batch_id, customer_code, payment_method, amount, status, next_attempt_at, sent_at,
                      settled_at, service_payment_id, created_at)
SELECT id, batch_id, customer_code, 'invoice', amount,
       CASE status WHEN 'paid' THEN 'succeeded' ELSE status END, at, at, at, 'pay-' || n, at FROM made;
INSERT INTO payment_orders (payment_id, order_id, amount, live) SELECT id, unnest(ids), 1000, status <> 'declined' FROM made;
INSERT INTO notifications (notification_id, batch_id, customer_code, channel, status, next_attempt_at, sent_at,
                           settled_at, service_notification_id, outcome_code, created_at)
SELECT id, batch_id, customer_code, 'email', CASE WHEN n % 100 = 3 THEN 'failed' ELSE 'sent' END, at, at, at, 'not-' || n,
       CASE WHEN n % 100 = 3 THEN 'bad-address' END, at FROM made;
INSERT INTO notification_orders SELECT id, unnest(ids) FROM made;
INSERT INTO refunds (refund_id, payment_id, batch_id, amount, status, next_attempt_at, sent_at, settled_at,
                     service_refund_id, requested_by, reason, created_at)
SELECT other_id, id, batch_id, amount, 'succeeded', at, at, at, 'ref-' || n, 'somebody', 'because', at FROM made
WHERE status = 'refunded';
INSERT INTO notifications (notification_id, batch_id, customer_code, channel, kind, status, next_attempt_at, sent_at,
                           settled_at, service_notification_id, created_at)
SELECT other_id, batch_id, customer_code, 'email', 'correction', 'sent', at, at, at, 'cor-' || n, at FROM made
WHERE status = 'refunded';
INSERT INTO refund_orders (refund_id, order_id, amount, was_told, correction_id)
SELECT other_id, unnest(ids), 1000, true, other_id FROM made WHERE status = 'refunded';
INSERT INTO resolutions (payment_id, decision, decided_by, reason)
SELECT id, 'paid', 'somebody', 'looked' FROM made WHERE n % 200 = 0;
INSERT INTO reconciliation_findings (code, batch_id, payment_id, detail, compared_from, compared_to, first_seen_at,
                                     last_seen_at, closed_at, closed_how)
SELECT 'C_STATE_DIFFERS', batch_id, id, '{{}}', at, at, at, at, at, 'gone' FROM made WHERE n % 10 = 0;
INSERT INTO given_up_references (batch_id, client_code, import_row_number, reference)
SELECT batch_id, client_code, import_row_number, 'old-' || order_id FROM orders WHERE import_row_number <= 3;
INSERT INTO refusals (item_id, batch_id, service, kind, customer_code, code, is_settled)
SELECT id, batch_id, 'payment', 'invoice', customer_code, 'bad-customer', true FROM made WHERE n % 5 = 0;
INSERT INTO acceptances (kind, batch_id, asked_at) SELECT 'invoice', batch_id, finished_at FROM batches;
INSERT INTO batch_locks (batch_id, lock_no) SELECT batch_id, 1 FROM batches;
INSERT INTO batch_summaries (batch_id, schema_rank, summary) SELECT batch_id, 0, '{{}}' FROM batches;
INSERT INTO landing_left_alone (key) SELECT 'client1/notes-' || n FROM generate_series(1, 1000) AS n;
INSERT INTO batch_closings (batch_id, orders_paid, orders_declined, amount_paid, amount_declined, amount_at_service,
                            differences, figures_sha256)
SELECT batch_id, 1, 1, 1000, 1000, 1000, '{{}}', md5(batch_id) FROM batches, generate_series(1, 3);
INSERT INTO audit_events (at, category, action, actor, origin, login, transaction, entity, batch_id, rows)
SELECT at, 'phi_access', 'read', 'somebody', 'test', 'test', '1', 'orders', batch_id, 1 FROM made;
INSERT INTO audit_seals (block_no, category, day, first_id, last_id, records, through_id, digests, head)
SELECT n, (ARRAY['phi_access', 'phi_modification', 'administrative', 'security', 'authentication'])[n % 5 + 1],
       current_date - n / 300, n, n, 1, n, sha256(n::text::bytea), sha256(n::text::bytea)
FROM generate_series(1, {blocks}) AS n;
INSERT INTO audit_blocks (block_no, category, day, place, key, batch_ids)
SELECT block_no, category, day, CASE WHEN block_no < {blocks} / 2 THEN 'warm' ELSE 'hot' END,
       CASE WHEN block_no < {blocks} / 2 THEN 'audit/' || block_no / 10 END, '{{}}' FROM audit_seals;
"""


def fill(url: SecretStr, *, batches: int, orders: int, blocks: int = 1000) -> None:
    """Put `batches` finished batches of so many `orders` each into the database, as if over months."""
    statements = STATEMENTS.format(batches=batches, orders=orders, blocks=blocks, per_payment=PER_PAYMENT)
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        with connection.transaction():
            connection.execute(statements.encode())
        connection.execute(b"VACUUM (ANALYZE)")

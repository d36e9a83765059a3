-- name: begin_chunk
-- Take a chunk of a batch for loading, unless it is loaded already, or is of orders and a person has stopped the batch.
INSERT INTO loaded_chunks (batch_id, chunk_no, rows)
SELECT batch_id, :chunk_no, :rows FROM batches
WHERE batch_id = :batch_id AND (:chunk_no = 0 OR status NOT IN ('stopped', 'cancelling', 'cancelled')) FOR SHARE
ON CONFLICT DO NOTHING

-- name: column_types
-- The columns of a table and their types.
SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped

-- name: copy_orders
-- Accepted rows, straight into the table; the columns are the catalogue's.
COPY orders ({columns}) FROM STDIN WITH (FORMAT binary)

-- name: copy_order_lines
-- The lines of orders that were copied by the same transaction.
COPY order_lines ({columns}) FROM STDIN WITH (FORMAT binary)

-- name: create_contested_orders
-- A place beside the table for a chunk that may collide with another batch.
CREATE TEMPORARY TABLE contested_orders ON COMMIT DROP AS SELECT * FROM orders WITH NO DATA

-- name: copy_contested_orders
-- The same rows, beside the table.
COPY contested_orders ({columns}) FROM STDIN WITH (FORMAT binary)

-- name: create_contested_lines
-- A place beside the table for their lines.
CREATE TEMPORARY TABLE contested_lines ON COMMIT DROP AS SELECT * FROM order_lines WITH NO DATA

-- name: copy_contested_lines
-- The lines of those rows.
COPY contested_lines ({columns}) FROM STDIN WITH (FORMAT binary)

-- name: insert_contested_orders
-- Those whose reference is still free.
INSERT INTO orders ({columns}) SELECT {columns} FROM contested_orders
ON CONFLICT (lower(client_order_ref), client_code) WHERE NOT is_cancelled DO NOTHING

-- name: reject_contested_orders
-- The others are rejected, naming the batch that has the reference, and the columns among those compared that differ.
WITH lost AS (
    SELECT mine.batch_id, mine.import_row_number, mine.line_count, mine.amount, theirs.batch_id AS other,
           (SELECT coalesce(string_agg(name, ', ' ORDER BY place), '')
            FROM jsonb_each(to_jsonb(mine)) AS m (name, cell)
            JOIN jsonb_each(to_jsonb(theirs)) AS t (name, cell) USING (name)
            JOIN unnest(string_to_array(:compared, ',')) WITH ORDINALITY AS compared (name, place) USING (name)
            WHERE m.cell <> t.cell) AS columns
    FROM contested_orders AS mine
    JOIN orders AS theirs ON lower(theirs.client_order_ref) = lower(mine.client_order_ref)
                         AND theirs.client_code = mine.client_code AND theirs.batch_id <> mine.batch_id
                         AND NOT theirs.is_cancelled
), rejected AS (
    INSERT INTO rejections (batch_id, import_row_number, column_name, code, detail)
    SELECT batch_id, import_row_number, 'client_order_ref',
           CASE columns WHEN '' THEN 'R_REF_EXISTS' ELSE 'R_REF_EXISTS_DIFFERS' END,
           jsonb_strip_nulls(jsonb_build_object('batch_id', other, 'columns', nullif(columns, '')))
    FROM lost
)
SELECT count(*) AS orders, coalesce(sum(coalesce(line_count, 1)), 0) AS rows, coalesce(sum(amount), 0) AS amount
FROM lost WHERE batch_id = :batch_id

-- name: insert_contested_lines
-- The lines of those that became orders.
INSERT INTO order_lines
SELECT line.* FROM contested_lines AS line
JOIN orders ON orders.batch_id = line.batch_id AND orders.import_row_number = line.order_row

-- name: reject_contested_lines
-- The other rows of orders that were rejected are rejected for the same reason.
INSERT INTO rejections (batch_id, import_row_number, column_name, code, detail)
SELECT line.batch_id, line.import_row_number, why.column_name, why.code, why.detail
FROM contested_lines AS line
JOIN rejections AS why ON why.batch_id = line.batch_id AND why.import_row_number = line.order_row
WHERE line.import_row_number <> line.order_row

-- name: reject_received_since
-- A row that has become an order elsewhere meanwhile is rejected and no longer loaded.
WITH lost AS (
    DELETE FROM contested_orders WHERE import_row_number = :row_number
    RETURNING batch_id, import_row_number, line_count, amount
), rejected AS (
    INSERT INTO rejections (batch_id, import_row_number, column_name, code, detail)
    SELECT batch_id, import_row_number, 'client_order_ref', :code, jsonb_build_object('batch_id', CAST(:other AS text))
    FROM lost
)
SELECT coalesce(line_count, 1) AS rows, amount FROM lost

-- name: existing_refs
-- Which references (in lower case, with unit separators between them) a client has used in other batches.
SELECT lower(client_order_ref) AS ref, batch_id FROM orders
WHERE lower(client_order_ref) = ANY(string_to_array(:refs, chr(31))) AND client_code = :client_code AND NOT is_cancelled
  AND batch_id <> :batch_id

-- name: settled_refs
-- Those of them whose orders are not just held by a batch that is halted, or that a person may still refuse.
SELECT lower(client_order_ref) AS ref, batch_id FROM orders JOIN batches USING (batch_id)
WHERE lower(client_order_ref) = ANY(string_to_array(:refs, chr(31))) AND orders.client_code = :client_code
  AND NOT is_cancelled AND batch_id <> :batch_id
  AND (orders.status <> 'pending' OR (is_approved AND batches.status NOT IN ('stopped', 'cancelling', 'cancelled')))

-- name: existing_orders
-- What was received under some references of a client.
SELECT lower(client_order_ref) AS ref, * FROM orders
WHERE lower(client_order_ref) = ANY(string_to_array(:refs, chr(31))) AND client_code = :client_code AND NOT is_cancelled
  AND batch_id <> :batch_id

-- name: existing_lines
-- The lines of what was received under some references of a client.
SELECT lower(client_order_ref) AS ref, line.item_code, line.quantity, line.unit_price, line.amount
FROM orders JOIN order_lines AS line ON line.batch_id = orders.batch_id AND line.order_row = orders.import_row_number
WHERE lower(client_order_ref) = ANY(string_to_array(:refs, chr(31))) AND client_code = :client_code AND NOT is_cancelled
  AND orders.batch_id <> :batch_id
ORDER BY line.batch_id, line.import_row_number

-- name: copy_rejections
-- What validation rejected.
COPY rejections (import_row_number, line, column_name, code, detail, batch_id) FROM STDIN WITH (FORMAT binary)

-- name: copy_corrections
-- Which rows of which batch the rows of a correcting file answer.
COPY corrections (import_row_number, corrects_row, first_batch, first_row, batch_id, corrects)
FROM STDIN WITH (FORMAT binary)

-- name: copy_given_up_references
-- Which references those rows had before.
COPY given_up_references (import_row_number, reference, held_by, batch_id, client_code) FROM STDIN WITH (FORMAT binary)

-- name: insert_file_rejection
-- A whole file is rejected, once.
INSERT INTO rejections (batch_id, line, column_name, code, detail)
SELECT :batch_id, :line, :column_name, :code, CAST(:detail AS jsonb)
WHERE NOT EXISTS (SELECT FROM rejections WHERE batch_id = :batch_id AND code = :code
                  AND import_row_number IS NULL AND column_name IS NOT DISTINCT FROM :column_name)

-- name: rejections
-- A batch's rejections in the order of the file.
SELECT import_row_number, line, column_name, code, detail FROM rejections
WHERE batch_id = :batch_id ORDER BY import_row_number NULLS FIRST, rejection_id

-- name: file_rejections
-- Those of them that are of the file as a whole.
SELECT import_row_number, line, column_name, code, detail FROM rejections
WHERE batch_id = :batch_id AND import_row_number IS NULL ORDER BY rejection_id

-- name: row_rejections
-- Those of single rows.
SELECT import_row_number, line, column_name, code, detail FROM rejections
WHERE batch_id = :batch_id AND import_row_number IS NOT NULL ORDER BY import_row_number, rejection_id

-- name: has_row_rejections
-- Whether there are any of single rows.
SELECT EXISTS (SELECT FROM rejections WHERE batch_id = :batch_id AND import_row_number IS NOT NULL)

-- name: orders_with_errors
-- Accepted orders that were not paid, or whose customer could not be notified, with the service's code.
SELECT import_row_number, NULL AS line, NULL AS column_name, client_order_ref,
       CASE status WHEN 'declined' THEN 'P_DECLINED' WHEN 'cancelled' THEN 'P_CANCELLED' ELSE 'P_UNKNOWN' END AS code,
       coalesce(jsonb_build_object('reason', last.outcome_code), '{}') AS detail
FROM orders LEFT JOIN LATERAL (
    SELECT outcome_code FROM payments JOIN payment_orders AS share USING (payment_id)
    WHERE share.order_id = orders.order_id ORDER BY payments.created_at DESC, payments.payment_id LIMIT 1
) AS last ON true
WHERE batch_id = :batch_id AND status IN ('declined', 'unknown', 'cancelled')
UNION ALL
SELECT import_row_number, NULL, NULL, client_order_ref, 'N_FAILED',
       jsonb_build_object('reason', notifications.outcome_code)
FROM notifications
JOIN notification_orders AS member USING (notification_id)
JOIN orders USING (order_id)
WHERE notifications.batch_id = :batch_id AND notifications.status = 'failed'
ORDER BY import_row_number, code

-- name: rejections_by_code
-- How many rows (or files) each code rejects or warns of.
SELECT code, count(*) AS rows, code LIKE 'W%' AS is_warning FROM (
    SELECT DISTINCT code, import_row_number FROM rejections WHERE batch_id = :batch_id
) AS reasons GROUP BY code ORDER BY rows DESC, code

-- name: loaded_totals
-- What the orders of a batch amount to.
SELECT count(*) AS orders, coalesce(sum(coalesce(line_count, 1)), 0) AS rows, coalesce(sum(amount), 0) AS amount,
       count(line_count) AS orders_of_lines,
       (SELECT count(*) FROM order_lines WHERE order_lines.batch_id = :batch_id) AS lines
FROM orders WHERE batch_id = :batch_id

-- name: count_rejected_rows
-- How many rows of a batch have a rejection.
SELECT count(DISTINCT import_row_number) FROM rejections WHERE batch_id = :batch_id

-- name: cancel_orders
-- What was not sent is cancelled; its reference is free again.
UPDATE orders SET status = 'cancelled', status_changed_at = now() WHERE batch_id = :batch_id AND status = 'pending'

-- name: rejected_row_numbers
-- The rows of a batch that were rejected, whether as a total row or for repeating another one, and for which other row.
SELECT import_row_number, bool_or(code = 'R_TOTAL_ROW') AS is_total, bool_or(code = 'R_REF_DUP_IN_FILE') AS is_repeat,
       max(CAST(detail ->> 'other_row' AS integer)) FILTER (WHERE code = 'R_ORDER_INCOMPLETE') AS other_row
FROM rejections WHERE batch_id = :batch_id AND import_row_number IS NOT NULL
GROUP BY import_row_number

-- name: corrected_rows
-- Which rows of the batch that it corrects the rows of a batch answer.
SELECT import_row_number, corrects_row FROM corrections WHERE batch_id = :batch_id

-- name: rejected_rows
-- The codes of some rows of a batch (their numbers with unit separators between them), and the row each corrects itself.
SELECT rejections.import_row_number, code, column_name, detail, corrections.corrects_row
FROM rejections LEFT JOIN corrections USING (batch_id, import_row_number)
WHERE batch_id = :batch_id AND code LIKE 'R\_%'
  AND import_row_number = ANY(CAST(string_to_array(:numbers, chr(31)) AS integer[]))

-- name: rows_received_corrected
-- Rows (of those of a batch where they came first) that are orders of another batch, which corrected them.
SELECT corrections.first_row, orders.batch_id
FROM corrections JOIN order_rows USING (batch_id, import_row_number)
JOIN orders ON orders.batch_id = order_rows.batch_id AND orders.import_row_number = order_row
WHERE corrections.first_batch = :batch_id AND NOT is_cancelled
  AND corrections.first_row = ANY(CAST(string_to_array(:numbers, chr(31)) AS integer[]))

-- name: rows_closed
-- Rows (of those of a batch where they came first) that a correction skipped: it answers them, and has neither order nor error.
SELECT first_row, batch_id FROM corrections AS closing JOIN batches USING (batch_id)
WHERE first_batch = :batch_id AND first_row = ANY(CAST(string_to_array(:numbers, chr(31)) AS integer[]))
  AND (CASE status WHEN 'stopped' THEN stopped_from ELSE status END)
      NOT IN ('received', 'staged', 'validated', 'cancelling', 'cancelled')
  AND (status <> 'rejected' OR coalesce(status_code, '') NOT LIKE 'F\_%')
  AND NOT EXISTS (SELECT FROM order_rows AS held
                  WHERE (held.batch_id, held.import_row_number) = (closing.batch_id, closing.import_row_number))
  AND NOT EXISTS (SELECT FROM rejections AS wrong
                  WHERE (wrong.batch_id, wrong.import_row_number) = (closing.batch_id, closing.import_row_number))

-- name: closes_received_rows
-- Whether a row that a correction skips has become an order of another one since it was validated.
SELECT EXISTS (
    SELECT FROM corrections AS mine
    JOIN corrections AS theirs ON (theirs.first_batch, theirs.first_row) = (mine.first_batch, mine.first_row)
                              AND theirs.batch_id <> mine.batch_id
    JOIN order_rows AS held ON (held.batch_id, held.import_row_number) = (theirs.batch_id, theirs.import_row_number)
    JOIN orders ON (orders.batch_id, orders.import_row_number) = (held.batch_id, held.order_row) AND NOT orders.is_cancelled
    WHERE mine.batch_id = :batch_id
      AND NOT EXISTS (SELECT FROM order_rows AS own
                      WHERE (own.batch_id, own.import_row_number) = (mine.batch_id, mine.import_row_number))
      AND NOT EXISTS (SELECT FROM rejections AS wrong
                      WHERE (wrong.batch_id, wrong.import_row_number) = (mine.batch_id, mine.import_row_number)))

-- name: holders_of_references
-- Which batches have some references of a client, and whether in a row that corrects another.
SELECT lower(client_order_ref) AS ref, orders.batch_id, corrections.batch_id IS NOT NULL AS is_correction
FROM orders LEFT JOIN corrections USING (batch_id, import_row_number)
WHERE lower(client_order_ref) = ANY(string_to_array(:refs, chr(31))) AND client_code = :client_code AND NOT is_cancelled

-- name: has_given_up_refs
-- Whether any reference of a client was given up.
SELECT EXISTS (SELECT FROM given_up_references WHERE client_code = :client_code)

-- name: given_up_refs
-- Which references were given up by rows that are orders under another one now, and in which batches.
SELECT given_up.reference AS ref, orders.batch_id
FROM given_up_references AS given_up JOIN order_rows USING (batch_id, import_row_number)
JOIN orders ON orders.batch_id = order_rows.batch_id AND orders.import_row_number = order_row
WHERE given_up.client_code = :client_code AND given_up.reference = ANY(string_to_array(:refs, chr(31)))
  AND given_up.batch_id <> :batch_id AND NOT is_cancelled

-- name: share_references
-- Others may load orders of the client now, but none that corrects rows of its files.
SELECT pg_advisory_xact_lock_shared(hashtextextended('references of ' || :client_code, 0))

-- name: hold_references
-- Nobody else may load orders of the client now.
SELECT pg_advisory_xact_lock(hashtextextended('references of ' || :client_code, 0))

-- name: rows_received_since
-- Rows just loaded that have become orders elsewhere since they were validated.
-- Under a reference that a correction gave up; as what they correct themselves; or maybe under the one they give up.
-- Or that another correction has skipped, so that nobody is charged for them.
SELECT mine.import_row_number, 'R_REF_SPENT' AS code, given_up.batch_id AS other
FROM given_up_references AS given_up
JOIN order_rows AS held USING (batch_id, import_row_number)
JOIN orders AS theirs ON theirs.batch_id = held.batch_id AND theirs.import_row_number = held.order_row
JOIN orders AS mine ON lower(mine.client_order_ref) = given_up.reference AND mine.client_code = given_up.client_code
WHERE given_up.client_code = :client_code AND given_up.batch_id <> :batch_id AND mine.batch_id = :batch_id
  AND EXISTS (SELECT FROM given_up_references WHERE client_code = :client_code)  -- else no order need be looked up
  AND NOT theirs.is_cancelled
  AND mine.import_row_number BETWEEN :first_row AND :last_row
  AND NOT EXISTS (SELECT FROM corrections
                  WHERE (batch_id, import_row_number) = (mine.batch_id, mine.import_row_number))
UNION ALL
SELECT loaded.order_row, 'R_CORRECTED_BEFORE', theirs.batch_id
FROM corrections AS mine JOIN order_rows AS loaded USING (batch_id, import_row_number)
JOIN corrections AS theirs ON (theirs.first_batch, theirs.first_row) = (mine.first_batch, mine.first_row)
                          AND theirs.batch_id <> mine.batch_id
JOIN order_rows AS held ON (held.batch_id, held.import_row_number) = (theirs.batch_id, theirs.import_row_number)
JOIN orders ON (orders.batch_id, orders.import_row_number) = (held.batch_id, held.order_row) AND NOT orders.is_cancelled
WHERE mine.batch_id = :batch_id AND loaded.order_row BETWEEN :first_row AND :last_row
UNION ALL
SELECT loaded.order_row, 'R_CORRECTED_BEFORE', theirs.batch_id
FROM given_up_references AS mine JOIN order_rows AS loaded USING (batch_id, import_row_number)
JOIN orders AS theirs ON lower(theirs.client_order_ref) = mine.reference AND theirs.client_code = mine.client_code
                     AND NOT theirs.is_cancelled
WHERE mine.batch_id = :batch_id AND loaded.order_row BETWEEN :first_row AND :last_row
  AND theirs.batch_id <> mine.batch_id AND theirs.batch_id IS DISTINCT FROM mine.held_by
UNION ALL
SELECT loaded.order_row, 'R_CORRECTED_BEFORE', theirs.batch_id
FROM corrections AS mine JOIN order_rows AS loaded USING (batch_id, import_row_number)
JOIN corrections AS theirs ON (theirs.first_batch, theirs.first_row) = (mine.first_batch, mine.first_row)
                          AND theirs.batch_id <> mine.batch_id
JOIN batches ON batches.batch_id = theirs.batch_id
WHERE mine.batch_id = :batch_id AND loaded.order_row BETWEEN :first_row AND :last_row
  AND (CASE batches.status WHEN 'stopped' THEN stopped_from ELSE batches.status END)
      NOT IN ('received', 'staged', 'validated', 'cancelling', 'cancelled')
  AND (batches.status <> 'rejected' OR coalesce(batches.status_code, '') NOT LIKE 'F\_%')
  AND NOT EXISTS (SELECT FROM order_rows AS held
                  WHERE (held.batch_id, held.import_row_number) = (theirs.batch_id, theirs.import_row_number))
  AND NOT EXISTS (SELECT FROM rejections AS wrong
                  WHERE (wrong.batch_id, wrong.import_row_number) = (theirs.batch_id, theirs.import_row_number))

-- Lines: the items of orders whose files have several rows an order. An order of one row has none: its item is its own.

ALTER TABLE batches ADD COLUMN rows_continuing integer NOT NULL DEFAULT 0
    CONSTRAINT batches_rows_continuing_accepted CHECK (rows_continuing BETWEEN 0 AND coalesce(rows_accepted, 0));
COMMENT ON COLUMN batches.rows_accepted IS
    'Rows that are or become orders, or lines of orders; null, as rows_rejected, until validated.';
COMMENT ON COLUMN batches.rows_continuing IS
    'Accepted rows that continue the order of a row above them; each of the others is an order.';
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

ALTER TABLE orders
    ADD COLUMN line_count integer,
    ADD COLUMN amount_added integer,
    ADD CONSTRAINT orders_lines_have_the_item CHECK
        (CASE WHEN line_count IS NULL THEN amount_added IS NULL ELSE line_count > 0 AND item_code IS NULL END);
COMMENT ON TABLE orders IS 'An order is one accepted row of a file, or several; written when its batch is loaded.';
COMMENT ON COLUMN orders.import_row_number IS 'Its (first) row in the file, the first below the header being 1.';
COMMENT ON COLUMN orders.line_count IS 'How many rows of the file it is, each a line of it; null: it is one row and has no lines.';
COMMENT ON COLUMN orders.amount_added IS
    'Yen that count once beside its lines, such as postage; null: its amount is not made of its lines''.';
SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true);

-- That a line's order exists is looked up once for all that are written together: see V7, rejections.
CREATE TABLE order_lines (
    batch_id          text COLLATE "C" NOT NULL,
    order_row         integer NOT NULL,
    import_row_number integer NOT NULL,
    item_code         text COLLATE "C",
    quantity          integer,
    unit_price        bigint,
    amount            integer,
    CONSTRAINT order_lines_pkey PRIMARY KEY (batch_id, import_row_number),
    CONSTRAINT order_lines_item_amount CHECK (quantity * unit_price = amount)
);
CREATE INDEX order_lines_order ON order_lines (batch_id, order_row);
COMMENT ON TABLE order_lines IS 'The rows of orders that have several, one line each; written with their orders.';
COMMENT ON COLUMN order_lines.order_row IS 'The import_row_number of its order.';
COMMENT ON COLUMN order_lines.import_row_number IS 'As in orders.';
COMMENT ON COLUMN order_lines.item_code IS 'Null, as quantity and unit_price, where the row says none.';
COMMENT ON COLUMN order_lines.unit_price IS 'Yen; below zero for a discount, as may be amount.';
COMMENT ON COLUMN order_lines.amount IS 'Yen; null where the file gives only the order''s.';
SELECT audit_watch('order_lines', 'phi_modification', bulk => true);

-- All lines of an order are written by one statement. Statistics that lag behind would have all orders read.
CREATE FUNCTION order_lines_make_orders() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT batch_id, order_row, count(*) AS lines, min(import_row_number) AS first_row,
                            count(amount) AS amounts, sum(amount) AS yen
                     FROM after GROUP BY batch_id, order_row) AS written
        LEFT JOIN orders ON orders.batch_id = written.batch_id AND orders.import_row_number = written.order_row
        WHERE lines IS DISTINCT FROM line_count OR first_row <> order_row
           OR CASE WHEN amount_added IS NULL THEN amounts > 0
              ELSE amounts < lines OR yen + amount_added <> orders.amount END
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'order_lines_make_orders',
            MESSAGE = 'lines are not those of their order, or do not come to its amount';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER order_lines_make_orders AFTER INSERT ON order_lines REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION order_lines_make_orders();

CREATE FUNCTION order_lines_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
        MESSAGE = 'lines, and what they make of their order, never change';
END $$;
CREATE TRIGGER order_lines_stay BEFORE UPDATE ON order_lines FOR EACH STATEMENT EXECUTE FUNCTION order_lines_stay();
CREATE TRIGGER orders_with_lines_stay
    BEFORE UPDATE OF batch_id, import_row_number, line_count, amount_added, amount ON orders FOR EACH ROW WHEN (
        (OLD.line_count IS NOT NULL OR NEW.line_count IS NOT NULL)
        AND (OLD.batch_id, OLD.import_row_number, OLD.line_count, OLD.amount_added, OLD.amount)
            IS DISTINCT FROM (NEW.batch_id, NEW.import_row_number, NEW.line_count, NEW.amount_added, NEW.amount))
    EXECUTE FUNCTION order_lines_stay();

CREATE FUNCTION order_lines_go_with_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM order_lines AS line USING before
    WHERE before.line_count IS NOT NULL AND line.batch_id = before.batch_id AND line.order_row = before.import_row_number;
    RETURN NULL;
END $$;
CREATE TRIGGER order_lines_go_with_orders AFTER DELETE ON orders REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION order_lines_go_with_orders();

CREATE FUNCTION order_lines_go_not_alone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM before JOIN orders
               ON orders.batch_id = before.batch_id AND orders.import_row_number = before.order_row) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'order_lines_go_not_alone',
            MESSAGE = 'a line is not removed without its order';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER order_lines_go_not_alone AFTER DELETE ON order_lines REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION order_lines_go_not_alone();

CREATE FUNCTION batches_have_all_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM order_lines WHERE batch_id = NEW.batch_id)
       IS DISTINCT FROM (SELECT sum(line_count) FROM orders WHERE batch_id = NEW.batch_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'batches_have_all_lines',
            MESSAGE = 'an order of the batch lacks its lines';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER batches_have_all_lines BEFORE UPDATE OF status ON batches
    FOR EACH ROW WHEN (NEW.status = 'loaded' AND OLD.status = 'validated' AND NEW.rows_continuing > 0)
    EXECUTE FUNCTION batches_have_all_lines();

-- Without a condition, by which no index would be used.
CREATE VIEW order_rows AS
SELECT batch_id, import_row_number, import_row_number AS order_row FROM orders
UNION ALL
SELECT batch_id, import_row_number, order_row FROM order_lines;
COMMENT ON VIEW order_rows IS
    'Every row of a file that is an order or a line of one, with the row of that order; twice where it is both.';

-- The rules that take an accepted row for an order: the same as before, with the rows that continue one.

CREATE OR REPLACE FUNCTION batches_completed_are_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.rows_total IS NULL
       OR EXISTS (SELECT FROM orders WHERE batch_id = NEW.batch_id AND status IN ('pending', 'paying', 'unknown'))
       OR EXISTS (SELECT FROM notifications WHERE batch_id = NEW.batch_id AND status NOT IN ('sent', 'failed'))
       OR NEW.rows_accepted - NEW.rows_continuing <> (SELECT count(*) FROM orders WHERE batch_id = NEW.batch_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'batches_completed_are_closed',
            MESSAGE = 'a batch with open rows is not completed';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER batches_approval_is_bound BEFORE UPDATE ON batches FOR EACH ROW WHEN (
    (OLD.approval_requested_at IS NOT NULL
     AND (NEW.rows_accepted, NEW.rows_continuing, NEW.rows_rejected, NEW.amount_accepted, NEW.approval_above,
          NEW.approval_requested_at, NEW.submitted_by)
         IS DISTINCT FROM
         (OLD.rows_accepted, OLD.rows_continuing, OLD.rows_rejected, OLD.amount_accepted, OLD.approval_above,
          OLD.approval_requested_at, OLD.submitted_by))
    OR (OLD.approval_decision IS NOT NULL
        AND (NEW.approval_decision, NEW.approval_decided_by, NEW.approval_decided_at)
            IS DISTINCT FROM (OLD.approval_decision, OLD.approval_decided_by, OLD.approval_decided_at)))
    EXECUTE FUNCTION batches_approval_is_bound();

CREATE OR REPLACE FUNCTION payments_are_of_what_was_approved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM batches CROSS JOIN LATERAL (
                   SELECT count(*) AS orders, coalesce(sum(amount), 0) AS yen FROM orders WHERE orders.batch_id = batches.batch_id
               ) AS loaded
               WHERE batch_id IN (SELECT batch_id FROM after) AND approval_decision = 'approved'
                 AND (orders, yen) IS DISTINCT FROM (rows_accepted - rows_continuing, amount_accepted)) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'payments_are_of_what_was_approved',
            MESSAGE = 'the orders of a batch are not those that were approved';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION rows_to_correct(of_group text) RETURNS TABLE (batch_id text, import_row_number integer)
LANGUAGE sql STABLE AS $$
    WITH members AS (
        SELECT batches.batch_id, received_at, status = 'cancelled' AS is_cancelled FROM batches
        WHERE bulk_import_group = of_group
          AND CASE status WHEN 'stopped' THEN stopped_from ELSE status END NOT IN ('received', 'staged', 'validated')
          AND (status <> 'rejected' OR coalesce(status_code, '') NOT LIKE 'F\_%')
    ), rejected AS (
        SELECT rejections.batch_id, rejections.import_row_number,
               bool_and(code IN ('R_REF_DUP_IN_FILE', 'R_REF_EXISTS'))
               OR bool_or(code IN ('R_REF_SPENT', 'R_CORRECTED_BEFORE', 'R_CORRECTED_ROW')) AS repeats,
               bool_or(code IN ('R_EXAMPLE_ROW', 'R_TOTAL_ROW')) AS is_none
        FROM rejections JOIN members USING (batch_id)
        WHERE rejections.import_row_number IS NOT NULL AND NOT is_cancelled
        GROUP BY rejections.batch_id, rejections.import_row_number
    ), corrected AS (
        SELECT corrections.batch_id, corrections.import_row_number, coalesce(first_batch, corrects) AS first_batch,
               coalesce(first_row, corrects_row) AS first_row
        FROM corrections JOIN members USING (batch_id)
        WHERE NOT is_cancelled
           OR EXISTS (SELECT FROM order_rows JOIN orders
                      ON orders.batch_id = order_rows.batch_id AND orders.import_row_number = order_row
                      WHERE order_rows.batch_id = corrections.batch_id
                      AND order_rows.import_row_number = corrections.import_row_number AND orders.status <> 'cancelled')
    ), tries AS (
        SELECT batch_id, import_row_number, coalesce(first_batch, batch_id) AS first_batch,
               coalesce(first_row, import_row_number) AS first_row, received_at, coalesce(is_none, false) AS is_none,
               coalesce(repeats, true) AS is_answered, repeats IS NULL AS is_order
        FROM rejected FULL JOIN corrected USING (batch_id, import_row_number) JOIN members USING (batch_id)
    )
    SELECT (array_agg(tries.batch_id ORDER BY received_at DESC, tries.batch_id DESC))[1],
           (array_agg(tries.import_row_number ORDER BY received_at DESC, tries.batch_id DESC))[1]
    FROM tries
    GROUP BY first_batch, first_row
    HAVING NOT bool_or(is_order OR is_none)
       AND NOT (array_agg(is_answered ORDER BY received_at DESC, tries.batch_id DESC))[1]
$$;

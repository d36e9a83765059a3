-- A row that was corrected or closed before is answered while that stands: who cancels that other file lets it wait again.

CREATE OR REPLACE FUNCTION rows_to_correct(of_group text) RETURNS TABLE (batch_id text, import_row_number integer)
LANGUAGE sql STABLE AS $$
    WITH members AS (
        SELECT batches.batch_id, received_at, status = 'cancelled' AS is_cancelled FROM batches
        WHERE bulk_import_group = of_group
          AND CASE status WHEN 'stopped' THEN stopped_from ELSE status END NOT IN ('received', 'staged', 'validated')
          AND (status <> 'rejected' OR coalesce(status_code, '') NOT LIKE 'F\_%')
    ), rejected AS (
        SELECT rejections.batch_id, rejections.import_row_number,
               (bool_and(code IN ('R_REF_DUP_IN_FILE', 'R_REF_EXISTS'))
                OR bool_or(code IN ('R_REF_SPENT', 'R_CORRECTED_BEFORE', 'R_CORRECTED_ROW')))
               AND NOT bool_or(code IN ('R_REF_EXISTS', 'R_CORRECTED_BEFORE') AND coalesce(detail ->> 'batch_id', '') IN
                               (SELECT members.batch_id FROM members WHERE is_cancelled)) AS repeats,
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

-- What a lost database has charged is taken over by the rows that come to the same yen, and by no others: a charge of other yen
-- would be found under the name of what is planned for ever. The repeats beside the batch's own are looked at.

DROP FUNCTION next_payment_id(text, integer[]);
CREATE FUNCTION next_payment_id(identity text, row_numbers integer[], yen bigint) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id uuid;
    own_no  integer := CAST(substring(identity FROM '[0-9]+$') AS integer);
    stem    text := regexp_replace(identity, '[0-9]+$', '');
BEGIN
    IF EXISTS (SELECT FROM reconciliation_findings
               WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND detail -> 'ours' = 'null') THEN
        SELECT candidate INTO next_id
        FROM generate_series(greatest(own_no - 4, 0), own_no + 4) AS again_no CROSS JOIN generate_series(0, 4) AS try
        CROSS JOIN LATERAL stable_id(concat_ws('|', 'payment', stem || CAST(again_no AS text), row_numbers, try)) AS candidate
        WHERE (SELECT bool_or(CAST(detail -> 'theirs' ->> 'amount' AS bigint) = yen) FROM reconciliation_findings
               WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND payment_id = candidate)
          AND NOT EXISTS (SELECT FROM payments WHERE payment_id = candidate)
        ORDER BY again_no <> own_no, again_no, try LIMIT 1;
        IF FOUND THEN
            RETURN next_id;
        END IF;
    END IF;
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id)
              AND NOT EXISTS (SELECT FROM reconciliation_findings
                              WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND payment_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;

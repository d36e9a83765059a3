-- What a database that is lost has charged for rows that are planned now. The same rows of the same bytes are found again under
-- whichever repeat of them and try it was, since what was refused or cancelled before it is lost too.

CREATE OR REPLACE FUNCTION next_payment_id(identity text, row_numbers integer[]) RETURNS uuid STABLE LANGUAGE plpgsql AS $$
DECLARE
    next_id  uuid;
    again_no integer;
    own_no   integer := CAST(substring(identity FROM '[0-9]+$') AS integer);
BEGIN
    IF EXISTS (SELECT FROM reconciliation_findings
               WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND detail -> 'ours' = 'null') THEN
        FOR again_no IN SELECT each FROM generate_series(0, own_no + 4) AS each ORDER BY each <> own_no, each LOOP
            FOR try IN 0..4 LOOP
                next_id := stable_id(concat_ws(
                    '|', 'payment', regexp_replace(identity, '[0-9]+$', CAST(again_no AS text)), row_numbers, try));
                IF EXISTS (SELECT FROM reconciliation_findings
                           WHERE closed_at IS NULL AND code = 'C_MISSING_HERE' AND payment_id = next_id)
                   AND NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id) THEN
                    RETURN next_id;
                END IF;
            END LOOP;
        END LOOP;
    END IF;
    FOR try IN 0..2147483646 LOOP
        next_id := stable_id(concat_ws('|', 'payment', identity, row_numbers, try));
        EXIT WHEN NOT EXISTS (SELECT FROM payments WHERE payment_id = next_id);
    END LOOP;
    RETURN next_id;
END $$;

-- Since when it is not known what another database, which this one replaced, has paid: no list was compared then.
ALTER TABLE installation ADD COLUMN unlisted_since timestamptz;

-- Yen by row, where a list gives them by the references of orders: those name a batch that had another id on another day.
CREATE FUNCTION shares_by_row(allocations jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT jsonb_object_agg(coalesce(substring(key FROM '^[0-9]{8}-[0-9a-f]{12}-([0-9]{1,9})$'), key), value)
    FROM jsonb_each(allocations)
$$;

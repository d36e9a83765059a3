-- Before the record of a row's last image goes for good, the image is recorded anew, if the row is still as it was then.

CREATE FUNCTION audit_carry(watched text, width integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    INSERT INTO audit_events (category, action, entity, rows, detail, digests)
    SELECT (SELECT split_part(encode(tgargs, 'escape'), '\000', 1) FROM pg_trigger
            WHERE tgrelid = watched::regclass AND tgname = 'audit_insert'),
           'image', watched, count(*), json_build_object('columns', width), string_agg(key || digest, '')
    FROM (
        SELECT last.key, digest, (row_number() OVER () - 1) / 10000 AS part
        FROM (SELECT DISTINCT ON (key) key, digest FROM audit_told WHERE entity = watched AND columns = width
              ORDER BY key, event_id DESC) AS last
        JOIN audit_rows(watched, ARRAY[width]) AS row ON row.key = last.key AND row.digests[1] = digest
    ) AS kept GROUP BY part;
END $$;
ALTER FUNCTION audit_carry(text, integer) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_carry(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_carry(text, integer) TO orders_app;

-- As before, with a part for each place: only so is what is due found by the index.
DROP VIEW audit_due;
CREATE VIEW audit_due AS
SELECT block_no, due.category, day, place, key, next_place,
       (day + warm_until)::date AS cold_from, (day + gone_after)::date AS kept_until
FROM (
    SELECT block.*, 'warm' AS next_place, hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'hot'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - hot_until)::date + 3
    UNION ALL
    SELECT block.*, 'cold', hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'warm'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - warm_until)::date + 3
    UNION ALL
    SELECT block.*, 'gone', hot_until, warm_until, gone_after FROM retention_limits AS limits
    JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'cold'
                              AND block.day <= ((now() AT TIME ZONE 'UTC')::date - gone_after)::date + 3
) AS due
WHERE array_position('{hot,warm,cold,gone}', place) < array_position('{hot,warm,cold,gone}', retention_place(
          day, (now() AT TIME ZONE 'UTC')::date, hot_until, warm_until, gone_after))
  AND NOT EXISTS (SELECT FROM audit_held WHERE audit_held.block_no = due.block_no);
REVOKE INSERT, UPDATE, DELETE ON audit_due FROM orders_app;
ALTER VIEW audit_due OWNER TO orders_audit;

-- A block is gone only if its day was past a limit that there was once: nobody says so of another and hides its records.

ALTER TABLE retention_limits ADD shortest interval;  -- the shortest that gone_after ever was
UPDATE retention_limits SET shortest = least(gone_after, (
    SELECT min((moved_at AT TIME ZONE 'UTC')::date - day - 1) * interval '1 day' FROM audit_blocks
    WHERE audit_blocks.category = retention_limits.category AND place = 'gone'));
ALTER TABLE retention_limits ALTER shortest SET NOT NULL;

CREATE OR REPLACE FUNCTION retention_limits_are_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := now();
    NEW.shortest := least(OLD.shortest, NEW.gone_after);  -- of a new row there is no old one
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER retention_limits_are_dated BEFORE INSERT OR UPDATE ON retention_limits
    FOR EACH ROW EXECUTE FUNCTION retention_limits_are_dated();

-- As before, but for what only triggers record: nobody says of rows that they were emptied or written when they were not.
CREATE OR REPLACE FUNCTION audit_record(category text, action text, entity text, batch_id text, rows integer, detail json)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF action IN ('insert', 'update', 'delete', 'truncate', 'image') OR json_typeof(detail) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_record_is_no_change',
            MESSAGE = 'changes of rows are recorded by the database itself';
    END IF;
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    INSERT INTO audit_events (category, action, entity, batch_id, rows, detail)
    VALUES (category, action, entity, batch_id, rows, detail);
END $$;

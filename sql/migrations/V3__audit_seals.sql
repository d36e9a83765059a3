-- Seals: audit records are sealed in blocks that are one chain of hashes, so that whatever is altered is found. Where a
-- block's records lie is in V4.

CREATE TABLE audit_seals (
    block_no   bigint CONSTRAINT audit_seals_pkey PRIMARY KEY,
    category   text COLLATE "C" NOT NULL,
    day        date NOT NULL,
    first_id   bigint NOT NULL,
    last_id    bigint NOT NULL,
    records    integer NOT NULL,
    through_id bigint NOT NULL,
    digests    bytea NOT NULL,
    head       bytea NOT NULL,
    sealed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_seals_day ON audit_seals (day, category);
COMMENT ON TABLE audit_seals IS
    'Blocks of audit records of one category and day each, as a chain; written by audit_seal and only added to.';
COMMENT ON COLUMN audit_seals.day IS 'Of the records, in UTC.';
COMMENT ON COLUMN audit_seals.first_id IS
    'Lowest event_id in the block; others between it and last_id may be in other blocks.';
COMMENT ON COLUMN audit_seals.records IS 'How many records the block covers: those listed in its digests.';
COMMENT ON COLUMN audit_seals.through_id IS 'Every record up to this event_id is in this block or one before.';
COMMENT ON COLUMN audit_seals.digests IS 'For each record 8 bytes of event_id and the SHA-256 of audit_text.';
COMMENT ON COLUMN audit_seals.head IS
    'SHA-256 over the head before, the digests and the columns above; the newest is kept outside the database.';
REVOKE INSERT, UPDATE, DELETE ON audit_seals FROM orders_app;

CREATE TRIGGER audit_seals_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();

-- How far the audit can be sealed is the database's own word: when all transactions before a mark's are over, no record up to
-- its number can still appear.
CREATE TABLE audit_marks (
    mark       xid8 CONSTRAINT audit_marks_pkey PRIMARY KEY,
    through_id bigint NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE audit_marks IS
    'How far records had been written at some moments, until they are sealed; written by audit_mark.';
COMMENT ON COLUMN audit_marks.mark IS 'A transaction that began after all records up to through_id had their numbers.';
COMMENT ON COLUMN audit_marks.through_id IS 'The highest event_id that a record had been given by then.';
REVOKE INSERT, UPDATE, DELETE ON audit_marks FROM orders_app;

CREATE FUNCTION audit_mark() RETURNS xid8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    through bigint;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'active_sql_transaction', MESSAGE = 'a mark is made before anything else';
    END IF;
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO through FROM audit_events_event_id_seq;
    INSERT INTO audit_marks (mark, through_id) VALUES (pg_current_xact_id(), through);
    RETURN pg_current_xact_id();
END $$;
COMMENT ON FUNCTION audit_mark() IS
    'Marks how far records have been written; the first statement of a transaction of its own, some time before audit_seal.';

CREATE FUNCTION audit_seal() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    last audit_seals;
    part record;
    through bigint;
    made integer := 0;
BEGIN
    LOCK TABLE audit_seals IN EXCLUSIVE MODE;
    SELECT max(through_id) INTO through FROM audit_marks WHERE mark < pg_snapshot_xmin(pg_current_snapshot());
    SELECT * INTO last FROM audit_seals ORDER BY block_no DESC LIMIT 1;
    last.block_no := coalesce(last.block_no, 0);
    last.head := coalesce(last.head, '');
    FOR part IN
        SELECT category, day, min(event_id) AS first_id, max(event_id) AS last_id, count(*)::integer AS records,
               string_agg(int8send(event_id) || digest, '' ORDER BY event_id) AS digests
        FROM (SELECT category, at::date AS day, event_id, sha256(convert_to(audit_text(audit_events), 'UTF8')) AS digest,
                     row_number() OVER (PARTITION BY category, at::date ORDER BY event_id) / 10000 AS part
              FROM audit_events WHERE event_id > coalesce(last.through_id, 0) AND event_id <= through) AS unsealed
        GROUP BY category, day, unsealed.part ORDER BY min(event_id)
    LOOP
        made := made + 1;
        last.block_no := last.block_no + 1;
        last.head := sha256(last.head || sha256(part.digests) || convert_to(json_build_array(last.block_no,
            part.category, part.day, part.first_id, part.last_id, part.records, through)::text, 'UTF8'));
        INSERT INTO audit_seals (block_no, category, day, first_id, last_id, records, through_id, digests, head)
        VALUES (last.block_no, part.category, part.day, part.first_id, part.last_id, part.records, through,
                part.digests, last.head);
    END LOOP;
    DELETE FROM audit_marks WHERE through_id <= through;
    RETURN made;
END $$;
COMMENT ON FUNCTION audit_seal() IS
    'Seals what is not sealed yet, as far as no earlier record can still appear; returns the number of new blocks.';

ALTER TABLE audit_seals OWNER TO orders_audit;
ALTER TABLE audit_marks OWNER TO orders_audit;
ALTER FUNCTION audit_mark() OWNER TO orders_audit;
ALTER FUNCTION audit_seal() OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_mark(), audit_seal() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_mark(), audit_seal() TO orders_app;

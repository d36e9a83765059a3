-- Where each block of the audit is, one row a block: what is due is found by an index, and blocks of a category and day move
-- together, into one object.

CREATE TABLE audit_blocks (
    block_no  bigint CONSTRAINT audit_blocks_pkey PRIMARY KEY CONSTRAINT audit_blocks_block_no_fkey REFERENCES audit_seals,
    category  text COLLATE "C" NOT NULL,
    day       date NOT NULL,
    place     text COLLATE "C" NOT NULL DEFAULT 'hot' CONSTRAINT audit_blocks_place_known CHECK (place IN ('hot', 'warm', 'cold', 'gone')),
    key       text COLLATE "C",                    -- of the object in the storage, which others may be in too
    batch_ids text[] COLLATE "C",                  -- of its records, for legal holds, once it is not hot any more
    moved_at  timestamptz,
    CONSTRAINT audit_blocks_key_in_the_storage CHECK ((place IN ('warm', 'cold')) = (key IS NOT NULL))
);
INSERT INTO audit_blocks (block_no, category, day, place, key, batch_ids, moved_at)
SELECT seal.block_no, seal.category, seal.day, coalesce(last.place, 'hot'), last.key, last.batch_ids, last.moved_at
FROM audit_seals AS seal LEFT JOIN LATERAL (
    SELECT place, key, batch_ids, moved_at FROM audit_moves AS move WHERE move.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last ON true;
CREATE INDEX audit_blocks_due ON audit_blocks (category, place, day);
CREATE INDEX audit_blocks_key ON audit_blocks (key) WHERE key IS NOT NULL;

-- Objects that blocks were in before they moved, until they are removed.
CREATE TABLE audit_leftovers (
    key text COLLATE "C" CONSTRAINT audit_leftovers_pkey PRIMARY KEY
);
INSERT INTO audit_leftovers SELECT DISTINCT leftover FROM audit_moves WHERE leftover IS NOT NULL;

DROP FUNCTION audit_move(bigint, text, text);
DROP FUNCTION audit_cleared(bigint, text);
DROP VIEW audit_places;
DROP TABLE audit_moves;

-- A block begins in the database.
CREATE FUNCTION audit_blocks_are_hot() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO audit_blocks (block_no, category, day) VALUES (NEW.block_no, NEW.category, NEW.day);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_blocks_are_hot AFTER INSERT ON audit_seals FOR EACH ROW EXECUTE FUNCTION audit_blocks_are_hot();

-- The blocks that a legal hold keeps where they are.
CREATE VIEW audit_held AS
SELECT block.block_no, hold.hold_id
FROM legal_holds AS hold
JOIN audit_blocks AS block ON block.day BETWEEN hold.from_day AND hold.to_day
                          AND coalesce(hold.category, block.category) = block.category
JOIN audit_seals AS seal USING (block_no)
WHERE hold.released_at IS NULL AND block.place <> 'gone'
  AND (hold.batch_id IS NULL OR hold.batch_id = ANY (block.batch_ids) OR (block.place = 'hot' AND EXISTS (
      SELECT FROM audit_events WHERE audit_events.batch_id = hold.batch_id
      AND audit_events.category = seal.category AND (at AT TIME ZONE 'UTC')::date = seal.day
      AND event_id BETWEEN seal.first_id AND seal.last_id)));

-- The blocks that go on to the next place. What is younger is not looked at: months differ by three days at most.
CREATE VIEW audit_due AS
SELECT block.block_no, block.category, block.day, block.place, block.key, step.next_place,
       (block.day + limits.warm_until)::date AS cold_from, (block.day + limits.gone_after)::date AS kept_until
FROM retention_limits AS limits
CROSS JOIN LATERAL (VALUES ('hot', 'warm', hot_until), ('warm', 'cold', warm_until), ('cold', 'gone', gone_after))
    AS step (place, next_place, until)
JOIN audit_blocks AS block ON block.category = limits.category AND block.place = step.place
    AND block.day <= ((now() AT TIME ZONE 'UTC')::date - step.until)::date + 3
WHERE array_position('{hot,warm,cold,gone}', block.place) < array_position('{hot,warm,cold,gone}', retention_place(
          block.day, (now() AT TIME ZONE 'UTC')::date, hot_until, warm_until, gone_after))
  AND NOT EXISTS (SELECT FROM audit_held WHERE audit_held.block_no = block.block_no);

-- Moves blocks of a category and day on by one place, if that is due, and takes their records out of the place before.
CREATE FUNCTION audit_move(moved bigint[], to_place text, to_key text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    due record;
    seal audit_seals;
    ids bigint[];
    total bigint := 0;
BEGIN
    LOCK TABLE audit_blocks IN EXCLUSIVE MODE;
    LOCK TABLE legal_holds IN SHARE MODE;
    SELECT count(*) AS blocks, min(category) AS category, min(day) AS day, min(place) AS place, min(key) AS key,
           count(DISTINCT (category, day, place, key)) AS kinds
    INTO due FROM audit_due WHERE block_no = ANY (moved) AND next_place = to_place;
    IF due.blocks <> cardinality(moved) OR due.kinds <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_move_is_due',
            MESSAGE = 'a block does not move before its time, or while it is held';
    END IF;
    FOR seal IN SELECT * FROM audit_seals WHERE block_no = ANY (moved) ORDER BY block_no LOOP
        IF due.place = 'hot' THEN
            SELECT array_agg(('x' || encode(substring(listed FROM 40 * n + 1 FOR 8), 'hex'))::bit(64)::bigint)
            INTO ids FROM (SELECT seal.digests || '' AS listed) AS one CROSS JOIN generate_series(0, seal.records - 1) AS n;
            UPDATE audit_blocks SET batch_ids = (
                SELECT coalesce(array_agg(DISTINCT batch_id) FILTER (WHERE batch_id IS NOT NULL), '{}')
                FROM audit_events WHERE event_id = ANY (ids))
            WHERE block_no = seal.block_no;
            DELETE FROM audit_events WHERE event_id = ANY (ids);
        END IF;
        total := total + seal.records;
    END LOOP;
    UPDATE audit_blocks SET place = to_place, key = to_key, moved_at = now() WHERE block_no = ANY (moved);
    INSERT INTO audit_leftovers SELECT due.key WHERE due.key IS NOT NULL ON CONFLICT DO NOTHING;
    PERFORM audit_record('administrative', 'move', 'audit_seals', NULL, total::integer, json_build_object(
        'block_no', (SELECT min(each) FROM unnest(moved) AS each), 'blocks', cardinality(moved), 'category', due.category,
        'day', due.day, 'from', due.place, 'to', to_place));
    RETURN total;
END $$;

-- An object that no block is in any more is removed.
CREATE FUNCTION audit_cleared(from_key text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM audit_leftovers WHERE key = from_key
$$;

REVOKE INSERT, UPDATE, DELETE ON audit_blocks, audit_leftovers, audit_held, audit_due FROM orders_app;
ALTER TABLE audit_blocks OWNER TO orders_audit;
ALTER TABLE audit_leftovers OWNER TO orders_audit;
ALTER VIEW audit_held OWNER TO orders_audit;
ALTER VIEW audit_due OWNER TO orders_audit;
ALTER FUNCTION audit_blocks_are_hot() OWNER TO orders_audit;
ALTER FUNCTION audit_move(bigint[], text, text) OWNER TO orders_audit;
ALTER FUNCTION audit_cleared(text) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_blocks_are_hot(), audit_move(bigint[], text, text), audit_cleared(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_move(bigint[], text, text), audit_cleared(text) TO orders_app;

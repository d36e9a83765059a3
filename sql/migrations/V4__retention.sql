-- Retention: how long audit records stay in the database, in warm and in cold storage, and when they go; legal holds; and
-- where each block is. What Dagster keeps of its own is no part of the audit and has one limit here.

CREATE TABLE retention_limits (
    category   text COLLATE "C" CONSTRAINT retention_limits_pkey PRIMARY KEY,
    hot_until  interval NOT NULL,
    warm_until interval NOT NULL,
    gone_after interval NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    shortest   interval NOT NULL,
    CONSTRAINT retention_limits_in_turn CHECK (interval '0' < hot_until AND hot_until < warm_until AND warm_until < gone_after)
);
COMMENT ON TABLE retention_limits IS
    'Ages at which audit records of a category move on: "hot" is the database, "warm" and "cold" are places in the storage. '
    'Changed by who migrates, not by the application.';
COMMENT ON COLUMN retention_limits.hot_until IS
    'After this age they go to warm storage. 90 days are over when 90 whole days (UTC) have followed the record''s day.';
COMMENT ON COLUMN retention_limits.warm_until IS 'After this age they go to cold storage.';
COMMENT ON COLUMN retention_limits.gone_after IS 'After this age they are removed, unless a legal hold keeps them.';
COMMENT ON COLUMN retention_limits.changed_at IS 'Set by a trigger: what went before that, went by other limits.';
COMMENT ON COLUMN retention_limits.shortest IS
    'The shortest that gone_after ever was, set by a trigger: a block that went sooner was hidden by somebody.';

CREATE FUNCTION retention_limits_are_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := now();
    NEW.shortest := least(OLD.shortest, NEW.gone_after);  -- of a new row there is no old one
    RETURN NEW;
END $$;
CREATE TRIGGER retention_limits_are_dated BEFORE INSERT OR UPDATE ON retention_limits
    FOR EACH ROW EXECUTE FUNCTION retention_limits_are_dated();

INSERT INTO retention_limits (category, hot_until, warm_until, gone_after) VALUES
    ('authentication',   '90 days',  '1 year',  '7 years'),
    ('phi_access',       '90 days',  '1 year',  '7 years'),
    ('phi_modification', '90 days',  '2 years', '8 years'),
    ('administrative',   '90 days',  '1 year',  '7 years'),
    ('security',         '180 days', '2 years', '8 years');

SELECT audit_watch('retention_limits', 'administrative', batch => 'NULL::text');
REVOKE INSERT, UPDATE, DELETE ON retention_limits FROM orders_app;
GRANT SELECT, UPDATE ON retention_limits TO orders_audit;

CREATE TABLE dagster_retention (
    one    boolean CONSTRAINT dagster_retention_pkey PRIMARY KEY DEFAULT true CONSTRAINT dagster_retention_one CHECK (one),
    events interval NOT NULL
);
INSERT INTO dagster_retention (events) VALUES ('90 days');
COMMENT ON TABLE dagster_retention IS 'How long Dagster''s history is kept; one row, changed by who migrates.';
COMMENT ON COLUMN dagster_retention.one IS 'Always true: there is one row.';
COMMENT ON COLUMN dagster_retention.events IS
    'Age at which events go that no asset, check or state of a run needs, and refusals and acceptances of finished batches.';
SELECT audit_watch('dagster_retention', 'administrative', batch => 'NULL::text');
REVOKE INSERT, UPDATE, DELETE ON dagster_retention FROM orders_app;

CREATE TABLE legal_holds (
    hold_id        bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT legal_holds_pkey PRIMARY KEY,
    batch_id       text COLLATE "C",
    category       text COLLATE "C" CONSTRAINT legal_holds_category_fkey REFERENCES retention_limits,
    from_day       date NOT NULL DEFAULT '-infinity',
    to_day         date NOT NULL DEFAULT 'infinity',
    placed_by      text NOT NULL CONSTRAINT legal_holds_placed_by_given CHECK (placed_by <> ''),
    reason         text NOT NULL CONSTRAINT legal_holds_reason_given CHECK (reason <> ''),
    placed_at      timestamptz NOT NULL DEFAULT now(),
    released_by    text CONSTRAINT legal_holds_released_by_given CHECK (released_by <> ''),
    released_at    timestamptz,
    release_reason text,
    CONSTRAINT legal_holds_days_in_turn CHECK (from_day <= to_day),
    CONSTRAINT legal_holds_released_by_somebody CHECK (num_nulls(released_by, released_at, release_reason) IN (0, 3))
);
COMMENT ON TABLE legal_holds IS
    'What a hold is about stays where it is, whatever its age: blocks of a category, of days, or with a batch''s records, '
    'and of all of these at once where several are given. A hold is never taken back, only released.';
COMMENT ON COLUMN legal_holds.batch_id IS 'Null: any batch, and none.';
COMMENT ON COLUMN legal_holds.category IS 'Null: every category.';
COMMENT ON COLUMN legal_holds.from_day IS 'First day of the records held (UTC); -infinity where none was given.';
COMMENT ON COLUMN legal_holds.to_day IS 'Last day of the records held (UTC); infinity where none was given.';
COMMENT ON COLUMN legal_holds.released_at IS 'Null, as released_by and release_reason, while the hold is in force.';
SELECT audit_watch('legal_holds', 'administrative', '{reason,release_reason}');
REVOKE DELETE ON legal_holds FROM orders_app;
GRANT SELECT, UPDATE ON legal_holds TO orders_audit;

CREATE TABLE audit_blocks (
    block_no  bigint CONSTRAINT audit_blocks_pkey PRIMARY KEY CONSTRAINT audit_blocks_block_no_fkey REFERENCES audit_seals,
    category  text COLLATE "C" NOT NULL,
    day       date NOT NULL,
    place     text COLLATE "C" NOT NULL DEFAULT 'hot'
              CONSTRAINT audit_blocks_place_known CHECK (place IN ('hot', 'warm', 'cold', 'gone')),
    key       text COLLATE "C",
    batch_ids text[] COLLATE "C",
    moved_at  timestamptz,
    CONSTRAINT audit_blocks_key_in_the_storage CHECK ((place IN ('warm', 'cold')) = (key IS NOT NULL))
);
CREATE INDEX audit_blocks_due ON audit_blocks (category, place, day);
CREATE INDEX audit_blocks_key ON audit_blocks (key) WHERE key IS NOT NULL;
COMMENT ON TABLE audit_blocks IS
    'Where each block of the audit is, one row a block; written when it is sealed and by audit_move.';
COMMENT ON COLUMN audit_blocks.day IS 'As in audit_seals, here for the index.';
COMMENT ON COLUMN audit_blocks.place IS
    'hot: its records are in audit_events; warm, cold: in an object of the storage; gone: nowhere any more.';
COMMENT ON COLUMN audit_blocks.key IS
    'The object in the storage, which other blocks of the category and day may be in too; null when hot or gone.';
COMMENT ON COLUMN audit_blocks.batch_ids IS 'Batches of its records, for legal holds; null while it is hot.';
COMMENT ON COLUMN audit_blocks.moved_at IS 'The last move; null: none yet.';

CREATE TABLE audit_leftovers (
    key text COLLATE "C" CONSTRAINT audit_leftovers_pkey PRIMARY KEY
);
COMMENT ON TABLE audit_leftovers IS 'Objects in the storage that blocks were in before they moved, until they are removed.';

-- A block begins in the database.
CREATE FUNCTION audit_blocks_are_hot() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO audit_blocks (block_no, category, day) VALUES (NEW.block_no, NEW.category, NEW.day);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_blocks_are_hot AFTER INSERT ON audit_seals FOR EACH ROW EXECUTE FUNCTION audit_blocks_are_hot();

-- Where a record of a day belongs on another day.
CREATE FUNCTION retention_place(day date, today date, hot_until interval, warm_until interval, gone_after interval)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN today > day + gone_after THEN 'gone' WHEN today > day + warm_until THEN 'cold'
                WHEN today > day + hot_until THEN 'warm' ELSE 'hot' END
$$;

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
COMMENT ON VIEW audit_held IS 'Blocks that a legal hold in force keeps where they are, once for each hold.';

-- A part for each place: only so is what is due found by the index. What is younger is not looked at: months differ by three
-- days at most.
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
COMMENT ON VIEW audit_due IS 'Blocks that are due in their next place and not held.';
COMMENT ON COLUMN audit_due.key IS 'The object that the block is in now; null: it is in the database.';
COMMENT ON COLUMN audit_due.kept_until IS 'The day after which it goes, by the limits as they are now.';

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
COMMENT ON FUNCTION audit_move(bigint[], text, text) IS
    'Moves blocks of a category and day on by one place, if that is due, and takes their records out of the place before; '
    'returns how many records. What is in the object `to_key` was written and checked before.';

CREATE FUNCTION audit_cleared(from_key text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM audit_leftovers WHERE key = from_key
$$;
COMMENT ON FUNCTION audit_cleared(text) IS 'Notes that an object which no block is in any more was removed.';

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
COMMENT ON FUNCTION audit_carry(text, integer) IS
    'Before the record of a row''s last image goes for good, records the image anew if the row is still as it was then.';

REVOKE INSERT, UPDATE, DELETE ON audit_blocks, audit_leftovers, audit_held, audit_due FROM orders_app;
ALTER TABLE audit_blocks OWNER TO orders_audit;
ALTER TABLE audit_leftovers OWNER TO orders_audit;
ALTER VIEW audit_held OWNER TO orders_audit;
ALTER VIEW audit_due OWNER TO orders_audit;
ALTER FUNCTION audit_blocks_are_hot() OWNER TO orders_audit;
ALTER FUNCTION audit_move(bigint[], text, text) OWNER TO orders_audit;
ALTER FUNCTION audit_cleared(text) OWNER TO orders_audit;
ALTER FUNCTION audit_carry(text, integer) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_blocks_are_hot(), audit_move(bigint[], text, text), audit_cleared(text),
    audit_carry(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_move(bigint[], text, text), audit_cleared(text), audit_carry(text, integer) TO orders_app;

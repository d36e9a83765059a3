-- Retention: how long audit records stay in the database, in warm and in cold storage, and when they go; and legal holds.

-- Ages at which a record's block moves on. "Hot" is the database; "warm" and "cold" are places in the storage.
CREATE TABLE retention_limits (
    category   text COLLATE "C" CONSTRAINT retention_limits_pkey PRIMARY KEY,
    hot_until  interval NOT NULL,
    warm_until interval NOT NULL,
    gone_after interval NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),  -- what went before that, went by other limits
    CONSTRAINT retention_limits_in_turn CHECK (interval '0' < hot_until AND hot_until < warm_until AND warm_until < gone_after)
);
INSERT INTO retention_limits (category, hot_until, warm_until, gone_after) VALUES
    ('authentication',   '90 days',  '1 year',  '7 years'),
    ('phi_access',       '90 days',  '1 year',  '7 years'),
    ('phi_modification', '90 days',  '2 years', '8 years'),
    ('administrative',   '90 days',  '1 year',  '7 years'),
    ('security',         '180 days', '2 years', '8 years');

CREATE FUNCTION retention_limits_are_dated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER retention_limits_are_dated BEFORE UPDATE ON retention_limits
    FOR EACH ROW EXECUTE FUNCTION retention_limits_are_dated();

-- Dagster's own history of events, which is none of the audit's: what no asset, check or state of a run needs.
CREATE TABLE dagster_retention (
    one    boolean CONSTRAINT dagster_retention_pkey PRIMARY KEY DEFAULT true CONSTRAINT dagster_retention_one CHECK (one),
    events interval NOT NULL
);
INSERT INTO dagster_retention (events) VALUES ('90 days');

-- What a hold is about stays where it is, whatever its age: blocks of a category, of days, or with a batch's records.
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

-- Where blocks have gone; the newest move of a block says where it is. Without one it is hot.
CREATE TABLE audit_moves (
    block_no  bigint NOT NULL CONSTRAINT audit_moves_block_no_fkey REFERENCES audit_seals,
    place     text COLLATE "C" NOT NULL CONSTRAINT audit_moves_place_known CHECK (place IN ('warm', 'cold', 'gone')),
    key       text COLLATE "C",                    -- of the object in the storage
    leftover  text COLLATE "C",                    -- the object it was in before, until that is removed
    batch_ids text[] COLLATE "C" NOT NULL,         -- of its records, for legal holds
    moved_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT audit_moves_pkey PRIMARY KEY (block_no, place),
    CONSTRAINT audit_moves_key_unless_gone CHECK ((place = 'gone') = (key IS NULL))
);
CREATE INDEX audit_moves_leftover ON audit_moves (block_no) WHERE leftover IS NOT NULL;

-- Where a record of a day belongs on another day. A limit of 90 days is over when 90 whole days have followed the day.
CREATE FUNCTION retention_place(day date, today date, hot_until interval, warm_until interval, gone_after interval)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN today > day + gone_after THEN 'gone' WHEN today > day + warm_until THEN 'cold'
                WHEN today > day + hot_until THEN 'warm' ELSE 'hot' END
$$;

-- All blocks that are not gone, with the place each is in and the one where it goes next, if that is due and not held.
CREATE VIEW audit_places AS
SELECT seal.block_no, seal.category, seal.day, coalesce(last.place, 'hot') AS place, last.key, held,
       CASE WHEN NOT held AND array_position(places, due) > array_position(places, coalesce(last.place, 'hot'))
            THEN places[array_position(places, coalesce(last.place, 'hot')) + 1] END AS next_place,
       (seal.day + limits.warm_until)::date AS cold_from, (seal.day + limits.gone_after)::date AS kept_until
FROM audit_seals AS seal
JOIN retention_limits AS limits USING (category)
LEFT JOIN LATERAL (
    SELECT place, key, batch_ids FROM audit_moves AS move WHERE move.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last ON true
CROSS JOIN LATERAL (
    SELECT '{hot,warm,cold,gone}'::text[] AS places,
           retention_place(seal.day, (now() AT TIME ZONE 'UTC')::date, hot_until, warm_until, gone_after) AS due,
           EXISTS (
               SELECT FROM legal_holds AS hold
               WHERE hold.released_at IS NULL AND seal.day BETWEEN hold.from_day AND hold.to_day
                 AND coalesce(hold.category, seal.category) = seal.category
                 AND (hold.batch_id IS NULL OR hold.batch_id = ANY (last.batch_ids) OR (last.place IS NULL AND EXISTS (
                     SELECT FROM audit_events WHERE audit_events.batch_id = hold.batch_id
                     AND audit_events.category = seal.category AND (at AT TIME ZONE 'UTC')::date = seal.day
                     AND event_id BETWEEN seal.first_id AND seal.last_id)))
           ) AS held
) AS now_
WHERE last.place IS DISTINCT FROM 'gone';

-- Moves a block on by one place, if that is due and not held, and takes its records out of the place before.
CREATE FUNCTION audit_move(moved bigint, to_place text, to_key text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    at_present audit_places;
    seal audit_seals;
    ids bigint[];
    batches text[];
BEGIN
    LOCK TABLE audit_moves IN EXCLUSIVE MODE;
    LOCK TABLE legal_holds IN SHARE MODE;
    SELECT * INTO at_present FROM audit_places WHERE block_no = moved;
    IF at_present.next_place IS DISTINCT FROM to_place THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_move_is_due',
            MESSAGE = 'a block does not move before its time, or while it is held';
    END IF;
    SELECT * INTO seal FROM audit_seals WHERE block_no = moved;
    IF at_present.place = 'hot' THEN
        SELECT array_agg(('x' || encode(substring(seal.digests FROM 40 * n + 1 FOR 8), 'hex'))::bit(64)::bigint)
        INTO ids FROM generate_series(0, seal.records - 1) AS n;
        SELECT coalesce(array_agg(DISTINCT batch_id) FILTER (WHERE batch_id IS NOT NULL), '{}')
        INTO batches FROM audit_events WHERE event_id = ANY (ids);
        DELETE FROM audit_events WHERE event_id = ANY (ids);
    ELSE
        SELECT batch_ids INTO batches FROM audit_moves WHERE block_no = moved AND place = at_present.place;
    END IF;
    INSERT INTO audit_moves (block_no, place, key, leftover, batch_ids)
    VALUES (moved, to_place, to_key, at_present.key, batches);
    PERFORM audit_record('administrative', 'move', 'audit_seals', NULL, seal.records, json_build_object(
        'block_no', moved, 'category', seal.category, 'day', seal.day, 'from', at_present.place, 'to', to_place));
    RETURN seal.records;
END $$;

-- The object that a block was in before it moved is removed.
CREATE FUNCTION audit_cleared(moved bigint, from_key text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE audit_moves SET leftover = NULL WHERE block_no = moved AND leftover = from_key
$$;

SELECT audit_watch('retention_limits', 'administrative', batch => 'NULL::text');
SELECT audit_watch('dagster_retention', 'administrative', batch => 'NULL::text');
SELECT audit_watch('legal_holds', 'administrative', '{reason,release_reason}');

-- Limits are changed by who migrates, not by the application; a hold is never taken back, only released.
REVOKE INSERT, UPDATE, DELETE ON retention_limits, dagster_retention FROM orders_app;
REVOKE DELETE ON legal_holds FROM orders_app;
REVOKE INSERT, UPDATE, DELETE ON audit_moves, audit_places FROM orders_app;
GRANT SELECT, UPDATE ON retention_limits, legal_holds TO orders_audit;
ALTER TABLE audit_moves OWNER TO orders_audit;
ALTER VIEW audit_places OWNER TO orders_audit;
ALTER FUNCTION audit_move(bigint, text, text) OWNER TO orders_audit;
ALTER FUNCTION audit_cleared(bigint, text) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_move(bigint, text, text), audit_cleared(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_move(bigint, text, text), audit_cleared(bigint, text) TO orders_app;

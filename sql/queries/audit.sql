-- name: identify_session
-- Set the identity of this session, and give up all rights but the application's.
SELECT set_config('orders.actor', :actor, false), set_config('orders.origin', :origin, false),
       set_config('role', 'orders_app', false)

-- name: audit_record
-- Record what no row shows.
SELECT audit_record(:category, :action, :entity, :batch_id, :rows, CAST(:detail AS json))

-- name: known_profiles
-- The profiles as they were last seen.
SELECT client_code AS name, profile AS value FROM known_profiles

-- name: set_known_profiles
-- The profiles as they are now; one that is the same is not touched.
INSERT INTO known_profiles (client_code, profile)
SELECT * FROM unnest(CAST(:names AS text[]), CAST(:profiles AS jsonb[]))
ON CONFLICT (client_code) DO UPDATE SET profile = excluded.profile WHERE known_profiles.profile <> excluded.profile

-- name: forget_profiles
-- Remove profiles that are no longer configured.
DELETE FROM known_profiles WHERE client_code <> ALL (CAST(:names AS text[]))

-- name: known_keys
-- The keys as they were last seen.
SELECT key_id, fingerprint, is_current FROM known_keys ORDER BY key_id

-- name: set_known_keys
-- The keys as they are now; one that is the same is not touched.
INSERT INTO known_keys (key_id, fingerprint, is_current)
SELECT * FROM unnest(CAST(:key_ids AS text[]), CAST(:fingerprints AS text[]), CAST(:are_current AS boolean[]))
ON CONFLICT (key_id) DO UPDATE SET fingerprint = excluded.fingerprint, is_current = excluded.is_current
WHERE (known_keys.fingerprint, known_keys.is_current) <> (excluded.fingerprint, excluded.is_current)

-- name: forget_keys
-- Remove keys that are no longer configured.
DELETE FROM known_keys WHERE key_id <> ALL (CAST(:key_ids AS text[]))

-- name: unsealed
-- How many records are not sealed yet, since when the oldest waits, and since when open transactions hold up sealing.
SELECT count(*) AS records, min(at) AS since, (
    SELECT min(made_at) FROM audit_marks WHERE mark >= pg_snapshot_xmin(pg_current_snapshot())) AS held_since
FROM audit_events WHERE event_id > coalesce((SELECT through_id FROM audit_seals ORDER BY block_no DESC LIMIT 1), 0)

-- name: audit_mark
-- Remember up to where records have been written or are being written, and by which transactions.
SELECT CAST(audit_mark() AS text)

-- name: transactions_before_are_over
-- Whether all transactions up to one have ended.
SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(:transaction AS xid8)

-- name: lock_audit_blocks
-- Nobody else makes or moves blocks until this transaction ends: each would wait for a table that the other has.
SELECT pg_advisory_xact_lock(4711009)

-- name: audit_seal
-- Seal what is not sealed yet, as far as it is certain.
SELECT audit_seal()

-- name: last_seal
-- The newest block.
SELECT block_no, encode(head, 'hex') AS head, through_id, records, sealed_at FROM audit_seals ORDER BY block_no DESC LIMIT 1

-- name: audit_blocks
-- Blocks in the order of their chain, and where each is.
SELECT seal.block_no, seal.category, seal.day, first_id, last_id, records, through_id, digests, head,
       coalesce(place, 'hot') AS place, key,
       CASE WHEN (block.category, block.day) <> (seal.category, seal.day) THEN 'block altered'
            WHEN place = 'gone' AND (moved_at <= now() AND (moved_at AT TIME ZONE 'UTC')::date >
                     seal.day + CASE WHEN moved_at > changed_at THEN gone_after ELSE shortest END) IS NOT TRUE
            THEN 'block gone too early' END AS wrong
FROM audit_seals AS seal JOIN retention_limits USING (category) LEFT JOIN audit_blocks AS block USING (block_no)
WHERE seal.block_no > :after ORDER BY seal.block_no LIMIT :limit

-- name: audit_blocks_of_object
-- The blocks that are in an object of the storage.
SELECT seal.block_no, seal.category, seal.day, seal.first_id, seal.last_id, seal.records, seal.through_id, seal.digests,
       seal.head, place, key, NULL AS wrong, coalesce(before.head, '') AS head_before
FROM audit_blocks AS block JOIN audit_seals AS seal USING (block_no)
LEFT JOIN audit_seals AS before ON before.block_no = seal.block_no - 1
WHERE block.key = :key ORDER BY seal.block_no

-- name: audit_objects_between
-- The objects that may have records of some categories and a stretch of time.
SELECT key FROM audit_blocks
WHERE category = ANY (CAST(:categories AS text[])) AND place IN ('warm', 'cold')
  AND day >= coalesce((CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date, '-infinity')
  AND day <= coalesce((CAST(:until AS timestamptz) AT TIME ZONE 'UTC')::date, 'infinity')
GROUP BY key ORDER BY min(block_no)

-- name: audit_hot_blocks_between
-- The next blocks in the database, up to one, that may have such records.
SELECT seal.block_no, seal.category, seal.day, seal.first_id, seal.last_id, seal.records, seal.through_id, seal.digests,
       seal.head, place, key, NULL AS wrong, coalesce(before.head, '') AS head_before
FROM audit_blocks AS block JOIN audit_seals AS seal USING (block_no)
LEFT JOIN audit_seals AS before ON before.block_no = seal.block_no - 1
WHERE block.category = ANY (CAST(:categories AS text[])) AND place = 'hot'
  AND block.day >= coalesce((CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date, '-infinity')
  AND block.day <= coalesce((CAST(:until AS timestamptz) AT TIME ZONE 'UTC')::date, 'infinity')
  AND block.block_no > :after AND block.block_no <= :last
ORDER BY block.block_no LIMIT :limit

-- name: audit_records_of_blocks
-- The next records of some categories, up to a number, as text.
SELECT event_id, audit_text(audit_events) AS record FROM audit_events
WHERE category = ANY (CAST(:categories AS text[])) AND event_id > :after AND event_id <= :last_id
ORDER BY event_id LIMIT :limit

-- name: count_audit_records
-- How many records there are up to the last sealed one, how many after it, and since when.
SELECT count(*) FILTER (WHERE event_id <= :through_id) AS sealed, count(*) FILTER (WHERE event_id > :through_id) AS unsealed,
       min(at) FILTER (WHERE event_id > :through_id) AS unsealed_since
FROM audit_events

-- name: hold_audit_places
-- Nobody else moves blocks, or reads where they are, as long as this session lives.
SELECT pg_advisory_lock(4711002)

-- name: share_audit_places
-- Nobody moves blocks as long as this session lives.
SELECT pg_advisory_lock_shared(4711002)

-- name: audit_numbers
-- The numbers of all records up to one.
SELECT event_id FROM audit_events WHERE event_id <= :through_id

-- name: audit_records
-- Records of some categories and a stretch of time, as text.
SELECT event_id, audit_text(audit_events) AS record FROM audit_events
WHERE event_id > :after AND category = ANY (CAST(:categories AS text[]))
  AND at >= coalesce(CAST(:since AS timestamptz), '-infinity') AND at < coalesce(CAST(:until AS timestamptz), 'infinity')
ORDER BY event_id LIMIT :limit

-- name: audited_tables
-- The tables whose changes are recorded, as what, and the number of columns that each has had so far.
SELECT relname AS entity, split_part(encode(tgargs, 'escape'), '\000', 1) AS category, CAST(relnatts AS integer) AS width
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE tgname = 'audit_insert' ORDER BY relname

-- name: create_audit_told
-- Temporary tables for the row images in records, one for each audited table, and memory to sort them.
DO $$
DECLARE
    watched text;
BEGIN
    PERFORM set_config('work_mem', '64MB', false), set_config('jit', 'off', false),
            set_config('enable_presorted_aggregate', 'off', false);
    CREATE TEMPORARY TABLE audit_told (entity text COLLATE "C", key bytea, event_id bigint, columns integer, digest bytea)
        PARTITION BY LIST (entity);
    FOR watched IN SELECT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE tgname = 'audit_insert' LOOP
        EXECUTE format('CREATE TEMPORARY TABLE %I PARTITION OF audit_told FOR VALUES IN (%L)', 'audit_told_' || watched, watched);
    END LOOP;
    CREATE TEMPORARY TABLE audit_told_others PARTITION OF audit_told DEFAULT;
    GRANT SELECT ON audit_told TO orders_audit;
END $$

-- name: copy_audit_told
-- Row images of verified records.
COPY audit_told FROM STDIN WITH (FORMAT binary)

-- name: compare_audited
-- Whether the rows of a table are as they were written last, by what was verified up to a record and all records after it.
WITH tail AS MATERIALIZED (
    SELECT event_id, action, CAST(detail ->> 'columns' AS integer) AS columns, rows, digests || '' AS digests
    FROM audit_events
    WHERE event_id > :through AND entity = :entity
      AND (action = 'truncate' OR (digests IS NOT NULL AND json_typeof(detail -> 'columns') = 'number'))
), images AS (
    SELECT key, event_id, columns, digest FROM audit_told WHERE entity = :entity
    UNION ALL
    SELECT substring(digests FROM width * n + 1 FOR width - 16), event_id, columns,
           substring(digests FROM width * n + width - 15 FOR 16)
    FROM tail CROSS JOIN LATERAL (SELECT length(digests) / rows AS width) AS measured
    CROSS JOIN LATERAL generate_series(0, rows - 1) AS n
), last AS (
    SELECT DISTINCT ON (key) key, event_id, columns, digest FROM images
    WHERE event_id > greatest(CAST(:after AS bigint), (SELECT max(event_id) FROM tail WHERE action = 'truncate'))
    ORDER BY key, event_id DESC
), widths AS MATERIALIZED (
    SELECT array_agg(width) AS widths
    FROM (SELECT unnest(CAST(:widths AS integer[])) AS width UNION SELECT columns FROM tail WHERE columns IS NOT NULL) AS all_widths
), compared AS (
    SELECT key, event_id, row.name,
           CASE WHEN event_id IS NULL THEN CAST(:all_read AS boolean)
                WHEN row.name IS NULL THEN digest <> decode(repeat('00', 16), 'hex')
                ELSE digest IS DISTINCT FROM row.digests[array_position((SELECT widths FROM widths), columns)] END AS is_altered
    FROM last FULL JOIN (SELECT * FROM audit_rows(:entity, (SELECT widths FROM widths))) AS row USING (key)
)
SELECT count(name) AS rows, count(*) FILTER (WHERE is_altered) AS altered,
       (array_agg(event_id ORDER BY event_id) FILTER (WHERE is_altered))[1] AS event_id,
       (array_agg(key ORDER BY event_id) FILTER (WHERE is_altered))[1] AS key,
       (array_agg(name ORDER BY event_id) FILTER (WHERE is_altered))[1] AS name
FROM compared

-- name: audit_carry
-- Record a table's images anew, where its rows still have them.
SELECT audit_carry(:entity, :width)

-- name: audit_record_of
-- A record as text.
SELECT audit_text(audit_events) FROM audit_events WHERE event_id = :event_id

-- name: identify_caller
-- Who the rest of this transaction is for; it waits for no other transaction for long.
SELECT set_config('orders.actor', :actor, true), set_config('lock_timeout', '5s', true)

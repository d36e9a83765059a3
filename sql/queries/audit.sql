-- name: introduce
-- Say who works over this connection, and give up all rights but the application's.
SELECT set_config('orders.actor', :actor, false), set_config('orders.origin', :origin, false),
       set_config('role', 'orders_app', false)

-- name: audit_record
-- Write down what no row shows.
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
-- Those that are no more.
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
-- Those that are no more.
DELETE FROM known_keys WHERE key_id <> ALL (CAST(:key_ids AS text[]))

-- name: audit_last_id
-- The highest number that a record was given.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_events_event_id_seq

-- name: own_transaction
-- A number above those of all transactions that have written anything.
SELECT pg_current_xact_id()::text

-- name: transactions_before_are_over
-- Whether all transactions up to one have ended.
SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(:transaction AS xid8)

-- name: audit_seal
-- Seal what is not sealed yet.
SELECT audit_seal(:through)

-- name: last_seal
-- The newest block.
SELECT block_no, encode(head, 'hex') AS head, through_id, records, sealed_at FROM audit_seals ORDER BY block_no DESC LIMIT 1

-- name: audit_blocks
-- Blocks in the order of their chain, and where each is.
SELECT seal.block_no, seal.category, day, first_id, last_id, records, through_id, digests, head,
       coalesce(last.place, 'hot') AS place, last.key,
       coalesce(last.place = 'gone' AND last.moved_at > changed_at
                AND (last.moved_at AT TIME ZONE 'UTC')::date <= day + gone_after, false) AS gone_too_early
FROM audit_seals AS seal JOIN retention_limits USING (category)
LEFT JOIN LATERAL (
    SELECT place, key, moved_at FROM audit_moves WHERE audit_moves.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last ON true
WHERE seal.block_no > :after ORDER BY seal.block_no LIMIT :limit

-- name: audit_records_of_block
-- The next records of a category and day, up to a number, as text.
SELECT event_id, audit_text(audit_events) AS record FROM audit_events
WHERE category = :category AND at >= CAST(:day AS timestamp) AT TIME ZONE 'UTC'
  AND at < (CAST(:day AS timestamp) + interval '1 day') AT TIME ZONE 'UTC' AND event_id > :after AND event_id <= :last_id
ORDER BY event_id LIMIT :limit

-- name: count_audit_records
-- How many records there are up to the last sealed one, and how many after it.
SELECT count(*) FILTER (WHERE event_id <= :through_id) AS sealed, count(*) FILTER (WHERE event_id > :through_id) AS unsealed
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

-- name: audit_altered
-- The rows that are not as their insert was recorded.
SELECT key, digest FROM audit_altered(:entity, :key_name, CAST(:columns AS text[]), :digests)

-- name: blocks_due
-- Blocks of the audit behind one that go on to the next place, oldest first.
SELECT block_no, category, day, place, key, next_place, cold_from, kept_until FROM audit_places
WHERE next_place IS NOT NULL AND block_no > :after ORDER BY block_no LIMIT :limit

-- name: count_held_blocks
-- Blocks that a legal hold keeps where they are.
SELECT count(*) FROM audit_places WHERE held

-- name: audit_move
-- A block is in the next place.
SELECT audit_move(:block_no, :place, :key)

-- name: audit_leftovers
-- Objects that blocks were in before they moved.
SELECT block_no, leftover FROM audit_moves WHERE leftover IS NOT NULL ORDER BY block_no

-- name: audit_cleared
-- Such an object was removed.
SELECT audit_cleared(:block_no, :key)

-- name: audit_moved_blocks
-- Blocks in the storage that may have records of some categories and a stretch of time.
SELECT seal.block_no, last.key FROM audit_seals AS seal
CROSS JOIN LATERAL (
    SELECT place, key FROM audit_moves WHERE audit_moves.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last
WHERE last.place <> 'gone' AND seal.category = ANY (CAST(:categories AS text[]))
  AND seal.day >= coalesce((CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date, '-infinity')
  AND seal.day <= coalesce((CAST(:until AS timestamptz) AT TIME ZONE 'UTC')::date, 'infinity')
ORDER BY seal.block_no

-- name: dagster_events_exist
-- Whether Dagster has its tables here.
SELECT to_regclass('dagster.event_logs') IS NOT NULL

-- name: dagster_events_since
-- How far Dagster's history goes back.
SELECT now() - events FROM dagster_retention

-- name: purge_dagster_events
-- Old events that no asset, check or state of a run needs.
DELETE FROM dagster.event_logs WHERE id IN (
    SELECT id FROM dagster.event_logs
    WHERE timestamp < (now() - (SELECT events FROM dagster_retention)) AT TIME ZONE 'UTC'
      AND (dagster_event_type IS NULL OR dagster_event_type !~ '^(ASSET|PIPELINE|RUN)_')
    LIMIT :limit)

-- name: place_hold
-- What may not move or go.
INSERT INTO legal_holds (batch_id, category, from_day, to_day, placed_by, reason)
VALUES (:batch_id, :category, coalesce(CAST(:from_day AS date), '-infinity'), coalesce(CAST(:to_day AS date), 'infinity'),
        :who, :why)
RETURNING hold_id

-- name: hold_covers
-- How many blocks a hold keeps where they are, with how many records, and how many that are not sealed yet it is about.
SELECT count(*) AS blocks, coalesce(sum(seal.records), 0) AS records, (
    SELECT count(*) FROM audit_events, legal_holds AS hold
    WHERE hold.hold_id = :hold_id AND event_id > coalesce((SELECT through_id FROM audit_seals ORDER BY block_no DESC LIMIT 1), 0)
      AND (at AT TIME ZONE 'UTC')::date BETWEEN hold.from_day AND hold.to_day
      AND coalesce(hold.category, audit_events.category) = audit_events.category
      AND (hold.batch_id IS NULL OR audit_events.batch_id = hold.batch_id)
) AS unsealed
FROM legal_holds AS hold
JOIN audit_seals AS seal ON seal.day BETWEEN hold.from_day AND hold.to_day
                        AND coalesce(hold.category, seal.category) = seal.category
LEFT JOIN LATERAL (
    SELECT place, batch_ids FROM audit_moves AS move WHERE move.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last ON true
WHERE hold.hold_id = :hold_id AND last.place IS DISTINCT FROM 'gone'
  AND (hold.batch_id IS NULL OR hold.batch_id = ANY (last.batch_ids) OR (last.place IS NULL AND EXISTS (
      SELECT FROM audit_events WHERE audit_events.batch_id = hold.batch_id
      AND audit_events.category = seal.category AND (at AT TIME ZONE 'UTC')::date = seal.day
      AND event_id BETWEEN seal.first_id AND seal.last_id)))

-- name: release_hold
-- It may again.
UPDATE legal_holds SET released_by = :who, release_reason = :why, released_at = now()
WHERE hold_id = :hold_id AND released_at IS NULL

-- name: retention_limits
-- How long records stay where.
SELECT category, hot_until::text, warm_until::text, gone_after::text FROM retention_limits ORDER BY category

-- name: retention_places
-- How much is where.
SELECT seal.category, coalesce(last.place, 'hot') AS place, count(*) AS blocks, sum(seal.records) AS records
FROM audit_seals AS seal LEFT JOIN LATERAL (
    SELECT place FROM audit_moves WHERE audit_moves.block_no = seal.block_no
    ORDER BY array_position('{warm,cold,gone}', place) DESC LIMIT 1
) AS last ON true
GROUP BY 1, 2 ORDER BY 1, array_position('{hot,warm,cold,gone}', coalesce(last.place, 'hot'))

-- name: legal_holds
-- The holds that are not released.
SELECT hold_id, batch_id, category, nullif(from_day, '-infinity') AS from_day, nullif(to_day, 'infinity') AS to_day,
       placed_by, reason, placed_at
FROM legal_holds WHERE released_at IS NULL ORDER BY hold_id

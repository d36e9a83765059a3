-- name: objects_due
-- What goes on to the next place: blocks of a category and day that are in the database, or in one object.
SELECT category, day, place, key, next_place, min(cold_from) AS cold_from, min(kept_until) AS kept_until
FROM audit_due GROUP BY category, day, place, key, next_place ORDER BY day, category, key

-- name: blocks_due
-- The next blocks among those.
SELECT seal.block_no, seal.category, seal.day, first_id, last_id, records, through_id, digests, head, due.place, due.key,
       CASE WHEN (due.category, due.day) <> (seal.category, seal.day) THEN 'block altered' END AS wrong
FROM audit_due AS due JOIN audit_seals AS seal USING (block_no)
WHERE due.category = :category AND due.day = :day AND due.place = :place AND due.key IS NOT DISTINCT FROM :key
  AND block_no > :after
ORDER BY block_no LIMIT :limit

-- name: count_held_blocks
-- Blocks that a legal hold keeps where they are.
SELECT count(DISTINCT block_no) FROM audit_held

-- name: audit_move
-- Blocks are in the next place.
SELECT audit_move(CAST(:block_nos AS bigint[]), :place, :key)

-- name: audit_leftovers
-- Objects that no block is in any more.
SELECT key FROM audit_leftovers WHERE NOT EXISTS (SELECT FROM audit_blocks WHERE audit_blocks.key = audit_leftovers.key)
ORDER BY key

-- name: audit_cleared
-- Such an object was removed.
SELECT audit_cleared(:key)

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
-- How many blocks and records a hold keeps where they are, and how many records it covers that are not sealed yet.
SELECT count(*) AS blocks, coalesce(sum(seal.records), 0) AS records, (
    SELECT count(*) FROM audit_events, legal_holds AS hold
    WHERE hold.hold_id = :hold_id AND event_id > coalesce((SELECT through_id FROM audit_seals ORDER BY block_no DESC LIMIT 1), 0)
      AND (at AT TIME ZONE 'UTC')::date BETWEEN hold.from_day AND hold.to_day
      AND coalesce(hold.category, audit_events.category) = audit_events.category
      AND (hold.batch_id IS NULL OR audit_events.batch_id = hold.batch_id)
) AS unsealed
FROM audit_held JOIN audit_seals AS seal USING (block_no) WHERE hold_id = :hold_id

-- name: release_hold
-- What a hold kept may move and go again.
UPDATE legal_holds SET released_by = :who, release_reason = :why, released_at = now()
WHERE hold_id = :hold_id AND released_at IS NULL

-- name: retention_limits
-- How long records stay where.
SELECT category, hot_until::text, warm_until::text, gone_after::text FROM retention_limits ORDER BY category

-- name: retention_places
-- How much is where.
SELECT block.category, place, count(*) AS blocks, sum(records) AS records FROM audit_blocks AS block
JOIN audit_seals USING (block_no) GROUP BY 1, 2 ORDER BY 1, array_position('{hot,warm,cold,gone}', place)

-- name: legal_holds
-- The holds that are not released.
SELECT hold_id, batch_id, category, nullif(from_day, '-infinity') AS from_day, nullif(to_day, 'infinity') AS to_day,
       placed_by, reason, placed_at
FROM legal_holds WHERE released_at IS NULL ORDER BY hold_id

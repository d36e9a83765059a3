-- name: try_ship_audit
-- Nobody else sends audit records as long as this session lives; false where somebody does.
SELECT pg_try_advisory_lock(4711010)

-- name: end_shipping_audit
-- Others may send at once, and not only when the server has noticed that this session is closed.
SELECT pg_advisory_unlock(4711010)

-- name: want_audit_shipping
-- Sending is wanted: from the first block in the database on, or where it was.
INSERT INTO audit_shipping (block_no, head)
SELECT first.block_no - 1, coalesce(before.head, '')
FROM (SELECT coalesce((SELECT min(block_no) FROM audit_blocks WHERE place = 'hot'),
                      (SELECT max(block_no) + 1 FROM audit_seals), 1) AS block_no) AS first
LEFT JOIN audit_seals AS before ON before.block_no = first.block_no - 1
ON CONFLICT (one) DO UPDATE SET is_wanted = true WHERE NOT audit_shipping.is_wanted

-- name: unwant_audit_shipping
-- Sending is not wanted any more: nothing stays in the database for it.
UPDATE audit_shipping SET is_wanted = false WHERE is_wanted

-- name: ship_audit_again
-- All that is in the database is to be sent once more.
DELETE FROM audit_shipping

-- name: audit_shipping
-- How far sending is, and the head that the block of then has now.
SELECT block_no, event_id, audit_shipping.head, coalesce(seal.head, '') AS head_now
FROM audit_shipping LEFT JOIN audit_seals AS seal USING (block_no)

-- name: audit_shipped
-- Everything up to a record was sent; never less than before.
UPDATE audit_shipping SET block_no = :block_no, event_id = :event_id, shipped_at = clock_timestamp(),
       head = coalesce((SELECT head FROM audit_seals WHERE audit_seals.block_no = :block_no), '')
WHERE (block_no, event_id) < (:block_no, :event_id)

-- name: blocks_to_ship
-- The next blocks in the database that were not sent.
SELECT seal.block_no, seal.category, seal.day, seal.first_id, seal.last_id, seal.records, seal.through_id, seal.digests,
       seal.head, place, key, NULL AS wrong, coalesce(before.head, '') AS head_before
FROM audit_blocks AS block JOIN audit_seals AS seal USING (block_no)
LEFT JOIN audit_seals AS before ON before.block_no = seal.block_no - 1
WHERE block.place = 'hot' AND block.block_no > :after
ORDER BY block.block_no LIMIT :limit

-- name: audit_unshipped
-- How many sealed records wait to be sent, and since when; no row where that is not wanted.
SELECT coalesce(sum(seal.records), 0) AS records, min(seal.sealed_at) AS since
FROM audit_shipping AS shipped LEFT JOIN audit_seals AS seal ON seal.block_no > shipped.block_no
WHERE shipped.is_wanted HAVING count(*) > 0

-- name: count_blocks_kept_to_ship
-- Blocks that would have left the database long ago and were not sent.
SELECT count(*) FROM audit_shipping AS shipped CROSS JOIN retention_limits AS limits
JOIN audit_blocks AS block ON block.category = limits.category AND block.place = 'hot'
                          AND block.day < ((now() AT TIME ZONE 'UTC')::date - hot_until)::date
                          AND block.block_no > shipped.block_no
WHERE is_wanted

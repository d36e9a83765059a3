-- name: landing_position
-- The key where the last look at the landing stopped; empty when it came to the end.
SELECT after_key FROM landing_position

-- name: set_landing_position
-- Where this look stopped; empty for the end.
INSERT INTO landing_position (after_key) VALUES (:after_key) ON CONFLICT (one) DO UPDATE SET after_key = EXCLUDED.after_key

-- name: known_landing_files
-- What the ledger has of these files with the same content, whatever their metadata and manifests were, oldest first.
-- Who cancels a batch does not ask for its bytes under another name: only a refused twin lets a file be taken.
SELECT files.key, files.version, files.batch_id, batches.source_sha256,
       extract(epoch FROM now() - files.first_seen_at) AS seconds,
       batches.status = 'rejected' OR batches.status = 'cancelled' AND NOT is_paid_in_part(batches.batch_id) AS is_void,
       CASE WHEN batches.status = 'rejected' THEN batches.status_code END AS refused_for,
       batches.status = 'cancelled' AS is_cancelled,
       twins.status = 'rejected' AS has_refused_twin
FROM unnest(CAST(:keys AS text[]), CAST(:contents AS text[])) AS asked (key, content)
JOIN landing_files AS files ON files.key = asked.key
                           AND files.version >= asked.content AND files.version <= asked.content || chr(127)
LEFT JOIN batches ON batches.batch_id = files.batch_id
LEFT JOIN batches AS twins ON twins.batch_id = batches.duplicate_of
ORDER BY files.key, files.first_seen_at

-- name: waiting_landing_files
-- Versions behind one key, up to another or to the end, that were seen and are no batch yet.
SELECT key, version FROM landing_files
WHERE batch_id IS NULL AND key > :after_key AND (CAST(:upto_key AS text) IS NULL OR key <= :upto_key)

-- name: see_landing_files
-- Versions of files that are in the landing now; in one order, so that two hosts do not wait for each other in a circle.
INSERT INTO landing_files (key, version, size)
SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[]), CAST(:sizes AS bigint[])) ORDER BY 1, 2
ON CONFLICT (key, version) DO NOTHING

-- name: register_landing_file
-- A version became a batch.
INSERT INTO landing_files (key, version, size, batch_id) VALUES (:key, :version, :size, :batch_id)
ON CONFLICT (key, version) DO UPDATE SET batch_id = EXCLUDED.batch_id WHERE landing_files.batch_id IS NULL

-- name: forget_landing_files
-- Versions that were replaced or removed before they became a batch.
DELETE FROM landing_files WHERE batch_id IS NULL
  AND (key, version) IN (SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[])))

-- name: landing_file_seconds
-- For how long a version has been seen.
SELECT extract(epoch FROM now() - first_seen_at) FROM landing_files WHERE key = :key AND version = :version

-- name: see_left_alone
-- What lies in the landing and is no order file, or was refused.
-- In one order, so that two hosts do not wait for each other in a circle.
WITH seen_first AS (
    INSERT INTO landing_left_alone (key, is_refused)
    SELECT key, bool_or(is_refused) FROM unnest(CAST(:keys AS text[]), CAST(:are_refused AS boolean[])) AS left_so (key, is_refused)
    GROUP BY key ORDER BY key
    ON CONFLICT DO NOTHING
)
UPDATE landing_left_alone SET seen_again = true WHERE NOT seen_again AND key = ANY (CAST(:keys AS text[]))

-- name: forget_left_alone
-- What lay behind one key, up to another or to the end, and does not any more, or as something else.
DELETE FROM landing_left_alone
WHERE key > :after_key AND (CAST(:upto_key AS text) IS NULL OR key <= :upto_key)
  AND (key, is_refused) NOT IN (SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:are_refused AS boolean[])))

-- name: left_alone_names
-- What two looks have shown there of one kind, and how much there is.
SELECT key, count(*) OVER () AS names FROM landing_left_alone
WHERE seen_again AND is_refused = :are_refused ORDER BY key LIMIT :limit

-- name: waiting_names
-- Order files that wait for longer than two looks take: for the end of their last line, or for who writes them.
SELECT key, count(*) OVER () AS names FROM landing_files
WHERE batch_id IS NULL AND first_seen_at < now() - interval '20 seconds' ORDER BY key LIMIT :limit

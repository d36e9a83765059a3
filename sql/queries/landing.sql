-- name: landing_position
-- The key where the last look at the landing stopped; nothing when it came to the end.
SELECT after_key FROM landing_position

-- name: set_landing_position
-- Where this look stopped; empty for the end.
INSERT INTO landing_position (after_key) VALUES (:after_key) ON CONFLICT (one) DO UPDATE SET after_key = EXCLUDED.after_key

-- name: known_landing_files
-- Which of these versions the ledger has, and their batches.
SELECT key, version, batch_id FROM landing_files
WHERE (key, version) IN (SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[])))

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

-- name: see_landing_file
-- A version of a file that is in the landing now.
INSERT INTO landing_files (key, version, size) VALUES (:key, :version, :size) ON CONFLICT (key, version) DO NOTHING

-- name: unregistered_landing_files
-- Versions seen before that are no batch yet.
SELECT key, version, size FROM landing_files WHERE batch_id IS NULL

-- name: known_landing_files
-- Which of these versions the ledger has, and their batches.
SELECT key, version, batch_id FROM landing_files
WHERE (key, version) IN (SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[])))

-- name: register_landing_file
-- A version became a batch.
UPDATE landing_files SET batch_id = :batch_id WHERE key = :key AND version = :version AND batch_id IS NULL

-- name: forget_landing_files
-- Versions that were replaced or removed before they became a batch.
DELETE FROM landing_files WHERE batch_id IS NULL
  AND (key, version) IN (SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:versions AS text[])))

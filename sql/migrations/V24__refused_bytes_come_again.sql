-- Bytes of which nothing was loaded may come again, once the manifest, limit or profile that refused them is mended.

DROP INDEX batches_same_bytes;
CREATE UNIQUE INDEX batches_same_bytes ON batches (source_sha256, client_code, again_no)
    WHERE duplicate_of IS NULL AND status <> 'rejected';

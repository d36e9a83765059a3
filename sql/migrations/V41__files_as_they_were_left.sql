-- What the files are that the steps of a batch leave in the storage for the next ones: whoever may write there cannot put
-- others in their place. What the original is, source_sha256 says.

ALTER TABLE batches
    ADD file_sha256 jsonb NOT NULL DEFAULT '{}' CONSTRAINT batches_file_sha256_by_name CHECK (jsonb_typeof(file_sha256) = 'object');
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

ALTER TABLE batch_locks DROP COLUMN validated_sha256;

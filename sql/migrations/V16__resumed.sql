-- When a person last resumed a batch: runs that were terminated before stop it no more, and a run that comes of it is not
-- waited for as long as one that a sensor asks for.

ALTER TABLE batches ADD COLUMN resumed_at timestamptz;
COMMENT ON COLUMN batches.resumed_at IS
    'When a person last said that it goes on; null: nobody did, or only by a run of the person''s own.';
CREATE INDEX workers_batch ON workers (batch_id, started_at);
SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key,cancelled_why}');

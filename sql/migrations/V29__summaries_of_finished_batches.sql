-- What finished batches came to, counted from rows once and kept until anything of them changes: a list of batches need not
-- count all their orders. Nothing is ever added up here: a change only lets the summary be forgotten.

CREATE TABLE batch_summaries (
    batch_id    text COLLATE "C" CONSTRAINT batch_summaries_pkey PRIMARY KEY
                CONSTRAINT batch_summaries_batch_id_fkey REFERENCES batches,
    schema_rank integer NOT NULL,                  -- of the schema it was counted under: another one may count more
    summary     json NOT NULL                      -- in the order it is shown in
);
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_summaries TO orders_app;

CREATE FUNCTION batch_summaries_rank() RETURNS integer STABLE LANGUAGE sql AS $$
    SELECT max(installed_rank) FROM flyway_schema_history
$$;

CREATE FUNCTION batch_summaries_lock_class() RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT 4711007 $$;

-- Who changes something takes the lock shared, who counts takes it alone: nothing that changes meanwhile goes unnoticed.
CREATE FUNCTION forget_summaries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(batch_summaries_lock_class(), hashtext(batch_id))
    FROM (SELECT DISTINCT batch_id FROM after ORDER BY batch_id) AS touched;
    DELETE FROM batch_summaries WHERE batch_id = ANY (ARRAY(SELECT DISTINCT batch_id FROM after));
    RETURN NULL;
END $$;

DO $$
DECLARE
    watched text;
BEGIN
    FOREACH watched IN ARRAY ARRAY['batches', 'batch_stages', 'orders', 'payments', 'notifications', 'refunds'] LOOP
        EXECUTE format('CREATE TRIGGER forget_summaries_update AFTER UPDATE ON %I REFERENCING NEW TABLE AS after
                        FOR EACH STATEMENT EXECUTE FUNCTION forget_summaries()', watched);
    END LOOP;
    FOREACH watched IN ARRAY ARRAY['batch_stages', 'payments', 'notifications', 'refunds'] LOOP
        EXECUTE format('CREATE TRIGGER forget_summaries_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS after
                        FOR EACH STATEMENT EXECUTE FUNCTION forget_summaries()', watched);
    END LOOP;
END $$;

-- Audit: who changed or read what, and when, down to the field; sealed in blocks, so that whatever is altered is found.

-- orders_audit owns the audit, and nobody logs in as it; orders_app is what the application may do, whoever logs in.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['orders_audit', 'orders_app'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this server was migrated meanwhile
            END;
        END IF;
        IF NOT pg_has_role(role_name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO orders_audit', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO orders_app', current_schema());
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO orders_app', current_schema());
    REVOKE INSERT, UPDATE, DELETE ON flyway_schema_history FROM orders_app;
END $$;
GRANT SELECT ON orders, rejections, payments, notifications, refunds TO orders_audit;

CREATE TABLE audit_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_events_pkey PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    category    text COLLATE "C" NOT NULL,
    action      text COLLATE "C" NOT NULL,
    actor       text NOT NULL                      -- the person, as the operating system or a command's --who names it
                DEFAULT coalesce(nullif(current_setting('orders.actor', true), ''), session_user),
    origin      text NOT NULL                      -- the command or the run
                DEFAULT coalesce(nullif(current_setting('orders.origin', true), ''), 'unknown'),
    login       text NOT NULL DEFAULT session_user,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    entity      text COLLATE "C",                  -- a table, or what else it is about
    batch_id    text COLLATE "C",
    rows        integer,
    detail      json NOT NULL DEFAULT '{}',
    changes     json,                              -- [{"key": {...}, "fields": {name: [before, after]}}, ...]
    digests     bytea,                             -- of rows inserted in bulk: 8 bytes of key and 16 of SHA-256 each
    CONSTRAINT audit_events_category_known CHECK (category IN
        ('authentication', 'phi_access', 'phi_modification', 'administrative', 'security'))
);
CREATE INDEX audit_events_batch ON audit_events (batch_id) WHERE batch_id IS NOT NULL;

-- A block covers the records of one category and day (UTC) that are listed in its digests: 8 bytes of event_id and the
-- SHA-256 of the record each. Its head is over its digests and the head before, so heads are one chain.
CREATE TABLE audit_seals (
    block_no   bigint CONSTRAINT audit_seals_pkey PRIMARY KEY,
    category   text COLLATE "C" NOT NULL,
    day        date NOT NULL,
    first_id   bigint NOT NULL,
    last_id    bigint NOT NULL,
    records    integer NOT NULL,
    through_id bigint NOT NULL,                    -- every record up to this one is in this block or one before
    digests    bytea NOT NULL,
    head       bytea NOT NULL,
    sealed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_seals_day ON audit_seals (day, category);

-- What personal values are hashed with in the audit; never leaves the database.
CREATE TABLE audit_hash_key (
    one    boolean CONSTRAINT audit_hash_key_pkey PRIMARY KEY DEFAULT true CONSTRAINT audit_hash_key_one CHECK (one),
    secret bytea NOT NULL
);
INSERT INTO audit_hash_key (secret)
SELECT sha256(string_agg(uuid_send(gen_random_uuid()), '')) FROM generate_series(1, 4);

-- What the settings said when they were last seen, so that a change of them is one of a row.
CREATE TABLE known_profiles (
    client_code text COLLATE "C" CONSTRAINT known_profiles_pkey PRIMARY KEY,
    profile     jsonb NOT NULL
);
CREATE TABLE known_keys (
    key_id      text COLLATE "C" CONSTRAINT known_keys_pkey PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    is_current  boolean NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON known_profiles, known_keys TO orders_app;

CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' OR current_user <> 'orders_audit' THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the audit is only added to';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();
CREATE TRIGGER audit_seals_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();

-- HMAC-SHA-256's construction from the function that is built in.
CREATE FUNCTION audit_hash(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'keyed:' || encode(sha256(secret || sha256(secret || convert_to(value, 'UTF8'))), 'hex') FROM audit_hash_key
$$;

-- Writes down what no row shows: readings, sign-ins, administration, security events.
CREATE FUNCTION audit_record(category text, action text, entity text, batch_id text, rows integer, detail json)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    INSERT INTO audit_events (category, action, entity, batch_id, rows, detail)
    VALUES (category, action, entity, batch_id, rows, detail);
END $$;

-- A record as one line of text: what is hashed, and what is kept when the record leaves the database.
CREATE FUNCTION audit_text(record audit_events) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT json_build_array(record.event_id, to_char(record.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        record.category, record.action, record.actor, record.origin, record.login, record.transaction::text,
        record.entity, record.batch_id, record.rows, record.detail, record.changes, encode(record.digests, 'hex'))::text
$$;

-- Seals what is not sealed yet up to a record; the caller has seen to it that no earlier one can still appear.
CREATE FUNCTION audit_seal(through bigint) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    last audit_seals;
    part record;
    made integer := 0;
BEGIN
    LOCK TABLE audit_seals IN EXCLUSIVE MODE;
    SELECT * INTO last FROM audit_seals ORDER BY block_no DESC LIMIT 1;
    last.block_no := coalesce(last.block_no, 0);
    last.head := coalesce(last.head, '');
    FOR part IN
        SELECT category, day, min(event_id) AS first_id, max(event_id) AS last_id, count(*)::integer AS records,
               string_agg(int8send(event_id) || digest, '' ORDER BY event_id) AS digests
        FROM (SELECT category, at::date AS day, event_id, sha256(convert_to(audit_text(audit_events), 'UTF8')) AS digest,
                     row_number() OVER (PARTITION BY category, at::date ORDER BY event_id) / 10000 AS part
              FROM audit_events WHERE event_id > coalesce(last.through_id, 0) AND event_id <= through) AS unsealed
        GROUP BY category, day, unsealed.part ORDER BY min(event_id)
    LOOP
        made := made + 1;
        last.block_no := last.block_no + 1;
        last.head := sha256(last.head || sha256(part.digests) || convert_to(json_build_array(last.block_no,
            part.category, part.day, part.first_id, part.last_id, part.records, through)::text, 'UTF8'));
        INSERT INTO audit_seals (block_no, category, day, first_id, last_id, records, through_id, digests, head)
        VALUES (last.block_no, part.category, part.day, part.first_id, part.last_id, part.records, through,
                part.digests, last.head);
    END LOOP;
    RETURN made;
END $$;

-- The rows of a table that are not as its inserts in bulk were recorded, with what their digest is now (null: gone).
CREATE FUNCTION audit_altered(watched text, key_name text, columns text[], digests bytea)
RETURNS TABLE (key bigint, digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE format($query$
        WITH recorded AS (
            SELECT ('x' || encode(substring($1 FROM 24 * n + 1 FOR 8), 'hex'))::bit(64)::bigint AS key,
                   substring($1 FROM 24 * n + 9 FOR 16) AS digest
            FROM generate_series(0, length($1) / 24 - 1) AS n
        ), present AS (
            SELECT %2$I AS key, substring(sha256(record_send(ROW(%3$s))) FOR 16) AS digest FROM %1$I
            WHERE %2$I BETWEEN (SELECT min(key) FROM recorded) AND (SELECT max(key) FROM recorded)
        )
        SELECT key, present.digest FROM recorded LEFT JOIN present USING (key)
        WHERE present.digest IS DISTINCT FROM recorded.digest
    $query$, watched, key_name, (SELECT string_agg(format('%I', name), ', ') FROM unnest(columns) AS name)) USING digests;
END $$;

-- Has every change of a table recorded from here on: one record a statement and batch, of 1,000 rows at most. `hashed`
-- columns may hold personal values. `bulk` tables are filled by COPY: of inserted rows only the columns not in `moving`
-- are recorded, as digests. Call it again in the migration that gives the table a column.
CREATE FUNCTION audit_watch(watched regclass, category text, hashed text[] DEFAULT '{}', bulk boolean DEFAULT false,
                            moving text[] DEFAULT '{}', batch text DEFAULT '%1$s.batch_id') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    keys text;          -- the columns of the primary key
    key_members text;   -- "name": value of each, of the side that has it
    inserted text;      -- "name": [null, after]
    updated text;       -- "name": [before, after] where these differ
    deleted text;       -- "name": [before, null]
    fixed text[];       -- what a digest is over
    digest text := $digest$substring(sha256(record_send(ROW(%s))) FOR 16)$digest$;
    renewed text := '''''';
    insert_part text;
    record_part text := $part$
        INSERT INTO audit_events (category, action, entity, batch_id, rows, changes)
        SELECT %L, lower(TG_OP), %L, batch, count(*), ('[' || string_agg(change, ',') || ']')::json
        FROM (SELECT batch, (row_number() OVER () - 1) / 1000 AS part,
                     '{"key":{' || key || '},"fields":{' || fields || '}' || digest || '}' AS change
              FROM (SELECT %s AS batch, concat_ws(',', %s) AS key, concat_ws(',', %s) AS fields, %s AS digest
                    FROM %s) AS row
              WHERE fields <> '') AS change
        GROUP BY batch, part;
    $part$;
    name text := watched::text;
BEGIN
    SELECT string_agg(format('%I', attname), ', ' ORDER BY array_position(indkey::smallint[], attnum)),
           string_agg(format('%L || to_json(coalesce(%%1$s.%I, %%2$s.%2$I))::text', to_json(attname::text) || ':', attname), ', '
                      ORDER BY array_position(indkey::smallint[], attnum))
    INTO keys, key_members
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary;

    SELECT string_agg(format('%L || %s || %L', head || '[null,', format(value, 'n'), ']'), ', ' ORDER BY attnum),
           string_agg(format('CASE WHEN o.%1$I IS DISTINCT FROM n.%1$I THEN %2$L || coalesce(%3$s, %5$L) || %6$L || coalesce(%4$s, %5$L) || %7$L END',
                             attname, head || '[', format(value, 'o'), format(value, 'n'), 'null', ',', ']'), ', ' ORDER BY attnum),
           string_agg(format('%L || %s || %L', head || '[', format(value, 'o'), ',null]'), ', ' ORDER BY attnum),
           array_agg(attname::text ORDER BY attnum) FILTER (WHERE attname <> ALL (moving))
    INTO inserted, updated, deleted, fixed
    FROM (SELECT attnum, attname, to_json(attname::text) || ':' AS head,
                 CASE WHEN attname = ANY (hashed) THEN format('to_json(audit_hash(%%1$s.%I::text))::text', attname)
                      WHEN atttypid = 'bytea'::regtype
                      THEN format('to_json(''sha256:'' || encode(sha256(%%1$s.%I), ''hex''))::text', attname)
                      ELSE format('to_json(%%1$s.%I)::text', attname) END AS value
          FROM pg_attribute WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped) AS columns;

    insert_part := format(record_part, category, name, format(batch, 'n'), format(key_members, 'n', 'n'), inserted, '''''',
                          'after AS n');
    IF bulk THEN
        insert_part := format($part$
            INSERT INTO audit_events (category, action, entity, batch_id, rows, detail, digests)
            SELECT %L, 'insert', %L, batch_id, count(*), %L, string_agg(int8send(%s) || %s, '')
            FROM after GROUP BY batch_id;
        $part$, category, name, json_build_object('key', keys, 'columns', fixed), keys,
            format(digest, (SELECT string_agg(format('%I', each), ', ') FROM unnest(fixed) AS each)));
        renewed := format('CASE WHEN %s THEN %L || encode(%s, %L) || %L ELSE %L END',
            (SELECT string_agg(format('o.%I IS DISTINCT FROM n.%1$I', each), ' OR ') FROM unnest(fixed) AS each), ',"digest":"',
            format(digest, (SELECT string_agg(format('n.%I', each), ', ') FROM unnest(fixed) AS each)), 'hex', '"', '');
    END IF;
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION %I() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $body$
        BEGIN
            IF TG_OP = 'INSERT' THEN %s
            ELSIF TG_OP = 'UPDATE' THEN %s
            ELSIF TG_OP = 'DELETE' THEN %s
            ELSE
                INSERT INTO audit_events (category, action, entity) VALUES (%L, 'truncate', %L);
            END IF;
            RETURN NULL;
        END $body$
    $function$, 'audit_' || name, insert_part,
        format(record_part, category, name, format('coalesce(%s, %s)', format(batch, 'n'), format(batch, 'o')),
               format(key_members, 'n', 'o'),
               updated, renewed, format('before AS o FULL JOIN after AS n USING (%s)', keys)),
        format(record_part, category, name, format(batch, 'o'), format(key_members, 'o', 'o'), deleted, '''''', 'before AS o'),
        category, name);
    EXECUTE format('ALTER FUNCTION %I() OWNER TO orders_audit', 'audit_' || name);
    EXECUTE format($triggers$
        CREATE OR REPLACE TRIGGER audit_insert AFTER INSERT ON %1$s REFERENCING NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION %2$I();
        CREATE OR REPLACE TRIGGER audit_update AFTER UPDATE ON %1$s REFERENCING OLD TABLE AS before NEW TABLE AS after
            FOR EACH STATEMENT EXECUTE FUNCTION %2$I();
        CREATE OR REPLACE TRIGGER audit_delete AFTER DELETE ON %1$s REFERENCING OLD TABLE AS before
            FOR EACH STATEMENT EXECUTE FUNCTION %2$I();
        CREATE OR REPLACE TRIGGER audit_truncate AFTER TRUNCATE ON %1$s FOR EACH STATEMENT EXECUTE FUNCTION %2$I()
    $triggers$, watched, 'audit_' || name);
END $$;

SELECT audit_watch('batches', 'administrative', '{csv_source,landing_key}');
SELECT audit_watch('orders', 'phi_modification', '{csv_source}', bulk => true, moving => '{status,status_changed_at}');
SELECT audit_watch('rejections', 'phi_modification', bulk => true);
SELECT audit_watch('corrections', 'phi_modification');
SELECT audit_watch('payments', 'phi_modification');
SELECT audit_watch('payment_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id)');
SELECT audit_watch('notifications', 'phi_modification');
SELECT audit_watch('notification_orders', 'phi_modification',
    batch => '(SELECT batch_id FROM notifications WHERE notifications.notification_id = %1$s.notification_id)');
SELECT audit_watch('refunds', 'phi_modification', '{reason}');
SELECT audit_watch('refund_orders', 'phi_modification',
                   batch => '(SELECT batch_id FROM refunds WHERE refunds.refund_id = %1$s.refund_id)');
SELECT audit_watch('resolutions', 'phi_modification', '{reason}',
                   batch => '(SELECT batch_id FROM payments WHERE payments.payment_id = %1$s.payment_id)');
SELECT audit_watch('reconciliation_findings', 'administrative');
SELECT audit_watch('batch_closings', 'administrative');
SELECT audit_watch('known_profiles', 'administrative', batch => 'NULL::text');
SELECT audit_watch('known_keys', 'security', batch => 'NULL::text');

ALTER TABLE audit_events OWNER TO orders_audit;
ALTER TABLE audit_seals OWNER TO orders_audit;
ALTER TABLE audit_hash_key OWNER TO orders_audit;
ALTER FUNCTION audit_stays() OWNER TO orders_audit;
ALTER FUNCTION audit_hash(text) OWNER TO orders_audit;
ALTER FUNCTION audit_record(text, text, text, text, integer, json) OWNER TO orders_audit;
ALTER FUNCTION audit_text(audit_events) OWNER TO orders_audit;
ALTER FUNCTION audit_seal(bigint) OWNER TO orders_audit;
ALTER FUNCTION audit_altered(text, text, text[], bytea) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_record(text, text, text, text, integer, json), audit_seal(bigint),
    audit_altered(text, text, text[], bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_record(text, text, text, text, integer, json), audit_seal(bigint),
    audit_altered(text, text, text[], bytea) TO orders_app;
GRANT SELECT ON audit_events, audit_seals, audit_events_event_id_seq TO orders_app;

-- What later migrations add is the application's too, unless they say otherwise.
DO $$
BEGIN
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_app',
                   current_schema());
END $$;

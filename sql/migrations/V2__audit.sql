-- Audit: who changed or read what, and when, down to the field. Every table names itself to it with audit_watch, where it is
-- made. How records are sealed is in V3, how long they are kept in V4.

CREATE TABLE audit_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_events_pkey PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    category    text COLLATE "C" NOT NULL,
    action      text COLLATE "C" NOT NULL,
    actor       text NOT NULL DEFAULT coalesce(nullif(current_setting('orders.actor', true), ''), session_user),
    origin      text NOT NULL DEFAULT coalesce(nullif(current_setting('orders.origin', true), ''), 'unknown'),
    login       text NOT NULL DEFAULT session_user,
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    entity      text COLLATE "C",
    batch_id    text COLLATE "C",
    rows        integer,
    detail      json NOT NULL DEFAULT '{}',
    changes     json,
    digests     bytea,
    CONSTRAINT audit_events_category_known CHECK (category IN
        ('authentication', 'phi_access', 'phi_modification', 'administrative', 'security'))
);
CREATE INDEX audit_events_batch ON audit_events (batch_id) WHERE batch_id IS NOT NULL;
COMMENT ON TABLE audit_events IS
    'Audit records, written by triggers and audit_record; only added to. Old ones move to the storage (audit_blocks).';
COMMENT ON COLUMN audit_events.category IS 'What the record is kept for: it decides how long (retention_limits).';
COMMENT ON COLUMN audit_events.action IS
    'insert, update, delete, truncate and image are of rows, by the database itself; all others are by the application.';
COMMENT ON COLUMN audit_events.actor IS 'The person, as the operating system or a command''s --who names it.';
COMMENT ON COLUMN audit_events.origin IS 'The command or the run.';
COMMENT ON COLUMN audit_events.login IS 'The login at PostgreSQL, which nobody can choose.';
COMMENT ON COLUMN audit_events.entity IS 'A table, or what else the record is about.';
COMMENT ON COLUMN audit_events.batch_id IS 'Null where the record is about no batch or about many.';
COMMENT ON COLUMN audit_events.rows IS 'How many rows were written or read; null where it is about none.';
COMMENT ON COLUMN audit_events.detail IS 'Safe particulars; of rows: {"columns": how many the table had}.';
COMMENT ON COLUMN audit_events.changes IS
    '[{"key": {...}, "fields": {name: [before, after]}}, ...]; personal values are keyed hashes. Null where no row was '
    'written, or rows were inserted in bulk.';
COMMENT ON COLUMN audit_events.digests IS
    'An image of each row: its key and 16 bytes of keyed hash over its columns, zeros for a row that is gone.';
REVOKE INSERT, UPDATE, DELETE ON audit_events FROM orders_app;

CREATE TABLE audit_hash_key (
    one    boolean CONSTRAINT audit_hash_key_pkey PRIMARY KEY DEFAULT true CONSTRAINT audit_hash_key_one CHECK (one),
    secret bytea NOT NULL
);
INSERT INTO audit_hash_key (secret)
SELECT sha256(string_agg(uuid_send(gen_random_uuid()), '')) FROM generate_series(1, 4);
COMMENT ON TABLE audit_hash_key IS
    'What values and images are hashed with in the audit; one row, drawn once, that only orders_audit reads.';
COMMENT ON COLUMN audit_hash_key.one IS 'Always true: there is one row.';
COMMENT ON COLUMN audit_hash_key.secret IS '32 bytes; with another one no hash or image of before can be compared.';
REVOKE ALL ON audit_hash_key FROM orders_app;

CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' OR current_user <> 'orders_audit' THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the audit is only added to';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_stays();

-- HMAC-SHA-256's construction from the function that is built in.
CREATE FUNCTION audit_hash(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'keyed:' || encode(sha256(secret || sha256(secret || convert_to(value, 'UTF8'))), 'hex') FROM audit_hash_key
$$;

-- What only triggers record is refused: nobody says of rows that they were emptied or written when they were not.
CREATE FUNCTION audit_record(category text, action text, entity text, batch_id text, rows integer, detail json)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF action IN ('insert', 'update', 'delete', 'truncate', 'image') OR json_typeof(detail) <> 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_record_is_no_change',
            MESSAGE = 'changes of rows are recorded by the database itself';
    END IF;
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    INSERT INTO audit_events (category, action, entity, batch_id, rows, detail)
    VALUES (category, action, entity, batch_id, rows, detail);
END $$;
COMMENT ON FUNCTION audit_record(text, text, text, text, integer, json) IS
    'Writes down what no row shows: readings, sign-ins, administration, security events.';

CREATE FUNCTION audit_text(record audit_events) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT json_build_array(record.event_id, to_char(record.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        record.category, record.action, record.actor, record.origin, record.login, record.transaction::text,
        record.entity, record.batch_id, record.rows, record.detail, record.changes, encode(record.digests, 'hex'))::text
$$;
COMMENT ON FUNCTION audit_text(audit_events) IS
    'A record as one line of text: what is hashed in a seal, and what is kept when the record leaves the database.';

-- The audit keeps an image of every row: its key and a keyed hash of all its columns, whenever it is written. So a row that
-- is not as it was written last, one that is gone and one that nobody wrote are all found.

-- What an image begins with: the row's key, in as many bytes for every row of a table.
CREATE FUNCTION audit_key(watched regclass, side text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT string_agg(format(CASE atttypid WHEN 'bigint'::regtype THEN 'int8send(%1$s.%2$I)'
                                           WHEN 'integer'::regtype THEN 'int4send(%1$s.%2$I)'
                                           WHEN 'uuid'::regtype THEN 'uuid_send(%1$s.%2$I)'
                                           ELSE 'substring(sha256(convert_to(%1$s.%2$I::text, ''UTF8'')) FOR 16)' END,
                             side, attname), ' || ' ORDER BY array_position(indkey::smallint[], attnum))
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary
$$;

-- What it ends with: the keyed hash of the first so many columns. What it is keyed with is the statement's $1.
CREATE FUNCTION audit_digest(watched regclass, side text, columns integer) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT format('substring(sha256($1 || record_send(ROW(%s))) FOR 16)',
                  string_agg(format('%s.%I', side, attname), ', ' ORDER BY attnum))
    FROM pg_attribute WHERE attrelid = watched AND attnum BETWEEN 1 AND columns AND NOT attisdropped
$$;

-- The statement that records a change of a table: one record a batch and 1,000 rows, with keys, changed fields and images.
-- `hashed` columns may hold personal values. Of rows inserted in `bulk`, as by COPY, the images alone are recorded.
CREATE FUNCTION audit_statement(watched regclass, operation text, category text, hashed text[], bulk boolean, batch text)
RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE
    is_gone text := '''\x00000000000000000000000000000000''::bytea';
    keys text;          -- the columns of the primary key
    key_members text;   -- "name": value of each
    fields text;        -- "name": [before, after] of those that differ
    found text;         -- where the rows are
    key_side text := CASE operation WHEN 'DELETE' THEN 'o' ELSE 'n' END;
    image text;
    columns integer := (SELECT relnatts FROM pg_class WHERE oid = watched);
    detail json := json_build_object('columns', columns);
BEGIN
    IF operation = 'INSERT' AND bulk THEN
        RETURN format($query$
            INSERT INTO audit_events (category, action, entity, batch_id, rows, detail, digests)
            SELECT %L, 'insert', %L, %s, count(*), %L, string_agg(%s || %s, '') FROM after AS n GROUP BY 4
        $query$, category, watched, format(batch, 'n'), detail, audit_key(watched, 'n'), audit_digest(watched, 'n', columns));
    END IF;
    SELECT string_agg(format('%I', attname), ', ' ORDER BY array_position(indkey::smallint[], attnum)),
           string_agg(format('%L || to_json(%I)::text', to_json(attname::text) || ':', attname), ', '
                      ORDER BY array_position(indkey::smallint[], attnum))
    INTO keys, key_members
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indrelid = watched AND indisprimary;

    SELECT string_agg(CASE operation
        WHEN 'INSERT' THEN format('%L || %s || %L', head || '[null,', format(value, 'n'), ']')
        WHEN 'DELETE' THEN format('%L || %s || %L', head || '[', format(value, 'o'), ',null]')
        ELSE format('CASE WHEN o.%1$I IS DISTINCT FROM n.%1$I THEN %2$L || coalesce(%3$s, %5$L) || %6$L || coalesce(%4$s, %5$L) || %7$L END',
                    attname, head || '[', format(value, 'o'), format(value, 'n'), 'null', ',', ']') END, ', ' ORDER BY attnum)
    INTO fields
    FROM (SELECT attnum, attname, to_json(attname::text) || ':' AS head,
                 CASE WHEN attname = ANY (hashed) THEN format('to_json(audit_hash(%%1$s.%I::text))::text', attname)
                      WHEN atttypid = 'bytea'::regtype
                      THEN format('to_json(''sha256:'' || encode(sha256(%%1$s.%I), ''hex''))::text', attname)
                      ELSE format('to_json(%%1$s.%I)::text', attname) END AS value
          FROM pg_attribute WHERE attrelid = watched AND attnum > 0 AND NOT attisdropped) AS each;

    CASE operation
        WHEN 'INSERT' THEN
            found := 'after AS n';
            image := audit_key(watched, 'n') || ' || ' || audit_digest(watched, 'n', columns);
        WHEN 'DELETE' THEN
            found := 'before AS o';
            image := audit_key(watched, 'o') || ' || ' || is_gone;
        ELSE  -- a key that is changed is a row that is gone and one that came
            found := format('before AS o FULL JOIN after AS n USING (%s)', keys);
            image := format('CASE WHEN n.%s IS NULL THEN %s ELSE %s END', split_part(keys, ', ', 1),
                            audit_key(watched, 'o') || ' || ' || is_gone,
                            audit_key(watched, 'n') || ' || ' || audit_digest(watched, 'n', columns));
            batch := format('coalesce(%s, %s)', format(batch, 'n'), format(batch, 'o'));
    END CASE;
    RETURN format($query$
        INSERT INTO audit_events (category, action, entity, batch_id, rows, detail, changes, digests)
        SELECT %L, %L, %L, batch, count(*), %L, ('[' || string_agg(change, ',') || ']')::json, string_agg(image, '')
        FROM (SELECT batch, (row_number() OVER () - 1) / 1000 AS part, image,
                     '{"key":{' || key || '},"fields":{' || fields || '}}' AS change
              FROM (SELECT %s AS batch, concat_ws(',', %s) AS key, concat_ws(',', %s) AS fields, %s AS image
                    FROM %s) AS row
              WHERE fields <> '') AS change
        GROUP BY batch, part
    $query$, category, lower(operation), watched, detail, format(batch, key_side), key_members, fields, image, found);
END $$;

-- Records the images of all rows of a table as they are: where it had none, or none that can still be compared.
CREATE FUNCTION audit_take_images(watched regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    columns integer := (SELECT relnatts FROM pg_class WHERE oid = watched);
BEGIN
    PERFORM pg_current_xact_id();  -- before the record's number is drawn: sealing waits for older transactions
    EXECUTE format($query$
        INSERT INTO audit_events (category, action, entity, rows, detail, digests)
        SELECT split_part(encode(tgargs, 'escape'), '\000', 1), 'image', %L, images.rows, %L, images.digests
        FROM pg_trigger CROSS JOIN (
            SELECT count(*) AS rows, string_agg(image, '') AS digests
            FROM (SELECT %s || %s AS image, (row_number() OVER () - 1) / 10000 AS part FROM %s AS n) AS image GROUP BY part
        ) AS images
        WHERE tgrelid = %L::regclass AND tgname = 'audit_insert'
    $query$, watched, json_build_object('columns', columns), audit_key(watched, 'n'), audit_digest(watched, 'n', columns),
        watched, watched) USING (SELECT secret FROM audit_hash_key);
END $$;

CREATE FUNCTION audit_rows(watched text, widths integer[]) RETURNS TABLE (key bytea, name text, digests bytea[])
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1000000 SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = watched::regclass AND tgname = 'audit_insert') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'this table is not audited';
    END IF;
    RETURN QUERY EXECUTE format('SELECT %s, concat_ws('' '', %s), ARRAY[%s] FROM %I AS n',
        audit_key(watched::regclass, 'n'),
        (SELECT string_agg(format('n.%I', attname), ', ' ORDER BY array_position(indkey::smallint[], attnum))
         FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
         WHERE indrelid = watched::regclass AND indisprimary),
        (SELECT string_agg(audit_digest(watched::regclass, 'n', width), ', ' ORDER BY place)
         FROM unnest(widths) WITH ORDINALITY AS given (width, place)), watched) USING (SELECT secret FROM audit_hash_key);
END $$;
COMMENT ON FUNCTION audit_rows(text, integer[]) IS
    'The rows of an audited table as they are: key, name, and the digest of the first so many columns for each of `widths`.';

-- Call it again in a migration that drops a column of the table or changes the type of one. A new column needs nothing; it
-- costs a millisecond a statement less if it is called again.
CREATE FUNCTION audit_watch(watched regclass, category text, hashed text[] DEFAULT '{}', bulk boolean DEFAULT false,
                            batch text DEFAULT '%1$s.batch_id') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'audit_' || watched::text;
    event text;
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION %I() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $body$
        DECLARE
            hash_key bytea := (SELECT secret FROM audit_hash_key);
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                INSERT INTO audit_events (category, action, entity) VALUES (%L, 'truncate', %L);
            ELSIF (SELECT relnatts FROM pg_class WHERE oid = TG_RELID) <> %s THEN  -- the table has got more columns
                EXECUTE audit_statement(TG_RELID, TG_OP, TG_ARGV[0], TG_ARGV[1]::text[], TG_ARGV[2]::boolean, TG_ARGV[3])
                USING hash_key;
            ELSIF TG_OP = 'INSERT' THEN %s;
            ELSIF TG_OP = 'UPDATE' THEN %s;
            ELSE %s;
            END IF;
            RETURN NULL;
        END $body$
    $function$, name, category, watched, (SELECT relnatts FROM pg_class WHERE oid = watched),
        replace(audit_statement(watched, 'INSERT', category, hashed, bulk, batch), '$1', 'hash_key'),
        replace(audit_statement(watched, 'UPDATE', category, hashed, bulk, batch), '$1', 'hash_key'),
        replace(audit_statement(watched, 'DELETE', category, hashed, bulk, batch), '$1', 'hash_key'));
    FOREACH event IN ARRAY '{insert,update,delete,truncate}'::text[] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER audit_%s AFTER %1$s ON %s %s FOR EACH STATEMENT '
                       'EXECUTE FUNCTION %I(%L, %L, %L, %L)', event, watched,
            CASE event WHEN 'insert' THEN 'REFERENCING NEW TABLE AS after'
                       WHEN 'update' THEN 'REFERENCING OLD TABLE AS before NEW TABLE AS after'
                       WHEN 'delete' THEN 'REFERENCING OLD TABLE AS before' ELSE '' END, name, category, hashed, bulk, batch);
    END LOOP;
    EXECUTE format('ALTER FUNCTION %I() OWNER TO orders_audit', name);
    -- whoever may make it the trigger of a table of their own writes records of whatever they like
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %I() FROM PUBLIC', name);
    EXECUTE format('GRANT SELECT ON %s TO orders_audit', watched);
    PERFORM audit_take_images(watched);
END $$;
COMMENT ON FUNCTION audit_watch(regclass, text, text[], boolean, text) IS
    'Has every change of a table recorded from here on, and its rows as they are; for migrations. `hashed` columns may hold '
    'personal values; of rows inserted in `bulk` only images are recorded; `batch` is the expression of a row''s batch.';

ALTER TABLE audit_events OWNER TO orders_audit;
ALTER TABLE audit_hash_key OWNER TO orders_audit;
ALTER FUNCTION audit_stays() OWNER TO orders_audit;
ALTER FUNCTION audit_hash(text) OWNER TO orders_audit;
ALTER FUNCTION audit_record(text, text, text, text, integer, json) OWNER TO orders_audit;
ALTER FUNCTION audit_text(audit_events) OWNER TO orders_audit;
ALTER FUNCTION audit_key(regclass, text) OWNER TO orders_audit;
ALTER FUNCTION audit_digest(regclass, text, integer) OWNER TO orders_audit;
ALTER FUNCTION audit_statement(regclass, text, text, text[], boolean, text) OWNER TO orders_audit;
ALTER FUNCTION audit_take_images(regclass) OWNER TO orders_audit;
ALTER FUNCTION audit_rows(text, integer[]) OWNER TO orders_audit;
REVOKE EXECUTE ON FUNCTION audit_record(text, text, text, text, integer, json), audit_take_images(regclass),
    audit_rows(text, integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_record(text, text, text, text, integer, json), audit_rows(text, integer[]) TO orders_app;
GRANT EXECUTE ON FUNCTION audit_take_images(regclass) TO CURRENT_USER;
GRANT SELECT ON audit_events_event_id_seq TO orders_app;

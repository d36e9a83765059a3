-- The installation: which one this database is of, whether its ledger is whole, and what its settings said when they were last
-- seen. What differs between the ledgers is in V12.

-- How far the ledger was is kept in the storage as well: a database that was put back to an earlier time does not know what
-- was paid since. Where another database runs than at the last look, the service's list is asked.
CREATE TABLE installation (
    one             boolean CONSTRAINT installation_pkey PRIMARY KEY DEFAULT true CONSTRAINT installation_one CHECK (one),
    installation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    generation      integer NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    mark            bigint NOT NULL DEFAULT 0,
    seen_as         text COLLATE "C",
    written_by      xid8,
    whole_at        timestamptz NOT NULL DEFAULT now(),
    stopped_at      timestamptz,
    stopped_by      text COLLATE "C",
    resumed_by      text,
    resumed_why     text,
    unread_since    timestamptz,
    unread_why      text COLLATE "C",
    seen_since      timestamptz NOT NULL DEFAULT now(),
    unlisted_since  timestamptz,
    CONSTRAINT installation_stopped_by_known CHECK (stopped_by IN ('storage', 'service', 'another')),
    CONSTRAINT installation_stopped_by_something CHECK ((stopped_at IS NULL) = (stopped_by IS NULL)),
    CONSTRAINT installation_unread_for_a_reason CHECK ((unread_since IS NULL) = (unread_why IS NULL))
);
INSERT INTO installation DEFAULT VALUES;
COMMENT ON TABLE installation IS
    'Which installation this is, and whether its ledger is whole; one row. While it is not, nothing is paid or refunded.';
COMMENT ON COLUMN installation.one IS 'Always true: there is one row.';
COMMENT ON COLUMN installation.installation_id IS
    'Tells our payments at the service from everybody else''s: it begins each reference there.';
COMMENT ON COLUMN installation.generation IS 'How often it was restored, and reconciled afterwards, plus one.';
COMMENT ON COLUMN installation.mark IS 'Goes up with all that is paid and refunded; kept in the storage too.';
COMMENT ON COLUMN installation.seen_as IS
    'The running_database() that was found whole last; null: none was yet; not compared: the list could not be read.';
COMMENT ON COLUMN installation.written_by IS
    'The transaction that wrote the row last, set by a trigger; where it is not the row''s own, the row was copied here.';
COMMENT ON COLUMN installation.whole_at IS 'Nothing is missing that was paid before.';
COMMENT ON COLUMN installation.stopped_at IS
    'Nothing is paid or refunded from then on, until it is reconciled; null: it may be.';
COMMENT ON COLUMN installation.stopped_by IS
    'What told that the ledger is not whole: storage, the mark kept there; service, its list; another, a database at work '
    'over our storage.';
COMMENT ON COLUMN installation.resumed_by IS
    'Who answered for it when paying was last resumed and nothing could be compared, for the reason resumed_why; null: '
    'nobody had to.';
COMMENT ON COLUMN installation.unread_since IS
    'The service''s list had to be compared and could not be read; null: it could. Paying rests meanwhile.';
COMMENT ON COLUMN installation.unread_why IS 'A code, never the answer itself.';
COMMENT ON COLUMN installation.seen_since IS 'Since when the running database has been the same.';
COMMENT ON COLUMN installation.unlisted_since IS
    'Since when it is not known what another database, which this one replaced, has paid: no list was compared then. Null: '
    'it is.';

CREATE FUNCTION installation_is_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.written_by := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER installation_is_written BEFORE UPDATE ON installation
    FOR EACH ROW EXECUTE FUNCTION installation_is_written();
SELECT audit_watch('installation', 'security', '{resumed_why}', batch => 'NULL::text');

CREATE FUNCTION running_database() RETURNS text STABLE LANGUAGE sql AS $$
    SELECT concat_ws('|', oid, extract(epoch FROM pg_postmaster_start_time())) FROM pg_database WHERE datname = current_database()
$$;
COMMENT ON FUNCTION running_database() IS
    'Which database this is, since its server was started: whoever restores one makes another, or starts the server anew.';

-- Ids follow from what they are for, so that a database restored from a backup sends what the service has already under the
-- same key, and gets the answer of then.
CREATE FUNCTION stable_id(name text) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
    SELECT CAST(overlay(overlay(encode(substring(sha256(convert_to(name, 'UTF8')) FOR 16), 'hex')
                                PLACING '8' FROM 13) PLACING '8' FROM 17) AS uuid)
$$;
COMMENT ON FUNCTION stable_id(text) IS 'An id that is always the same for the same text (RFC 9562, version 8).';

-- A change of the settings is one of a row, and so in the audit.
CREATE TABLE known_profiles (
    client_code text COLLATE "C" CONSTRAINT known_profiles_pkey PRIMARY KEY,
    profile     jsonb NOT NULL
);
COMMENT ON TABLE known_profiles IS 'The clients'' profiles as the settings had them when a command or run last began.';
COMMENT ON COLUMN known_profiles.profile IS 'With the defaults of what it leaves out.';
SELECT audit_watch('known_profiles', 'administrative', batch => 'NULL::text');

CREATE TABLE known_keys (
    key_id      text COLLATE "C" CONSTRAINT known_keys_pkey PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    is_current  boolean NOT NULL
);
COMMENT ON TABLE known_keys IS
    'The encryption keys, without their secrets, as the settings had them when a command or run last began.';
COMMENT ON COLUMN known_keys.key_id IS 'What the settings call it, and each order''s envelope that is sealed with it.';
COMMENT ON COLUMN known_keys.fingerprint IS 'Tells a key from another under the same id.';
COMMENT ON COLUMN known_keys.is_current IS 'New orders are sealed with it.';
SELECT audit_watch('known_keys', 'security', batch => 'NULL::text');

-- Looks at the landing: what still waits is found at once, and a look goes on where the last one stopped.

CREATE INDEX landing_files_waiting ON landing_files (key, version) WHERE batch_id IS NULL;

-- One row: a position in the listing, not in time. Without it the next look begins at the first key.
CREATE TABLE landing_position (
    one       boolean CONSTRAINT landing_position_pkey PRIMARY KEY DEFAULT true,
    after_key text COLLATE "C" NOT NULL            -- a file's name, which nobody else is shown
);

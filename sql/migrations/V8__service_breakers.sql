-- Breakers: what all processes know of a service that fails. While one is open, claims pause and single calls probe.

CREATE TABLE service_breakers (
    service   text COLLATE "C" CONSTRAINT service_breakers_pkey PRIMARY KEY,
    failures  integer NOT NULL DEFAULT 0,          -- calls in a row that the service failed
    opened_at timestamptz,                         -- null: closed
    probe_at  timestamptz,                         -- from when on the next single call may be tried
    reason    text COLLATE "C",                    -- code of the last failure
    CONSTRAINT service_breakers_open_has_probe CHECK ((opened_at IS NULL) = (probe_at IS NULL))
);

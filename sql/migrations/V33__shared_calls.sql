-- How many calls each worker may have under way at a service; what those that are there hold is never above the bound.

CREATE TABLE service_shares (
    worker_id bigint CONSTRAINT service_shares_pkey PRIMARY KEY
              CONSTRAINT service_shares_worker_id_fkey REFERENCES workers,
    service   text COLLATE "C" NOT NULL,
    wanted    integer NOT NULL,
    held      integer NOT NULL,
    CONSTRAINT service_shares_held_positive CHECK (held >= 0)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON service_shares TO orders_app;

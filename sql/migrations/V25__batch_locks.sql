-- Who stages, validates or loads a batch: each who begins takes the next number, and who has an older one records nothing.

CREATE TABLE batch_locks (
    batch_id         text COLLATE "C" CONSTRAINT batch_locks_pkey PRIMARY KEY,
    lock_no          bigint NOT NULL,
    validated_sha256 text COLLATE "C"              -- of the files that validation left for loading
);

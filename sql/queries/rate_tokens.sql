-- name: add_rate_tokens
-- One token for each call a second; a new one is used for the first time in a second.
INSERT INTO rate_tokens (service, slot, free_at)
SELECT :service, slot, clock_timestamp() + interval '1 second' FROM generate_series(1, CAST(:rate_per_s AS integer)) AS slot
ON CONFLICT DO NOTHING

-- name: drop_rate_tokens
-- The rate was lowered.
DELETE FROM rate_tokens WHERE service = :service AND slot > :rate_per_s

-- name: take_rate_token
-- A free token, taken for the longest a call can last; or how long until one is free.
WITH free AS (
    SELECT slot FROM rate_tokens WHERE service = :service AND free_at <= clock_timestamp()
    ORDER BY free_at LIMIT 1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE rate_tokens SET free_at = clock_timestamp() + make_interval(secs => :lease_s)
    FROM free WHERE rate_tokens.service = :service AND rate_tokens.slot = free.slot
    RETURNING rate_tokens.slot, rate_tokens.free_at
)
SELECT (SELECT slot FROM taken) AS slot,
       (SELECT free_at FROM taken) AS lent_until,
       (SELECT extract(epoch FROM min(free_at) - clock_timestamp()) FROM rate_tokens WHERE service = :service) AS wait_s

-- name: shorten_rate_tokens
-- The clock was put back: no token stays lent for longer than a call can last from now on.
UPDATE rate_tokens SET free_at = clock_timestamp() + make_interval(secs => :lease_s)
WHERE service = :service AND free_at > clock_timestamp() + make_interval(secs => :lease_s)

-- name: give_back_rate_token
-- The reply has come: one second from now the token may be used again, unless it was lent to another meanwhile.
UPDATE rate_tokens SET free_at = clock_timestamp() + interval '1 second'
WHERE service = :service AND slot = :slot AND free_at = :lent_until

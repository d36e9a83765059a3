-- name: add_rate_tokens
-- One token for each call a second; a new one is used for the first time in a second.
INSERT INTO rate_tokens (service, slot, free_at)
SELECT :service, slot, clock_timestamp() + interval '1 second' FROM generate_series(1, CAST(:rate_per_s AS integer)) AS slot
ON CONFLICT DO NOTHING

-- name: drop_rate_tokens
-- The rate was lowered.
DELETE FROM rate_tokens WHERE service = :service AND slot > :rate_per_s

-- name: take_rate_token
-- The token that may be used first, taken for the longest a call can last from then on, and how long that is away.
-- Where none can be taken, how long it is until the first of those that are lent must be back.
WITH next AS (
    SELECT slot, greatest(free_at, clock_timestamp()) AS usable_at FROM rate_tokens
    WHERE service = :service AND free_at <= clock_timestamp() + CASE WHEN lent THEN '0' ELSE interval '1 second' END
    ORDER BY free_at LIMIT 1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE rate_tokens SET free_at = next.usable_at + make_interval(secs => :lease_s), lent = true
    FROM next WHERE rate_tokens.service = :service AND rate_tokens.slot = next.slot
    RETURNING rate_tokens.slot, rate_tokens.free_at
)
SELECT (SELECT slot FROM taken) AS slot,
       (SELECT free_at FROM taken) AS lent_until,
       extract(epoch FROM coalesce(
           (SELECT usable_at FROM next), (SELECT min(free_at) FROM rate_tokens WHERE service = :service)
       ) - clock_timestamp()) AS wait_s

-- name: shorten_rate_tokens
-- The clock was put back: no token stays lent for longer than a call can last from now on.
UPDATE rate_tokens SET free_at = clock_timestamp() + make_interval(secs => :lease_s), lent = true
WHERE service = :service AND free_at > clock_timestamp() + make_interval(secs => :lease_s)

-- name: return_rate_token
-- It may be used again in a while, unless it was lent to another meanwhile.
UPDATE rate_tokens SET free_at = clock_timestamp() + make_interval(secs => :in_s), lent = false
WHERE service = :service AND slot = :slot AND free_at = :lent_until

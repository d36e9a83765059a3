-- name: add_service_breaker
-- A service is called for the first time.
INSERT INTO service_breakers (service) VALUES (:service) ON CONFLICT DO NOTHING

-- name: breaker
-- The state of a service's breaker and of its retry budget.
SELECT failures, opened_at, probe_at, reason,
       retries_left + :refill_per_s * extract(epoch FROM clock_timestamp() - retries_at) AS retries_left,
       extract(epoch FROM probe_at - clock_timestamp()) AS probe_in_s,
       extract(epoch FROM clock_timestamp() - opened_at) AS open_for_s,
       coalesce(extract(epoch FROM rest_until - clock_timestamp()), 0) AS rest_s
FROM service_breakers WHERE service = :service

-- name: take_probe
-- One call may be tried now, if none was lately; nobody else gets one meanwhile.
UPDATE service_breakers SET probe_at = clock_timestamp() + make_interval(secs => :probe_s)
WHERE service = :service AND opened_at IS NOT NULL
  AND (probe_at <= clock_timestamp() OR probe_at > clock_timestamp() + make_interval(secs => :probe_s))

-- name: probe_now
-- The next call is the probe, without waiting, whatever rest the service has asked for.
UPDATE service_breakers SET probe_at = clock_timestamp(), rest_until = NULL
WHERE service = :service AND opened_at IS NOT NULL

-- name: close_breaker
-- The service answered as it should; what its calls came to is given to the budget, and a full one stays as it is.
UPDATE service_breakers SET failures = 0, opened_at = NULL, probe_at = NULL, reason = NULL,
       retries_at = clock_timestamp(), retries_left = greatest(-:most, least(:most, CAST(:change AS double precision)
       + least(:most, retries_left + :refill_per_s * extract(epoch FROM clock_timestamp() - retries_at))))
WHERE service = :service AND (failures > 0 OR opened_at IS NOT NULL OR :change < 0 OR retries_left < :most)

-- name: count_failures
-- The service failed calls, which are taken from the budget; from a number of them in a row on, the breaker is open.
UPDATE service_breakers SET failures = failures + :failures, reason = :reason,
       opened_at = CASE WHEN failures + :failures >= :threshold THEN coalesce(opened_at, clock_timestamp()) END,
       probe_at = CASE WHEN failures + :failures >= :threshold
                       THEN coalesce(probe_at, clock_timestamp() + make_interval(secs => :first_probe_s)) END,
       retries_at = clock_timestamp(), retries_left = greatest(-CAST(:most AS double precision), :change
       + least(:most, retries_left + :refill_per_s * extract(epoch FROM clock_timestamp() - retries_at)))
WHERE service = :service RETURNING opened_at IS NOT NULL

-- name: let_rest
-- The service asks to be left alone for a while.
UPDATE service_breakers SET rest_until = clock_timestamp() + make_interval(secs => :rest_s) WHERE service = :service

-- name: open_breakers
-- The services that are left alone now, and when each is tried next.
SELECT service, reason, opened_at, probe_at FROM service_breakers WHERE opened_at IS NOT NULL ORDER BY service

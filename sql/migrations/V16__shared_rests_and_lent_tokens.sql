-- A service that asks to be left alone for a while is left alone by all processes. A token that was given back may be taken
-- before it may be used; one that is lent may not, since nobody knows yet when its call will end.

ALTER TABLE service_breakers ADD COLUMN rest_until timestamptz; -- null: it never asked

ALTER TABLE rate_tokens ADD COLUMN lent boolean NOT NULL DEFAULT false;

-- What lies in the landing and is no order file, so that people can be told of it.

CREATE TABLE landing_left_alone (
    key        text COLLATE "C" CONSTRAINT landing_left_alone_pkey PRIMARY KEY, -- a name, which nobody else is shown
    seen_again boolean NOT NULL DEFAULT false      -- by a second look: it is no upload that only has another name first
);

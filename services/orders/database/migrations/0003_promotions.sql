-- depends: 0001_orders
-- Which promotions of a standby were followed up: each once, whoever notices it.

CREATE TABLE promotions (
    system_identifier text NOT NULL,
    timeline bigint NOT NULL,
    skipped bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_identifier, timeline)
);

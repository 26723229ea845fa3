-- Rot: when a blob's bytes were last compared with what they should be.

-- NULL: never, its file was found and taken for what its name says.
ALTER TABLE blob ADD COLUMN verified_at REAL;

-- The run of the program that did so. What another run verified may have rotted since, so it is
-- compared once more before it is trusted; NULL is no run's.
ALTER TABLE blob ADD COLUMN verified_run INTEGER;

-- The scrub reads newest content first, a page at a time.
CREATE INDEX blob_by_age ON blob (stored_at);

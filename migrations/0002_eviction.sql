-- Eviction: in which order blobs go, and what all of them take.

-- Content comes in at the end of the queue 'new', and in 'main' where it was missed since it was
-- evicted. engine/policies.py says who goes from which.
ALTER TABLE blob ADD COLUMN queue TEXT NOT NULL DEFAULT 'new' CHECK (queue IN ('new', 'main'));

-- Its place in the queue: when it was put at the end.
ALTER TABLE blob ADD COLUMN queued_at REAL NOT NULL DEFAULT 0;

-- Batches of uses since it came into its queue, up to 3 (two bits suffice, as in S3-FIFO); the use
-- that stored it is none.
ALTER TABLE blob ADD COLUMN reuse_count INTEGER NOT NULL DEFAULT 0;

UPDATE blob SET queued_at = stored_at, reuse_count = min(3, max(0, use_count - 1));

-- A page of each order is one walk, in which a digest makes every place unique.
CREATE INDEX blob_by_queue ON blob (queue, queued_at, digest, size_bytes);

DROP INDEX blob_by_use;

CREATE INDEX blob_by_use ON blob (used_at, digest, size_bytes);

-- What an eviction that was broken off left to be finished.
CREATE INDEX blob_leaving ON blob (digest) WHERE state = 'evicting';

-- What went from the queue 'new' not long ago: should it be fetched again, that was too early.
CREATE TABLE evicted (
    digest TEXT PRIMARY KEY,
    evicted_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX evicted_by_time ON evicted (evicted_at);

-- One row: what the files of all blobs take. Each is rounded up to the file system's blocks.
CREATE TABLE usage (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    block_bytes INTEGER NOT NULL CHECK (block_bytes > 0),
    blob_count INTEGER NOT NULL,
    disk_bytes INTEGER NOT NULL
) STRICT;

INSERT INTO usage (id, block_bytes, blob_count, disk_bytes)
    SELECT 1, 4096, count(*), coalesce(sum((size_bytes + 4095) / 4096 * 4096), 0) FROM blob;

-- Whoever adds or drops a row has it counted in the same transaction.
CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
    UPDATE usage SET blob_count = blob_count + 1, disk_bytes = disk_bytes
        + (new.size_bytes + block_bytes - 1) / block_bytes * block_bytes;
    DELETE FROM evicted WHERE digest = new.digest;
END;

CREATE TRIGGER blob_resized AFTER UPDATE OF size_bytes ON blob
WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE usage SET disk_bytes = disk_bytes
        + (new.size_bytes + block_bytes - 1) / block_bytes * block_bytes
        - (old.size_bytes + block_bytes - 1) / block_bytes * block_bytes;
END;

CREATE TRIGGER blob_dropped AFTER DELETE ON blob BEGIN
    UPDATE usage SET blob_count = blob_count - 1, disk_bytes = disk_bytes
        - (old.size_bytes + block_bytes - 1) / block_bytes * block_bytes;
END;

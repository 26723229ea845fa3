-- What the mirror knows: repositories, the blobs on its disk, what upstream serves to whom, tags.
-- Times are unix seconds (UTC), sizes are bytes, digests are `<algorithm>:<hex>`.

CREATE TABLE migration (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;

CREATE TABLE repository (
    id INTEGER PRIMARY KEY,
    upstream TEXT NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (upstream, name)
) STRICT;

-- One row for each file in blobs/, manifests too. A row is written after its file is safe on disk
-- and leaves before its file does. Readers see only 'valid' ones.
CREATE TABLE blob (
    digest TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    -- xxh3-128, big-endian: finds rot, never identifies. NULL where it was not computed yet.
    xxh3 BLOB CHECK (length(xxh3) = 16),
    -- Was once fetched without credentials: every repository that names it may be served it.
    is_public INTEGER NOT NULL CHECK (is_public IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('valid', 'evicting')),
    stored_at REAL NOT NULL,
    used_at REAL NOT NULL,
    use_count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Finds the least recently used; with the size in it, eviction and the byte count read no table.
CREATE INDEX blob_by_use ON blob (used_at, size_bytes);

-- What upstream says of a digest in one repository, whether or not the blob is here.
-- 'named': a manifest of the repository names it. 'held': upstream served it to the repository.
CREATE TABLE link (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('manifest', 'blob')),
    state TEXT NOT NULL CHECK (state IN ('named', 'held')),
    media_type TEXT NOT NULL, -- of a manifest; empty for a blob
    size_bytes INTEGER CHECK (size_bytes >= 0), -- NULL where upstream did not say
    linked_at REAL NOT NULL,
    PRIMARY KEY (repository_id, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX link_by_digest ON link (digest);

CREATE TABLE tag (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    tag TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size_bytes INTEGER CHECK (size_bytes >= 0), -- NULL where upstream did not say
    etag TEXT,
    checked_at REAL NOT NULL, -- when upstream last said so
    changed_at REAL NOT NULL, -- when it first said so
    PRIMARY KEY (repository_id, tag)
) STRICT, WITHOUT ROWID;

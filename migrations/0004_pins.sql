-- Pins that operators set while the mirror runs; those of the configuration come on top.

-- A glob over `upstream/repository:tag`, as under `eviction.pins`.
CREATE TABLE pin (
    glob TEXT PRIMARY KEY,
    pinned_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

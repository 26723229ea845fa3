"""A compiled glob matches what SQLite's GLOB, by which pins are found, matches."""

import sqlite3
from contextlib import closing

from hypothesis import example, given
from hypothesis import strategies as st

from server.globs import compile_glob

SETS = st.builds(
    lambda no, members: f"[{no}{members}]",
    st.sampled_from(["", "!", "^"]),
    st.sampled_from(["a", "ab", "a-c", "0-9", "/", ".", "a-", "]a"]),
)
GLOBS = st.lists(st.one_of(st.sampled_from([*"abc/.:0*?*"]), SETS), max_size=8).map("".join)
NAMES = st.text("abc/.:09A", max_size=10)


@given(GLOBS, NAMES)
@example("[^a]*", "ba")
@example("a[!/]c", "a/c")
@example("*/*", "a/b/c")
@example("A*", "a")
def test_a_glob_means_what_sqlite_makes_of_it(glob: str, name: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        # As engine/index_eviction.py asks it.
        (found,) = connection.execute("SELECT ? GLOB ?", (name, glob.replace("[!", "[^")))
    assert compile_glob(glob)(name) is bool(found[0])

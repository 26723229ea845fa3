"""The glob language of the configuration, compiled. Pure.

Invariant: a glob means here what SQLite's GLOB makes of it, which `eviction.pins` are matched by:
`*` is any text, `?` any character, `[…]` one of a set, `[!…]` one of none of it; case matters.
"""

import fnmatch
import re
from collections.abc import Callable


def compile_glob(text: str) -> Callable[[str], bool]:
    """Make a function that tells whether all of a name matches."""
    match = re.compile(fnmatch.translate(text.replace("[^", "[!"))).match
    return lambda name: match(name) is not None

"""Secrets that stand in the configuration, or in a file of their own that it names."""

from pathlib import Path

from server.config_tree import Reader


def read_secret(reader: Reader, key: str, file_key: str) -> str | None:
    """Give the secret, from its file without the newline that editors leave at the end."""
    file = reader.text(file_key)
    if file is None:
        return reader.text(key)
    if reader.text(key) is not None:
        reader.add_problem(file_key, f"{key} as well", "only one of the two")
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as exc:
        reader.add_problem(file_key, f"{file!r}: {exc.strerror}", "a readable file")
        return None
    except UnicodeDecodeError:
        reader.add_problem(file_key, f"{file!r}, which is not UTF-8", f"a file with a {key}")
        return None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        reader.add_problem(file_key, f"{file!r}, which is empty", f"a file with a {key}")
    return secret

"""Every key that distribution 2.8 or 3.1 knows, and ours: what may stand where.

Invariant: a key that is not in `ROOT` is an error, one that is in it but not used is warned of, so
no setting is ever ignored in silence. What a value means is not decided here.
Names of environment variables come from here, too, where they differ from the key: distribution
derives them from the fields of its program, not from the keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

OTHER_AUTH_METHODS = ("silly", "token")
OTHER_DRIVERS = ("azure", "gcs", "oss", "s3", "s3aws", "swift")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A single value."""

    is_used: bool = True


@dataclass(frozen=True, slots=True)
class Free:
    """Anything: maps of the user's own."""

    is_used: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """A list; a single value is taken for a list of one."""

    element: "Schema"
    is_used: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping whose keys are the user's."""

    element: "Schema"
    is_used: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose keys are known.

    `has_shorthand`: a single value `x` stands for `{x: {}}`. `variables`: the upper-case names of
    keys in environment variables, where they are not simply the key's.
    """

    keys: Mapping[str, "Schema"]
    is_used: bool = True
    has_shorthand: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def find_key(self, variable: str) -> str | None:
        """Find the key that a part of an environment variable's name stands for."""
        names = {self.variables.get(key, key.upper()): key for key in self.keys}
        return names.get(variable)


Schema: TypeAlias = Leaf | Free | Listing | Table | Section


def _unused(*leaves: str, **sections: Schema) -> Section:
    """Make a section that is accepted as a whole and warned of once."""
    return Section(dict.fromkeys(leaves, Leaf()) | sections, is_used=False)


_IGNORED = Leaf(is_used=False)
_LEAVES = Listing(Leaf())
_HEADERS = Table(_LEAVES)

_LOG = Section(
    {
        "accesslog": Section({"disabled": Leaf()}),
        "level": Leaf(),
        "formatter": Leaf(),
        "fields": Free(),
        "reportcaller": _IGNORED,
        "hooks": Listing(
            Section(
                {
                    "disabled": Leaf(),
                    "type": Leaf(),
                    "levels": _LEAVES,
                    "options": _unused(
                        "from",
                        to=_LEAVES,
                        smtp=_unused("addr", "username", "password", "insecure"),
                    ),
                },
                variables={"options": "MAILOPTIONS"},
            ),
            is_used=False,
        ),
    }
)

_STORAGE = Section(
    {
        "filesystem": Section({"rootdirectory": Leaf(), "maxthreads": _IGNORED}),
        "inmemory": Free(),
        **dict.fromkeys(OTHER_DRIVERS, Free()),
        "maintenance": Section(
            {
                "uploadpurging": _unused("enabled", "age", "interval", "dryrun"),
                "readonly": _unused("enabled"),
            }
        ),
        "delete": Section({"enabled": _IGNORED}),
        "cache": Section(
            {"blobdescriptor": _IGNORED, "blobdescriptorsize": _IGNORED, "layerinfo": _IGNORED}
        ),
        "redirect": Section({"disable": _IGNORED}),
        "tag": Section({"concurrencylimit": _IGNORED}),
    },
    has_shorthand=True,
)

_AUTH = Section(
    {
        "htpasswd": Section({"realm": Leaf(), "path": Leaf()}),
        "none": Free(),
        **dict.fromkeys(OTHER_AUTH_METHODS, Free()),
    },
    has_shorthand=True,
)

_ACCESS = Section(
    {
        "default": Leaf(),
        "rules": Listing(
            Section(
                dict.fromkeys(("networks", "users", "certificates", "allow", "deny"), _LEAVES),
            )
        ),
    }
)

_HTTP = Section(
    {
        "addr": _LEAVES,
        "net": Leaf(),
        "host": _IGNORED,
        "prefix": Leaf(),
        "secret": _IGNORED,
        "relativeurls": _IGNORED,
        "draintimeout": Leaf(),
        "tls": Section(
            {
                "certificate": Leaf(),
                "key": Leaf(),
                "clientcas": _LEAVES,
                "clientauth": Leaf(),
                "minimumtls": Leaf(),
                "ciphersuites": _LEAVES,
                "letsencrypt": Section(
                    {
                        "cachefile": Leaf(),
                        "email": _IGNORED,
                        "hosts": Listing(Leaf(), is_used=False),
                        "directoryurl": _IGNORED,
                    }
                ),
            }
        ),
        "headers": _HEADERS,
        "trustedproxies": _LEAVES,
        "proxyprotocol": Leaf(),
        "debug": Section(
            {
                "addr": _LEAVES,
                "prometheus": Section({"enabled": Leaf(), "path": Leaf()}),
                "token": Leaf(),
                "tokenfile": Leaf(),
            }
        ),
        "http2": _unused("disabled"),
        "h2c": _unused("enabled"),
    }
)

_UPSTREAM_KEYS: dict[str, Schema] = {
    "remoteurl": Leaf(),
    "username": Leaf(),
    "password": Leaf(),
    "passwordfile": Leaf(),
    "exec": Section({"command": Leaf(), "lifetime": Leaf()}),
    "ttl": Leaf(),
    "tagttl": Leaf(),
    "negativettl": Leaf(),
    "namespaces": _LEAVES,
    "maxconnections": Leaf(),
    "ca": Leaf(),
    "certificate": Leaf(),
    "key": Leaf(),
    "insecure": Leaf(),
    "cachewritetimeout": _IGNORED,
}

_EVICTION = Section(
    {
        "maxsize": Leaf(),
        "minfree": Leaf(),
        "highwatermark": Leaf(),
        "lowwatermark": Leaf(),
        "interval": Leaf(),
        "policy": Leaf(),
        "pins": _LEAVES,
    }
)

_NOTIFICATIONS = Section(
    {
        "events": _unused("includereferences"),
        "endpoints": Listing(
            _unused(
                *("name", "disabled", "url", "timeout", "threshold", "backoff"),
                headers=_HEADERS,
                ignoredmediatypes=_LEAVES,
                ignore=_unused(mediatypes=_LEAVES, actions=_LEAVES),
            )
        ),
    },
    is_used=False,
    variables={"events": "EVENTCONFIG"},
)

_HEALTH = Section(
    {
        "storagedriver": _unused("enabled", "interval", "threshold"),
        "file": Listing(_unused("file", "interval", "threshold")),
        "http": Listing(
            _unused("uri", "statuscode", "timeout", "interval", "threshold", headers=_HEADERS)
        ),
        "tcp": Listing(_unused("addr", "timeout", "interval", "threshold")),
    },
    is_used=False,
    variables={"file": "FILECHECKERS", "http": "HTTPCHECKERS", "tcp": "TCPCHECKERS"},
)

# 2.8 has `addr` and `pool`, 3.1 the options of its client library.
_REDIS = _unused(
    *("addr", "db", "username", "password", "dialtimeout", "readtimeout", "writetimeout"),
    *("clientname", "protocol", "sentinelusername", "sentinelpassword", "maxretries"),
    *("minretrybackoff", "maxretrybackoff", "contexttimeoutenabled", "poolfifo", "poolsize"),
    *("pooltimeout", "minidleconns", "maxidleconns", "maxactiveconns", "connmaxidletime"),
    *("connmaxlifetime", "maxredirects", "readonly", "routebylatency", "routerandomly"),
    *("mastername", "disableidentity", "identitysuffix", "unstableresp3"),
    addrs=_LEAVES,
    pool=_unused("maxidle", "maxactive", "idletimeout"),
    tls=_unused("enabled", "certificate", "key", rootcas=_LEAVES),
)

_VALIDATION = _unused(
    *("enabled", "disabled"),
    manifests=_unused(
        urls=_unused(allow=_LEAVES, deny=_LEAVES),
        indexes=_unused("platforms", platformlist=Listing(_unused("architecture", "os"))),
    ),
)

ROOT = Section(
    {
        "version": Leaf(),
        "log": _LOG,
        "loglevel": Leaf(),
        "storage": _STORAGE,
        "auth": _AUTH,
        "access": _ACCESS,
        "middleware": Table(
            Listing(Section({"name": Leaf(), "disabled": Leaf(), "options": Free()})),
            is_used=False,
        ),
        "reporting": _unused(
            bugsnag=_unused("apikey", "releasestage", "endpoint"),
            newrelic=_unused("licensekey", "name", "verbose"),
        ),
        "http": _HTTP,
        "notifications": _NOTIFICATIONS,
        "redis": _REDIS,
        "health": _HEALTH,
        "catalog": Section({"maxentries": Leaf()}),
        "tags": Section({"maxtags": Leaf()}),
        "proxy": Section(_UPSTREAM_KEYS),
        "upstreams": Table(Section(_UPSTREAM_KEYS)),
        "eviction": _EVICTION,
        "verify": Section({"interval": Leaf(), "rate": Leaf()}),
        "compatibility": _unused(
            schema1=Section(
                {"signingkeyfile": Leaf(), "enabled": Leaf()},
                variables={"signingkeyfile": "TRUSTKEY"},
            )
        ),
        "validation": _VALIDATION,
        "policy": _unused(repository=_unused(classes=_LEAVES)),
    }
)

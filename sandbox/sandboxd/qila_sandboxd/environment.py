"""The environment that every program starts with."""

from __future__ import annotations

import os
from pathlib import Path

from .linux import INSTALL_USER

# The authorities that the host trusts, where the executor gives them. OpenSSL, Go and Java find them through links.
TRUST = Path("/run/qila/trust/ca.pem")

_COMMON = {
    "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own tmpfs
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    # pnpm has no configuration file of the system: this one is npm's, in place of the one in HOME.
    "PNPM_CONFIG_NPMRC_AUTH_FILE": "/etc/npmrc",
    "PNPM_CONFIG_UPDATE_NOTIFIER": "false",
    # A project that names another version of pnpm gets the image's.
    "PNPM_CONFIG_PM_ON_FAIL": "ignore",
    # What npm builds addons from source with would download the headers that lie here.
    "npm_package_config_node_gyp_nodedir": "/usr/lib/qila/node",
}
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

_PROGRAM = _COMMON | {
    "PATH": f"/sandbox/.local/bin:{_SYSTEM_PATH}",
    "HOME": "/sandbox/.home",
    "USER": "qila",
    "MPLBACKEND": "Agg",
    "PYTHONUSERBASE": "/sandbox/.local",
    # Debian's Python refuses a hand-typed `pip install` otherwise; it goes to the user base.
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    # Every Node program finds the packages of the environment by it.
    "NODE_OPTIONS": "--require=/usr/lib/qila/node-support/resolve.cjs",
}
# Nothing of an install may come from where programs can write: neither commands nor Python's user site.
_INSTALL = _COMMON | {
    "PATH": _SYSTEM_PATH,
    "HOME": "/sandbox/.qila/home",
    "USER": "installer",
    "PYTHONNOUSERSITE": "1",
}


# What every terminal of today understands.
_TERMINAL = {"TERM": "xterm-256color"}
# Lists of options, to which a request adds.
_ADDED_TO = ("NODE_OPTIONS",)


def environment(
    user: int, requested: dict[str, str], trust: Path = TRUST, *, has_terminal: bool = False
) -> dict[str, str]:
    """Return the base of `user` with the request's variables on top."""
    base = _INSTALL if user == INSTALL_USER else _PROGRAM
    if has_terminal:
        base = base | _TERMINAL
    added = {name: f"{base[name]} {requested[name]}" for name in _ADDED_TO if name in base and name in requested}
    return base | _trusting(trust) | requested | added


def _trusting(trust: Path) -> dict[str, str]:
    """For what brings its own authorities and looks nowhere else; a name of a missing file would break it."""
    if not os.path.isfile(trust):  # noqa: PTH113 - of a Path it costs twice as much, at each start
        return {}
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"), str(trust))

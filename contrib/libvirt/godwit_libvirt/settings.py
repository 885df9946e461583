"""What may go wrong, how it is said, and the hook's settings."""

import sys
import syslog

CONF = "/etc/godwit/libvirt.conf"

DEFAULTS = {
    "godwitctl": "godwitctl",
    "socket": "",
    "nva": "http://[::1]:6640",
    "nve": "",
    "vni": "",
    "required": "yes",
    "define": "no",
    "prepare_s": "10",
    "settle_s": "30",
    "timeout_s": "5",
    "socket_owner": "",
    "state_dir": "/run/godwit/libvirt",
}


class Trouble(Exception):
    """What is wrong, and the next step."""


class Unreachable(Trouble):
    """The NVA or the switch does not answer."""


class NotFound(Trouble):
    """There is no such thing."""


def log(level, text):
    """To libvirt's log, or the error of its command, and to the system's."""
    if level < syslog.LOG_DEBUG:
        print("godwit: " + text, file=sys.stderr)
    syslog.syslog(level, text)


def read_settings(path):
    """Lines of `key = value`; `#` begins a comment."""
    settings = dict(DEFAULTS)
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return settings
    except (OSError, UnicodeDecodeError) as e:
        raise Trouble(f"{path} cannot be read: {e}") from e
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].strip()
        if not line:
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key not in DEFAULTS:
            known = ", ".join(DEFAULTS)
            raise Trouble(f"{path}, line {number}: {line!r} is no setting; lines are KEY = VALUE, keys {known}")
        settings[key] = value.strip("\"'")
    for key in ("prepare_s", "settle_s", "timeout_s"):
        try:
            ok = 0 < float(settings[key]) <= 600
        except ValueError:
            ok = False
        if not ok:
            raise Trouble(f"{path}: {key} = {settings[key]!r} is no time; use 0.1 to 600 seconds")
    for key in ("required", "define"):
        if settings[key] not in ("yes", "no"):
            raise Trouble(f"{path}: {key} = {settings[key]!r}; use yes or no")
    return settings

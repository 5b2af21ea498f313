"""What an attempt's process says, kept in numbered chunks in the artifact store.

::

    print, C code, warnings, crashes ─┐
    our own lines (attempt.py)       ─┴▶ a local file ─▶ chunks in the store ─▶ a LogRecord each

Of several workers each has its own log; worker 0, which alone writes events, announces them all.
Only the file is written while training speaks: a store that is away slows nothing and loses
nothing but what does not fit. What a killed process left in the file is salvaged by the service.
"""

from workers.logs.attempt import AttemptLog
from workers.logs.gathering import PeerLogs
from workers.logs.lines import Level, LogLine, decode_chunk, gap
from workers.logs.local import local_log_path
from workers.logs.salvage import salvage
from workers.logs.words import farewell, greeting, loaded

__all__ = [
    "AttemptLog",
    "Level",
    "LogLine",
    "PeerLogs",
    "decode_chunk",
    "farewell",
    "gap",
    "greeting",
    "loaded",
    "local_log_path",
    "salvage",
]

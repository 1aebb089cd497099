"""Every error that desireline raises on purpose.

DesirelineError
├── SchemaError    (ValueError)   desireline.yaml, a column, a rule or an expression is wrong
├── SourceError    (OSError)      a file, folder or URL cannot be read
├── DataError      (ValueError)   the log does not allow what was asked (empty, cut outside, one item)
├── SettingError   (ValueError)   an option's name or value is wrong
├── ModelError     (ValueError)   a model does not fit this workspace (other schema, damaged file)
├── StoreError     (OSError)      the workspace cannot be written or is damaged (full disk, folder missing)
├── BusyError      (OSError)      another process is writing this workspace
├── UnknownUserError  (KeyError)  no event of that user is known
└── UnknownModelError (KeyError)  no model of that name is in the workspace

A message says what is wrong, where, and what to do about it, in one or two sentences: the command line prints it as it
is and exits with status 1.
"""

from __future__ import annotations


class DesirelineError(Exception):
    """The root of the tree: catch it to catch everything that is the caller's to mend."""


class SchemaError(DesirelineError, ValueError):
    """The schema, or an expression in it, is wrong or does not fit the file."""


class SourceError(DesirelineError, OSError):
    """A source cannot be opened or read to its end."""


class DataError(DesirelineError, ValueError):
    """The log does not hold what the call needs."""


class SettingError(DesirelineError, ValueError):
    """An option is unknown or its value is out of range."""


class ModelError(DesirelineError, ValueError):
    """A model cannot be used here."""


class StoreError(DesirelineError, OSError):
    """The workspace's own files cannot be written or read."""


class BusyError(DesirelineError, OSError):
    """Somebody else holds the workspace's write lock."""


class _LookupError(DesirelineError, KeyError):
    def __str__(self) -> str:  # KeyError would print the message's repr
        return str(self.args[0]) if self.args else ""


class UnknownUserError(_LookupError):
    """No event of that user is in the log."""


class UnknownModelError(_LookupError):
    """No such model in the workspace."""

"""The exit codes of `penstock`. The same for every sub-command, and part of its contract."""

OK = 0
ERROR = 1  # what was asked could not be done; a sentence on stderr says why
USAGE = 2  # argparse's own
INTERRUPTED = 130  # Ctrl-C, SIGTERM or SIGHUP; everything was closed in good order
BROKEN_PIPE = 141  # the reader of our stdout went away, as `head` does

EPILOG = (
    "exit codes: 0 ok; 1 error, with a sentence on stderr; 2 usage; 130 interrupted;\n"
    "141 the reader of stdout went away"
)

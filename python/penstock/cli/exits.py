"""The exit codes of `penstock`: the same for every sub-command, and part of its interface."""

OK = 0
ERROR = 1  # the request failed; a sentence on stderr says why
USAGE = 2  # argparse's own
INTERRUPTED = 130  # Ctrl-C, SIGTERM or SIGHUP; everything was closed cleanly
BROKEN_PIPE = 141  # the reader of stdout is gone, as with `head`

EPILOG = (
    "exit codes: 0 ok; 1 error, with a sentence on stderr; 2 usage; 130 interrupted;\n"
    "141 the reader of stdout went away"
)

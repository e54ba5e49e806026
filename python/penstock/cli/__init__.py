"""The `penstock` command: one file per sub-command, put together in main.py."""

"""Penstock under the interfaces of other systems, for programs that were written to those."""

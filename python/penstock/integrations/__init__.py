"""Penstock behind the interfaces of other systems, for programs written for those."""

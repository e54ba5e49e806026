"""The checks of `penstock doctor`, one file for each thing that a machine grants or withholds.
Every check tries the thing itself where that is possible, and trusts no version number."""

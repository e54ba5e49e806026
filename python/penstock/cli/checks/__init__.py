"""What `penstock doctor` looks at, one file per thing that a machine gives or withholds.
Every check really tries the thing; none trusts a version number where a try is possible."""

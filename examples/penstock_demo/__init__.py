"""The main use: one driver broadcasts real data to several workers, one of which is killed.
`penstock demo` runs it; start reading at driver.py (sends) and worker.py (receives)."""

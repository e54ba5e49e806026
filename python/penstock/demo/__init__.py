"""The main job at work: one driver broadcasts real data to several workers, one of which is killed.
`penstock demo` runs it; start reading at driver.py (who sends) and worker.py (who receives)."""

"""The seed's own algorithms, with its lists under `proc_lock`, its flag `alert_pending`, and a kernel that cannot die:
what `upcall.kern` and `upcall.parlib` have in their place is told in docs/findings.md."""

"""Networks under their upstream state-dict names; no knowledge of files, units or hosts."""

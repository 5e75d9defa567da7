"""`upcall bench`: what an event costs here, beside the same job done with everything else that is to hand.

`sample` says what is measured (the rows) and what a measurement is; `measure` runs one in fresh, pinned processes;
`peers` holds the other systems, one file per family; `limits` what the machine itself allows, in compiled loops.
"""

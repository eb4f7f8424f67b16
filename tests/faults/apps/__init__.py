"""App modules of the fault tests, run by real workers, and the rig that starts those."""

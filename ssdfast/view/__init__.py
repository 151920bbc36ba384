"""``ssdfast view``: any run directory as a page, served on this machine alone."""

"""Results of stages that know their directory: small objects over the files in it, read when they are needed."""

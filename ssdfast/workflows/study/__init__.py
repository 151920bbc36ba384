"""``ssdfast study``: arms sampled, trained, evaluated and probed from one file, and what they say together."""

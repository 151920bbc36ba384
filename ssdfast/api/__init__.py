"""The functions behind ``import ssdfast``. Use them from there: ``ssdfast.sample``, ``ssdfast.probe`` and so on."""

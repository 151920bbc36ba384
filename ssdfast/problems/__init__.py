"""Where problems come from: one file a source, and what sees to it that no problem is there twice."""
